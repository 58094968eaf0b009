"""What works on this machine, and what to do about what does not: Python, packages, disk, weights, each model.

Nothing heavy is imported to find it out: versions come from package metadata. No paid call is made.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from verbal.errors import VerbalError

# How much a finding matters.
Level = Literal["ok", "warning", "error"]

# Artefacts of litellm that carried a credential stealer (OSV MAL-2026-2144).
_POISONED = {"litellm": ("1.82.7", "1.82.8")}
_LEAST_DISK = 500 * 2**20
_LEAST_SQLITE = (3, 35, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    area: str
    """python, package, extra, threads, sqlite, disk, weights or model."""
    what: str
    todo: str = ""
    """What to do, when something is to be done."""

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain JSON types."""
        return asdict(self)


async def doctor(models: Sequence[str] = (), *, folder: str | Path = ".", timeout: float = 20.0) -> list[Finding]:
    """What was found, in order: the machine first, then each of `models`.

    Args:
        models: Names of models (see `verbal.models.FORMS`); each one's check is run, all side by side.
        folder: Where runs will be stored.
        timeout: Seconds for the check of one model.
    """
    found = [_python(), *_packages(), *_threads(), _sqlite(), *_disk(Path(folder)), _weights()]
    opened = {spec: _opened(spec) for spec in dict.fromkeys(models)}
    for model in opened.values():
        if warm := getattr(model, "warm", None):
            await asyncio.to_thread(warm)  # loading a library is no answer of a server: it may take from nobody's time
    return found + list(await asyncio.gather(*(_checked(spec, model, timeout) for spec, model in opened.items())))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(level="ok", area="python", what=f"Python {version} at {sys.executable}")


def _packages() -> list[Finding]:
    try:
        required = metadata.requires("verbal") or []
        found = [Finding(level="ok", area="package", what=f"verbal {metadata.version('verbal')}")]
    except metadata.PackageNotFoundError:
        what = "verbal itself is not installed (it runs from a checkout), so its packages are not checked"
        return [Finding(level="warning", area="package", what=what, todo="pip install -e .")]
    extras: dict[str, list[tuple[str, str]]] = {}
    for line in required:
        match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;.*extra\s*==\s*['\"]([\w-]+)['\"])?", line)
        if match is None or match.group(1) == "verbal":
            continue
        name, wanted, extra = match.group(1), match.group(2).strip(" ()"), match.group(3)
        if extra is None:
            found.append(_package(name, wanted))
        else:
            extras.setdefault(extra, []).append((name, wanted))
    return found + [_extra(extra, rows) for extra, rows in sorted(extras.items()) if extra not in ("dev", "all")]


