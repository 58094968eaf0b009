"""The contracts: what each kind of part promises. One Protocol each; a part is any class that fits.

A part's constructor takes its configuration as keyword arguments (a recipe table); a part that opens something has
`close()` or `aclose()`, and whoever made it closes it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from verbal.types import (
    Attempt,
    Feedback,
    Group,
    MemoryOp,
    Message,
    Reflection,
    Status,
    Step,
    StopReason,
    Task,
    ToolCall,
    Usage,
)

if TYPE_CHECKING:
    from verbal.recipe import Recipe
    from verbal.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a model samples. None leaves the provider's default."""

    temperature: float | None = 0.0
    top_p: float | None = None
    max_tokens: int = 1024
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tool definitions in OpenAI's function form."""
    logprobs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One sampled answer of a model."""

    text: str
    finish: Literal["stop", "length", "tool_calls", "content_filter", "error"] = "stop"
    usage: Usage = field(default_factory=Usage)
    """Of this reply; a call's prompt tokens are counted on its first reply only."""
    model: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None


@runtime_checkable
class Model(Protocol):
    """A language model. Retries, limits, budget and cache live around this call (`verbal/models/`), not inside."""

    name: str
    """`provider/model`."""

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies to one conversation, in order.

        Raises:
            TransientError: worth trying again. RefusedError, ContextLengthError, ModelError: not.
        """
        ...

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """Pieces of one reply as they come; joined they are the reply's text."""
        ...

    async def check(self) -> str:
        """One line that says the model can be used (found by `verbal doctor` and before the first task).

        Raises:
            ConfigError, ModelError: key missing, model unknown or server unreachable, with what to do.
        """
        ...

    async def aclose(self) -> None:
        """Closes connections."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an environment answers to a reply."""

    text: str
    done: bool
    answer: str = ""
    """The answer as understood (the SQL of the reply)."""
    stop: StopReason = StopReason.ANSWERED
    info: dict[str, Any] = field(default_factory=dict)
    """What critics may read: result rows, columns, error class, seconds."""
    steps: tuple[Step, ...] = ()
    """What others did meanwhile, such as a simulated user (author `user`): kept in the attempt after the reply."""


@runtime_checkable
class Environment(Protocol):
    """One task's world. Single use: `start` once, then `step` until done. It owns and closes its resources.

    One that asks a model itself (a simulated user) has an attribute `user`: the loop sets it to the role `user`.
    """

    async def start(self, task: Task, *, hints: Sequence[Reflection] = (), tried: Sequence[str] = ()) -> list[Message]:
        """The messages that open the task, with retrieved reflections and earlier failed answers as delimited data."""
        ...

    async def step(self, reply: Reply) -> Observation:
        """What happens when the policy answers `reply`. A bad reply is an observation, never an exception."""
        ...

    async def aclose(self) -> None:
        """Frees what `start` opened."""
        ...


class Match(NamedTuple):
    """Whether one answer gave what the gold answer gives, on every state of a task's world."""

    right: bool | None
    """None when that cannot be said; `text` then has the reason."""
    text: str
    """The first difference in words, without a gold cell."""
    states: int = 1
    """States compared until the verdict."""
    failed: str = ""
    """Name of the state that told them apart."""
    parts: Mapping[str, float] = {}
    """`columns` and `rows` in [0, 1] on the state that decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticContext:
    """What a critic may use besides the attempts."""

    observations: Mapping[str, Observation] = field(default_factory=dict)
    """The last observation of each attempt, by attempt id."""
    execute: Callable[[Task, str], Awaitable[Observation]] | None = None
    """Runs any answer (such as the gold one) in a fresh environment of the task: `App.execute`."""
    model: Model | None = None
    """For judges."""
    match: Callable[[Task, Sequence[str]], Awaitable[list[Match]]] | None = None
    """Compares answers with the gold one where they run, on every state of the task's world: `App.match`."""
    seed: int | None = None


