"""An embedder from its name, and what every embedder's vectors are checked for.

`hashing` needs nothing. `endpoint/MODEL@URL` asks a server, `sentences/NAME` runs sentence-transformers here,
`chroma/NAME` runs one of Chroma's own functions. Nothing is opened, loaded or downloaded before the first text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from verbal.contracts import Embedder
from verbal.errors import ConfigError, ModelError, UnknownName
from verbal.parts import load_part, make_part, part_names

FORMS = (
    "hashing", "hashing/DIMENSION", "endpoint/MODEL", "endpoint/MODEL@http://HOST:PORT/v1", "sentences/NAME_OR_FOLDER",
    "chroma/NAME", "./FILE.py:CLASS", "the name of a part",
)  # fmt: skip
"""The ways to name an embedder."""

_KINDS = {"hashing": "hashing", "endpoint": "endpoint", "sentences": "sentences", "chroma": "chroma_embedder"}


def make_embedder(spec: str | Mapping[str, Any] | Embedder, **options: Any) -> Embedder:
    """The embedder that `spec` names; an embedder is given back as it is.

    Args:
        spec: One of `FORMS`; or a table of a recipe, whose `name` is one and whose other keys are options, such as
            `{name = "endpoint/text-embedding-3-small", dimensions = 512}`.
        options: Passed to its constructor.

    Raises:
        UnknownName: no such embedder (lists the nearest). ConfigError: the name is incomplete, or an option is wrong.
        MissingExtra: its package is not installed.
    """
    if isinstance(spec, Mapping):
        table = dict(spec)
        if not isinstance(name := table.pop("name", None), str):
            raise ConfigError("the embedder's table has no name", where="[memory] embedder", todo=_write())
        return make_embedder(name, **(table | options))
    if not isinstance(spec, str):
        if options:
            raise ConfigError(f"options {sorted(options)} for an embedder that is already made", todo="leave them out")
        return spec
    text = spec.strip()
    head, slash, rest = text.partition("/")
    if ".py:" in text or (not slash and head not in ("endpoint", "sentences", "chroma")):
        return _make_part(text, options)
    if head not in _KINDS:
        raise UnknownName.of("embedder", head, _names(), where=f"embedder {_shown(text)!r}")
    if not rest.strip():
        raise ConfigError(f"embedder {text!r} names no model", where="embedder", todo=_write())
    made: Embedder = make_part(
        "memory", _KINDS[head], where=f"embedder {_shown(text)!r}", **_read(head, rest), **options
    )
    return made


def unit_vectors(
    rows: Sequence[Any], count: int, *, dimension: int | None = None, where: str = ""
) -> list[tuple[float, ...]]:
    """The rows as vectors of length one, their numbers those of float32 (a table of float32 loses nothing of them).

    A row of zeros says nothing, and becomes the fixed direction `still`: it equals its like and is near nothing else.

    Args:
        rows: One array or list of numbers a text.
        count: How many texts there were.
        dimension: Length that every row must have; None takes the first row's.
        where: For errors.

    Raises:
        ModelError: another number of rows, rows of unequal or wrong length, or what is no finite number.
    """
    if len(rows) != count:
        raise ModelError(f"{len(rows)} vectors came for {count} texts", where=where, todo="check the embedding model")
    vectors = []
    for i, row in enumerate(rows):
        try:
            array = np.asarray(row)
        except ValueError:  # lists of unequal length inside
            array = np.empty(0, dtype=object)
        if array.ndim != 1 or array.dtype.kind not in "fiu" or not array.size:
            what = f"vector {i} is no list of numbers (shape {array.shape}, {array.dtype})"
            raise ModelError(what, where=where, todo="take a model that gives one vector a text (pooled), as numbers")
        dimension = dimension or len(array)
        if len(array) != dimension:
            what = f"vector {i} has {len(array)} numbers, {dimension} were expected"
            raise ModelError(what, where=where, todo="one embedder has one dimension: check model and `dimensions`")
        values = array.astype(np.float64)
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            what = f"number {bad} of vector {i} is {values[bad]}"
            raise ModelError(what, where=where, todo="the model is broken, or its number format: try another one")
        largest = np.abs(values).max()
        if largest == 0.0:
            vectors.append(still(dimension))
            continue
        values = values / largest  # or the squares of very large numbers would be infinite
        vectors.append(tuple((values / np.linalg.norm(values)).astype(np.float32).tolist()))
    return vectors


def still(dimension: int) -> tuple[float, ...]:
    """The unit vector of a text that says nothing: the first axis."""
    return (1.0, *(0.0,) * (dimension - 1))


def _read(head: str, rest: str) -> dict[str, Any]:
    """What follows the slash, as options of the part."""
    if head == "hashing":
        if not re.fullmatch(r"[0-9]{1,6}", rest):
            what = f"not a dimension: {rest!r}"
            raise ConfigError(what, where="embedder hashing", todo="write hashing/384")
        return {"dimension": int(rest)}
    if head != "endpoint":
        return {"model": rest} if head == "sentences" else {"function": rest}
    # A model's name may hold an @ (`multimodalembedding@001`, `@cf/baai/bge-m3`); what follows an address has a scheme.
    if match := re.fullmatch(r"(.+?)@(\w+://.*)", rest):
        return {"model": match.group(1), "url": match.group(2)}
    model, at, address = rest.rpartition("@")
    if model and at and re.search(r"[:/]", address):
        what = f"the address of embedder 'endpoint/{model}' has no scheme"
        raise ConfigError(what, where="embedder", todo="write endpoint/MODEL@http://HOST:PORT/v1")
    return {"model": rest}


def _make_part(name: str, options: dict[str, Any]) -> Embedder:
    where = f"embedder {_shown(name)!r}"
    if ".py:" not in name and name not in part_names("memory"):
        raise UnknownName.of("embedder", _shown(name), _names(), where="embedder")
    part = load_part("memory", name, where=where)
    if not callable(getattr(part, "embed", None)):
        known = [n for n in _names() if n != name]
        raise UnknownName.of("embedder", name, known, where=f"{part.__name__} has no method embed(texts)")
    made: Embedder = make_part("memory", name, where=where, **options)
    if not isinstance(getattr(made, "name", None), str):
        raise ConfigError(f"{part.__name__} has no name", where=where, todo="give it `name` and `dimension`")
    return made


def _names() -> list[str]:
    return sorted({*_KINDS, *(e.name for e in entry_points(group="verbal.memory"))})


def _shown(spec: str) -> str:
    """The spec without an address, which may hold what no error shows."""
    return spec.partition("://")[0].rpartition("@")[0] if "://" in spec else spec


def _write() -> str:
    return f"write one of: {', '.join(FORMS)}"


__all__ = ["FORMS", "make_embedder", "still", "unit_vectors"]