def _package(name: str, wanted: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(
            level="error", area="package", what=f"{name} is not installed", todo=f'pip install "{name}{wanted}"'
        )
    if version in _POISONED.get(name, ()):
        todo = f"remove it, change every key this machine had, then pip install '{name}{wanted}'"
        what = f"{name} {version} is a known malicious release"
        return Finding(level="error", area="package", what=what, todo=todo)
    if not fits(version, wanted):
        what = f"{name} {version}, but {wanted} is needed"
        return Finding(level="warning", area="package", what=what, todo=f'pip install "{name}{wanted}"')
    return Finding(level="ok", area="package", what=f"{name} {version}")


def _extra(extra: str, rows: Sequence[tuple[str, str]]) -> Finding:
    versions = {name: _version(name) for name, _ in rows}
    odd = [f"{n} {v} (needs {w})" for n, w in rows if (v := versions[n]) is not None and not fits(v, w)]
    install = f"pip install 'verbal[{extra}]'"
    if odd:
        return Finding(level="warning", area="extra", what=f"extra {extra}: {', '.join(odd)}", todo=install)
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        what = f"extra {extra}: not installed ({', '.join(missing)})"
        return Finding(level="ok", area="extra", what=what, todo=f"{install}, if you want it")
    return Finding(
        level="ok", area="extra", what=f"extra {extra}: " + ", ".join(f"{n} {v}" for n, v in versions.items())
    )


def fits(version: str, wanted: str) -> bool:
    """Whether a version lies within bounds such as `>=1.84,<2` (numbers only; a local suffix is ignored)."""
    have = _numbers(version)
    for operator, bound in re.findall(r"(>=|<=|==|!=|<|>|~=)\s*([\w.]+)", wanted):
        need = _numbers(bound)
        width = max(len(have), len(need))
        a, b = (have + (0,) * width)[:width], (need + (0,) * width)[:width]
        good = {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "<": a < b, ">": a > b}
        good["~="] = a >= b and have[: len(need) - 1] == need[:-1]
        if not good[operator]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(n) for n in match.group().split(".")) if match else ()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _threads() -> Iterable[Finding]:
    if _version("torch") is None:
        return
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS")
    if given is None and cores <= 4:
        what = f"torch may use all {cores} cores; with small models, beside other work, that can be many times slower"
        yield Finding(level="warning", area="threads", what=what, todo="export OMP_NUM_THREADS=1")
    else:
        yield Finding(level="ok", area="threads", what=f"{cores} cores, OMP_NUM_THREADS={given or 'not set'}")


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        least = ".".join(map(str, _LEAST_SQLITE))
        what = f"SQLite {version} is older than {least}"
        return Finding(level="error", area="sqlite", what=what, todo="use a Python built with a newer SQLite")
    return Finding(level="ok", area="sqlite", what=f"SQLite {version}")


def _disk(folder: Path) -> Iterable[Finding]:
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        what = f"{place} cannot be written: {error.strerror or error}"
        yield Finding(level="error", area="disk", what=what, todo="give another folder: --store PATH")
        return
    free = shutil.disk_usage(place).free
    if free < _LEAST_DISK:
        what = f"{place} has {free >> 20} MB free"
        yield Finding(level="warning", area="disk", what=what, todo="free some space before a long run")
    else:
        yield Finding(level="ok", area="disk", what=f"{place} can be written, {free >> 30} GB free")


def _weights() -> Finding:
    folder = Path(__file__).parent / "models" / "embedded"
    files = sorted(p for p in folder.rglob("*.safetensors") if p.stat().st_size)
    if not files:
        todo = "reinstall verbal, train them with `verbal embedded train`, or use another model"
        return Finding(level="warning", area="weights", what="the embedded model's weights are not there", todo=todo)
    sizes = ", ".join(f"{p.name} ({p.stat().st_size / 2**20:.1f} MB)" for p in files)
    return Finding(level="ok", area="weights", what=f"embedded model: {sizes}")


def _opened(spec: str) -> Any:
    """The model, or what came instead."""
    from verbal.models import open_model

    try:
        model = open_model(spec)
        if hasattr(model, "warm"):
            model.warm()  # before any clock runs: an import may take longer than a server is waited for
        return model
    except Exception as error:  # told by `_checked`
        return error


async def _checked(spec: str, model: Any, timeout: float) -> Finding:
    from verbal.models import redact

    try:
        if isinstance(model, Exception):
            raise model
        async with asyncio.timeout(timeout):
            said = await model.check()
        return Finding(level="ok", area="model", what=f"{redact(spec)}: {said}")
    except VerbalError as error:
        where = f" ({error.where})" if error.where else ""
        return Finding(level="error", area="model", what=f"{redact(spec)}: {error.what}{where}", todo=error.todo)
    except TimeoutError:
        what = f"{redact(spec)}: no answer within {timeout:g} s"
        return Finding(level="error", area="model", what=what, todo="check host, port and network")
    except Exception as error:
        # A broken adapter is a finding too: the doctor goes on with the next.
        what = f"{redact(spec)}: its check broke: {type(error).__name__}: {redact(str(error))[:200]}"
        return Finding(level="error", area="model", what=what, todo="this is a fault in the adapter; please report it")
    finally:
        if not isinstance(model, Exception):
            await model.aclose()
