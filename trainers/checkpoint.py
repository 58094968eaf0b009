"""Trained weights with their papers: `verbal.json` beside the weights says what they are and where they came from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import verbal
from verbal.contracts import Example
from verbal.errors import ConfigError, DataError, TrainError
from verbal.parts import load_part
from verbal.recipe import Recipe
from verbal.store import Store

from .rows import Row

__all__ = ["amend", "check_name", "describe", "digest", "read", "register", "resolve", "write"]

_FILE = "verbal.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HASHED = 2**30  # a larger file is told by its size only: hashing many gigabytes at each start takes too long
_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets")


def describe(
    examples: Sequence[Example],
    *,
    method: str,
    kind: Literal["embedded", "huggingface"],
    base: str,
    seed: int,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """What the papers say of the rows and the software, before any figure of the run; each row is looked at once.

    With a `recipe` the rows are tasks that the weights attempt themselves: its verdict critic decides every reward.
    """
    found: dict[str, set[str]] = {k: set() for k in ("tasks", "critics", "models", "runs", "licences", "attempts")}
    origins: Counter[str] = Counter()
    oracle, whole = 0, hashlib.sha256()
    for example in examples:
        whole.update(_plain(example))
        found["attempts"].update(example.attempts)
        if isinstance(example, Row):
            found["tasks"].add(example.task)
            found["critics"].add(example.critic)
            for name in ("models", "runs", "licences"):
                found[name].update(getattr(example, name))
            origins[example.origin] += 1
            oracle += example.oracle
    if recipe is not None:
        verdict = recipe.critics.verdict
        found["critics"], found["models"] = {verdict}, found["models"] | {base}
        oracle = len(examples) if getattr(load_part("critics", verdict), "oracle", False) else oracle
    return {
        "kind": kind, "method": method, "base": base, "seed": seed, "rows": len(examples),
        "tasks": len(found.pop("tasks")), "oracle_rows": oracle, "origins": dict(sorted(origins.items())),
        **{name: sorted(values) for name, values in found.items()},
        "rows_sha256": whole.hexdigest(),
        "versions": {"verbal": verbal.__version__} | {p: v for p in _PACKAGES if (v := _version(p))},
    }  # fmt: skip


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 of the rows in their order, provenance included: 64 hex digits that name a training set."""
    whole = hashlib.sha256()
    for example in examples:
        whole.update(_plain(example))
    return whole.hexdigest()


def _plain(example: Example) -> bytes:
    plain = example.record() if isinstance(example, Row) else {**example.columns, "attempts": example.attempts}
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str).encode(errors="surrogatepass") + b"\n"


def write(folder: str | Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the papers of finished weights, with a digest of every weights file; gives what was written."""
    folder = Path(folder)
    text = json.dumps({**info, "weights": _digests(folder)}, indent=1, ensure_ascii=False)
    part = folder / f"{_FILE}.part"
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, folder / _FILE)
    return dict(json.loads(text))


def read(folder: str | Path) -> dict[str, Any]:
    """The papers of the weights in a folder, once their digests were found right.

    Raises:
        DataError: no such folder, no papers (training did not finish), or weights that are not those of the papers.
    """
    path = Path(folder) / _FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        recorded = dict(info["weights"])
    except OSError as error:
        todo = "train again, or resume the training that did not finish"
        raise DataError(f"no finished weights in {str(folder)!r}", where=str(path), todo=todo) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the papers cannot be read: {error}", where=str(path), todo="train again") from error
    if (found := _digests(Path(folder))) != recorded:
        changed = sorted({name for name in {*found, *recorded} if found.get(name) != recorded.get(name)})
        raise DataError(
            f"these weights are not the ones that were trained (differs: {', '.join(changed)})",
            where=str(folder),
            todo="restore the folder, or train again",
        )
    return dict(info)


def amend(folder: str | Path, more: Mapping[str, Any]) -> dict[str, Any]:
    """Adds to the papers of finished weights (or replaces keys) once they were found to be theirs; gives all of it.

    Raises:
        DataError: as `read`.
    """
    return write(folder, {**read(folder), **more})


def check_name(name: str) -> str:
    """The name, if it can be one of a checkpoint.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a checkpoint", where="name", todo="letters, digits, '.', '_' and '-'")
    return name


def register(store: Store, name: str, folder: str | Path) -> dict[str, Any]:
    """Registers finished weights under a name, so that `checkpoint:NAME` means them; gives their papers.

    Raises:
        ConfigError: not a name. DataError: the folder holds no finished weights.
    """
    info = read(folder)
    store.put_checkpoint(check_name(name), str(Path(folder).resolve()), info)
    return info


def resolve(store: Store, name: str) -> dict[str, Any]:
    """A registered checkpoint: name, path, at, info, and `model`, the string to open or train it with.

    Raises:
        UnknownName: none of that name. DataError: its files are gone or were changed.
        TrainError: another training has since been written to the same folder.
    """
    entry = store.checkpoint(name.removeprefix("checkpoint:"))
    info = read(entry["path"])
    if info["weights"] != entry["info"].get("weights"):
        raise TrainError(
            f"the folder of checkpoint {entry['name']!r} holds newer weights than the registered ones",
            where=entry["path"],
            todo="register it again",
        )
    prefix = "embedded:" if info["kind"] == "embedded" else ""
    return {**entry, "info": info, "model": f"{prefix}{entry['path']}"}


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        if (size := path.stat().st_size) > _HASHED:
            found[path.name] = f"{size} bytes"
            continue
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
