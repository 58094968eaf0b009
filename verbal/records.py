"""JSON both ways for frozen dataclasses: what every record of `verbal.types` can do. No I/O here."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Self

from verbal.errors import DataError

SCHEMA_VERSION = 1
"""Version of the JSON form of every record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """JSON both ways for every record."""

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types, with its schema version."""
        return {"v": SCHEMA_VERSION, **{name: _plain(value) for name, value in _fields(self).items()}}

    def to_json(self) -> str:
        """The record as one line of JSON (sorted keys, so that equal records give equal text)."""
        data = {"v": SCHEMA_VERSION, **_fields(self)}
        text = _LINE.encode(data)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:  # half a surrogate pair, which a model's cut reply may hold, has no UTF-8 form
                text = _ASCII_LINE.encode(data)
        return text

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The record that `to_dict` wrote.

        Raises:
            DataError: a field is missing, unknown (same schema version) or has the wrong type.
        """
        readers = _readers(typing.cast(Any, cls))
        unknown = data.keys() - readers.keys() - {"v"}
        if unknown and data.get("v", SCHEMA_VERSION) <= SCHEMA_VERSION:
            raise DataError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}", todo=f"fields: {', '.join(readers)}")
        try:
            return cls(**{k: readers[k](v) for k, v in data.items() if k in readers})
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"not a {cls.__name__}: {error}", where=str(data)[:200]) from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `to_json` wrote."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON: {error}", where=text[:120]) from error
        if not isinstance(data, dict):
            raise DataError(f"a {cls.__name__} is a JSON object, found {type(data).__name__}", where=text[:120])
        return cls.from_dict(data)

    def _repr_html_(self) -> str:
        """The record as a notebook shows it."""
        from verbal.notebook import record_card

        return record_card(self)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**_fields(self), **changes})


@cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


def _fields(record: Record) -> dict[str, Any]:
    kind: Any = type(record)
    return {name: getattr(record, name) for name in _names(kind)}


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool or value is None:
        return value
    if isinstance(value, Record):
        return {name: _plain(v) for name, v in _fields(value).items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value.value if isinstance(value, enum.Enum) else value


def _written(value: Any) -> Any:
    """What the JSON encoder asks for when it meets a value that is not of JSON."""
    if isinstance(value, Record):
        return _fields(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


# Kept, for a call of `json.dumps` with options makes an encoder each time.
_LINE = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=_written)
_ASCII_LINE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_written)


@cache
def _readers(cls: Any) -> dict[str, Callable[[Any], Any]]:
    """Field -> what makes its value of plain JSON types."""
    hints = typing.get_type_hints(cls)
    return {name: _reader(hints[name]) for name in _names(cls)}


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """What makes a value of that type of plain JSON types, or raises ValueError. Made once for each type: reading a
    type takes longer than reading a value.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        given = _reader(next(a for a in args if a is not type(None)))
        return lambda value: None if value is None else given(value)
    if origin is Literal:
        return lambda value: _one_of(args, value)
    if origin is tuple:
        return _tuple_reader(args)
    if isinstance(hint, type) and issubclass(hint, Record):
        return lambda value: value if isinstance(value, hint) else hint.from_dict(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint
    if hint in (str, int, float):
        return lambda value: value if type(value) is hint else _checked(hint, value)
    return lambda value: value


def _tuple_reader(args: tuple[Any, ...]) -> Callable[[Any], Any]:
    every, each = args[-1] is Ellipsis, [_reader(a) for a in args if a is not Ellipsis]

    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list, found {value!r}")
        if args[0] in (float, int) and all(type(v) is args[0] for v in value):
            return tuple(value)  # vectors and token ids are long
        return tuple((each[0] if every else each[i])(v) for i, v in enumerate(value))

    return read


def _one_of(words: tuple[Any, ...], value: Any) -> Any:
    if value not in words:
        raise ValueError(f"{value!r} is not one of {words}")
    return value


def _checked(kind: type[Any], value: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind):
        raise ValueError(f"expected {kind.__name__}, found {value!r}")
    return value
