"""The records: what flows through the house, what the store keeps, what a trainer reads.

Frozen, JSON both ways (`record.to_json()`, `Record.from_json(...)`), schema-versioned. An unknown key in a JSON record
is kept out silently only when the record was written by a newer schema; otherwise it is an error. No I/O here.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Self, TypeVar

from verbal.errors import DataError

SCHEMA_VERSION = 1
"""Version of the JSON form of every record below."""

# Names of fixed sets of words that the records use.
Split = Literal["train", "dev", "test"]
Author = Literal["policy", "guide", "hint", "tool", "environment", "user"]
Status = Literal["quarantined", "active", "retired"]
Source = Literal["rule", "judge", "embedding", "learned", "self", "gold", "user"]
_R = TypeVar("_R", bound="_Record")


class StopReason(enum.StrEnum):
    """Why an attempt ended."""

    ANSWERED = "answered"
    """The environment said it was done."""
    STEP_LIMIT = "step_limit"
    """The attempt reached its limit of turns."""
    LENGTH = "length"
    """The model's reply was cut at its token limit."""
    MALFORMED = "malformed"
    """No answer could be read from the reply."""
    ERROR = "error"
    """A model call or the environment failed; `Attempt.error` says how."""
    TIMEOUT = "timeout"
    """The attempt took longer than it may."""
    BUDGET = "budget"
    """A limit on money, tokens or calls ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
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

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**_fields(self), **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall(_Record):
    """A tool the model asked for."""

    id: str
    name: str
    arguments: str = "{}"
    """JSON text exactly as the model wrote it (it may be malformed: that is data)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(_Record):
    """One chat message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(_Record):
    """What model calls used. Adds up with `+`."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    """US dollars; None when the price is not known (never guessed)."""
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return Usage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=cost,
            seconds=self.seconds + other.seconds,
        )

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(_Record):
    """One thing to solve."""

    id: str
    """Stable across runs."""
    kind: str
    """Name of the app or environment that understands it, such as `text2sql`."""
    messages: tuple[Message, ...]
    """What the policy is asked."""
    gold: str | None = None
    """The reference answer. Never shown to a policy."""
    info: dict[str, Any] = field(default_factory=dict)
    split: Split = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(_Record):
    """One turn of an attempt. `author` decides what may be trained on."""

    author: Author
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    observation: str | None = None
    prompt: tuple[Message, ...] = ()
    """The messages the model saw, for a step whose author is a model."""
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    """Behaviour log-probabilities of `token_ids`; None when the backend gave none, never invented."""
    shown: tuple[str, ...] = ()
    """Ids of the reflections in the prompt."""
    offered: dict[str, float] = field(default_factory=dict)
    """Reflections that were retrieved -> the chance each had of being shown; those not in `shown` were withheld."""
    cited: tuple[str, ...] = ()
    """Ids of the shown reflections that the reply names."""
    parent: int | None = None
    role: str = "solver"
    """Role of the model call: solver, critic, reflector, judge, proposer, curator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(_Record):
    """One try at one task. A failed attempt is data: `error` holds what went wrong."""

    id: str
    run: str
    task: str
    sample: int = 0
    """Index among the attempts of this task in this round."""
    round: int = 0
    """0 for the first attempt, n for the n-th retry."""
    arm: str = "main"
    """Which arm of a comparison it belongs to (base, retry, shuffled, memory, ...)."""
    answer: str = ""
    """What the environment took as the answer (for Text-to-SQL the query)."""
    steps: tuple[Step, ...] = ()
    parent: str | None = None
    branch_step: int | None = None
    model: str = ""
    prompts: dict[str, str] = field(default_factory=dict)
    """Prompt name -> hash of its template."""
    stop: StopReason = StopReason.ANSWERED
    usage: Usage = field(default_factory=Usage)
    error: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback(_Record):
    """What one critic says of one attempt: a number, words, or both.

    `value` is None when the critic could not score; `reason` then says why. It is never defaulted.
    """

    attempt: str
    critic: str
    value: float | None = None
    low: float = 0.0
    high: float = 1.0
    """Declared range of `value`."""
    text: str = ""
    correction: str = ""
    """The right answer, when the critic gave one (a user who corrects)."""
    scope: str = "attempt"
    """`attempt`, `step:3` or `span:10:24` (characters of the answer)."""
    parts: dict[str, float] = field(default_factory=dict)
    source: Source = "rule"
    oracle: bool = False
    """True when a gold answer was used: decides what may be claimed."""
    reason: str = ""
    """Why `value` is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(_Record):
    """Attempts on one task that are compared."""

    task: str
    attempts: tuple[str, ...]
    preferences: tuple[tuple[str, str], ...] = ()
    """Pairs (better attempt id, worse attempt id)."""
    chosen: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters(_Record):
    """How often a reflection was shown and what happened then."""

    shown: int = 0
    helped: int = 0
    harmed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflection(_Record):
    """One lesson in words. Ids are never reused."""

    id: str
    kind: Literal["reflection", "rule", "strategy", "case"] = "reflection"
    title: str = ""
    text: str
    when: str = ""
    """When to use it."""
    scope: Literal["task", "family", "global"] = "family"
    boundary: str = ""
    """Where it must NOT be applied."""
    polarity: Literal["do", "avoid"] = "do"
    task: str | None = None
    """Task it came from: retrieval leaves its own task out by default."""
    attempts: tuple[str, ...] = ()
    counters: Counters = field(default_factory=Counters)
    value: float | None = None
    status: Status = "active"
    version: int = 0
    """Version of the memory (position in the op log) that last changed it."""
    rival: str = ""
    """Id of the item it contradicts or would replace: the two are never shown together, and outcomes decide."""
    embedding: tuple[float, ...] = ()
    """The vector under which it is found; kept in the op log, so that an index can always be rebuilt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOp(_Record):
    """One small change to a memory. Applied by deterministic code, logged, reversible."""

    op: Literal["ADD", "UPDATE", "MERGE", "RETIRE", "TAG", "VALUE", "NOOP"]
    reflection: str = ""
    """Id of the reflection it concerns."""
    item: Reflection | None = None
    """The new item (ADD), or the new state of it (UPDATE, MERGE)."""
    others: tuple[str, ...] = ()
    """Ids merged into `reflection` (MERGE)."""
    tag: Literal["", "shown", "withheld", "helped", "harmed", "active", "quarantined"] = ""
    """What happened to it (TAG, VALUE), or its new standing (TAG)."""
    delta: float = 0.0
    """Change of the value estimate (VALUE)."""
    outcome: float | None = None
    """What the attempt scored for which it was shown or withheld (VALUE). Range: [0, 1]."""
    chance: float = 1.0
    """The chance it had of being shown there (VALUE). Range: (0, 1]; 1 where nobody drew lots."""
    attempt: str = ""
    """That attempt (VALUE): it counts once."""
    reason: str = ""
    author: str = ""
    """Who proposed it: `curator`, `user`, a method's name."""


@cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


def _fields(record: _Record) -> dict[str, Any]:
    kind: Any = type(record)
    return {name: getattr(record, name) for name in _names(kind)}


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool or value is None:
        return value
    if isinstance(value, _Record):
        return {name: _plain(v) for name, v in _fields(value).items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value.value if isinstance(value, enum.Enum) else value


def _written(value: Any) -> Any:
    """What the JSON encoder asks for when it meets a value that is not of JSON."""
    if isinstance(value, _Record):
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
    if isinstance(hint, type) and issubclass(hint, _Record):
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
