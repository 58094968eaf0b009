"""Parts by name: `chroma` (a file of a room), `./mine.py:MyCritic` (a user's file), or an entry point.

The file name is the name: `critics/judge.py` is the critic `judge`, and its `__all__` starts with the class. There is
no registry, so a reader finds the code without searching.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, MissingExtra, UnknownName

ROOMS = ("memory", "critics", "trainers", "apps", "models")
"""Where parts are found by name."""

_EXTRAS = {
    "torch": "train", "transformers": "train", "trl": "train", "datasets": "train", "accelerate": "train",
    "peft": "train", "safetensors": "train", "sentence_transformers": "embed", "duckdb": "sql", "sqlalchemy": "sql",
    "uvicorn": "mcp", "mlflow": "mlflow", "ray": "ray", "mcp": "mcp", "psycopg": "postgres",
}  # fmt: skip


def part_names(room: str) -> list[str]:
    """The names of all parts of a room, entry points included, sorted."""
    package = importlib.import_module(f"verbal.{room}")
    own = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}
    return sorted(own | {e.name for e in installed_parts(room)})


def installed_parts(room: str) -> EntryPoints:
    """The entry points of a room. The metadata of every installed package is read once, and again when one changed."""
    return _installed(room, tuple((place, _changed(place)) for place in sys.path))


@lru_cache(maxsize=16)
def _installed(room: str, places: tuple[tuple[str, int], ...]) -> EntryPoints:
    return entry_points(group=f"verbal.{room}")


def _changed(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def load_part(room: str, name: str, *, where: str = "") -> type[Any]:
    """The class of the part `name` of `room`.

    Raises:
        UnknownName: no such part (lists the nearest). ConfigError: the file has no such class.
        MissingExtra: the part needs a package that is not installed.
    """
    try:
        if ".py:" in name:
            return _from_file(name, where)
        for entry in installed_parts(room).select(name=name):
            return entry.load()  # type: ignore[no-any-return]
        if not name.isidentifier() or name not in part_names(room):
            raise UnknownName.of(f"part of {room}", name, part_names(room), where=where)
        module = importlib.import_module(f"verbal.{room}.{name}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in _EXTRAS:
            raise MissingExtra.of(missing, _EXTRAS[missing]) from error
        raise
    exported = getattr(module, "__all__", ())
    if not exported or not isinstance(getattr(module, exported[0]), type):
        raise UnknownName(
            f"verbal.{room}.{name} is not a part", where=where, todo="its __all__ must start with a class"
        )
    return getattr(module, exported[0])  # type: ignore[no-any-return]


def make_part(room: str, name: str, /, *, where: str = "", **config: Any) -> Any:
    """The part itself, made with `config`.

    Raises:
        ConfigError: its constructor does not take these options.
    """
    part = load_part(room, name, where=where)
    try:
        return part(**config)
    except TypeError as error:
        todo = "; ".join(filter(None, (_options_of(part, config), f"see {part.__module__}")))
        raise ConfigError(f"{room} part {name!r}: {error}", where=where, todo=todo) from error


def _options_of(part: type[Any], config: Mapping[str, Any]) -> str:
    """The options of a part, the nearest to an unknown one first; empty where none is unknown."""
    known = inspect.signature(part).parameters
    unknown = [] if any(p.kind is p.VAR_KEYWORD for p in known.values()) else [k for k in config if k not in known]
    return UnknownName.of("option", unknown[0], known).todo if unknown else ""


def load_function(room: str, file: str, name: str) -> Callable[..., Any]:
    """A public function of a room, for the hub, which imports no room."""
    found: Callable[..., Any] = getattr(importlib.import_module(f"verbal.{room}.{file}"), name)
    return found


def _from_file(name: str, where: str) -> type[Any]:
    path_text, _, class_name = name.rpartition(":")
    path = Path(path_text)
    if not path.is_file():
        raise ConfigError(f"no file {path_text!r}", where=where or name, todo="give the path from where you run verbal")
    module_name = f"verbal_user_{path.stem}_{abs(hash(path.resolve()))}"
    if (module := sys.modules.get(module_name)) is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]  # or the next try would find half a module
            raise
    if not isinstance(found := getattr(module, class_name, None), type):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module_name]
        raise UnknownName.of(f"class in {path_text}", class_name, classes, where=where)
    return found