@runtime_checkable
class Critic(Protocol):
    """Numbers and words about attempts. Never raises on a bad attempt: value None and a reason."""

    name: str
    oracle: ClassVar[bool]
    """True when it reads `task.gold`."""

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt, in order; others on its steps or spans (`scope`) may follow it."""
        ...


@runtime_checkable
class Memory(Protocol):
    """Where reflections live. Truth is the op log in the store; an index is derived from it."""

    async def search(
        self,
        query: str,
        k: int,
        *,
        exclude_tasks: Sequence[str] = (),
        status: Status = "active",
        task: str | None = None,
    ) -> list[Reflection]:
        """At most `k` reflections of a standing, best first, ties by id; none whose task is in `exclude_tasks`.

        `task` is the one at hand: items of scope `task` are found for their own only.
        """
        ...

    async def apply(self, ops: Sequence[MemoryOp]) -> int:
        """Logs and applies the operations in order; gives the new version. An invalid op is logged as NOOP."""
        ...

    def history(self) -> list[MemoryOp]:
        """Every operation so far, oldest first."""
        ...

    def at(self, version: int) -> dict[str, Reflection]:
        """The memory as it was at `version` (0 is empty), by id."""
        ...

    def preview(self, ops: Sequence[MemoryOp] = ()) -> MemoryState:
        """The memory as it would be after some operations, none of which is logged."""
        ...

    def close(self) -> None:
        """Releases the index."""
        ...


class Trial(NamedTuple):
    """What happened once when a reflection was offered to an attempt."""

    shown: bool
    """Whether it was shown; it was withheld by lot otherwise."""
    chance: float
    """The chance it had of being shown. Range: (0, 1]; 1 is no experiment."""
    outcome: float
    """What the attempt scored. Range: [0, 1]."""
    version: int = 0
    """Of the memory, when it was counted."""


class MemoryState(Protocol):
    """A memory at one version, as credit sees it."""

    version: int
    items: dict[str, Reflection]
    """By id, retired ones included, in order of their ADD."""
    trials: dict[str, list[Trial]]
    """What happened when an item was offered, since its words last changed."""
    since: dict[str, int]
    """Version at which an item's words or standing last changed."""


@runtime_checkable
class Credit(Protocol):
    """Turns outcomes into memory operations: what each was worth, and who is believed."""

    def observe(
        self, attempt: str, offered: Mapping[str, float], shown: Collection[str], outcome: float, state: MemoryState
    ) -> list[MemoryOp]:
        """One VALUE for each offered item that is not retired."""
        ...

    def settle(self, state: MemoryState) -> list[MemoryOp]:
        """TAG `active` or `quarantined`, and RETIRE, for the items whose evidence or budget calls for it."""
        ...


@runtime_checkable
class Index(Protocol):
    """Vectors to ids, derived from the op log; may be deleted and rebuilt at any time."""

    def put(self, ids: Sequence[str], vectors: Sequence[Sequence[float]]) -> None:
        """Adds or replaces vectors."""
        ...

    def drop(self, ids: Sequence[str]) -> None:
        """Forgets ids (unknown ones are ignored)."""
        ...

    def nearest(self, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        """At most `k` (id, cosine similarity), best first, ties by id."""
        ...

    def close(self) -> None:
        """Releases files and locks."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Texts to unit vectors. Its name and dimension are stored with the memory.

    One that is paid for has a `price` too: US dollars per million tokens.
    """

    name: str
    dimension: int

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One unit vector per text."""
        ...


@runtime_checkable
class Curator(Protocol):
    """Turns new lessons into small memory operations. It proposes; code applies."""

    async def propose(self, lessons: Sequence[Reflection], existing: Sequence[Reflection]) -> list[MemoryOp]:
        """ADD, UPDATE, RETIRE or NOOP for each lesson, given the items already known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row of a training set, in TRL's conversational types."""

    columns: Mapping[str, Any]
    """`messages`, or `prompt` + `completion`, or `prompt` + `chosen` + `rejected`."""
    attempts: tuple[str, ...]
    """Where it came from."""


@runtime_checkable
class Method(Protocol):
    """A training method: what it needs from attempts and how it trains."""

    name: str

    def examples(self, store: Store, *, run: str | None = None) -> list[Example]:
        """The rows it trains on.

        Raises:
            TrainError: the traces cannot feed this method (no pairs, all rewards equal), before torch is loaded.
        """
        ...

    def train(
        self,
        examples: Sequence[Example],
        model: str,
        out: str,
        *,
        seed: int = 0,
        recipe: Recipe | None = None,
        on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
        resume: bool = False,
    ) -> dict[str, Any]:
        """Trains from the model `model` into the folder `out`; gives the papers of the weights with the run's figures.

        Args:
            examples: What `examples` gave.
            model: As `--model` takes it.
            out: Folder of the weights.
            seed: Of every draw.
            recipe: App, critics and loop, for a method that makes attempts of its own.
            on_progress: Called after each step with (done, total, figures by name, `loss` among them).
            resume: Go on with a training of the same rows and options that did not finish.
        """
        ...


@runtime_checkable
class App(Protocol):
    """What people run: tasks and their environment."""

    name: str

    def tasks(self, split: str | None = None) -> list[Task]:
        """All tasks, or those of one split."""
        ...

    def environment(self) -> Environment:
        """A fresh environment, for one task."""
        ...

    async def execute(self, task: Task, answer: str) -> Observation:
        """What `answer` does in the task's world; an answer that fails is an observation, not an exception."""
        ...

    async def aclose(self) -> None:
        """Stops workers and closes connections."""
        ...


__all__ = [
    "App", "Credit", "Critic", "CriticContext", "Curator", "Embedder", "Environment", "Example", "Group", "Index",
    "Match", "Memory", "MemoryState", "Method", "Model", "Observation", "Reply", "Sampling", "Trial",
]  # fmt: skip
