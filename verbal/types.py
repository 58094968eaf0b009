"""The records: what flows through the house, what the store keeps, what a trainer reads.

Frozen, JSON both ways (`record.to_json()`, `Record.from_json(...)`), schema-versioned. An unknown key in a JSON record
is kept out silently only when the record was written by a newer schema; otherwise it is an error. No I/O here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Literal

from verbal.records import Record

# Names of fixed sets of words that the records use.
Split = Literal["train", "dev", "test"]
Author = Literal["policy", "guide", "hint", "tool", "environment", "user"]
Status = Literal["quarantined", "active", "retired"]
Source = Literal["rule", "judge", "embedding", "learned", "self", "gold", "user"]


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
class ToolCall(Record):
    """A tool the model asked for."""

    id: str
    name: str
    arguments: str = "{}"
    """JSON text exactly as the model wrote it (it may be malformed: that is data)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Record):
    """One chat message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Record):
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
class Task(Record):
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
class Step(Record):
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
    """Role of the model call: solver, critic, reflector, judge, proposer, curator, user (a simulated one)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Record):
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

    @property
    def cited(self) -> tuple[str, ...]:
        """Ids of the reflections that its replies name."""
        return tuple(dict.fromkeys(i for step in self.steps for i in step.cited))


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback(Record):
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
class Group(Record):
    """Attempts on one task that are compared."""

    task: str
    attempts: tuple[str, ...]
    preferences: tuple[tuple[str, str], ...] = ()
    """Pairs (better attempt id, worse attempt id)."""
    chosen: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters(Record):
    """How often a reflection was shown and what happened then."""

    shown: int = 0
    helped: int = 0
    harmed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflection(Record):
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
    """Empty: vectors lie in the store beside the log (`Store.vectors`); only logs of earlier versions hold them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOp(Record):
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
