"""ReLIFT: what every attempt of a group failed is imitated from a demonstration, between the steps of GRPO."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError
from verbal.store import Store

from .grpo import GRPO
from .opening import load
from .retrospect import hard
from .rows import Row, Selection, build

if TYPE_CHECKING:
    from .group import GroupTrainer

__all__ = ["ReLIFT"]


@dataclass(frozen=True, kw_only=True)
class ReLIFT(GRPO):
    """GRPO; a question that its whole group failed waits in a buffer, and a full buffer makes one supervised step.

    Source: ReLIFT (arXiv 2506.07527). Differs: the oldest questions of the buffer are learned first (the published code
    learns the newest, so that others starve), one that was solved meanwhile leaves it, and the supervised loss is a
    mean over all tokens (there a mean of means). A demonstration is a right answer of the store without the words that
    led to it. The embedded model has the optimiser of its SFT as second one, not AdamW. Where demonstrations exist for
    most questions, `sft_then_rl` is the better choice (arXiv 2604.23747).
    """

    name: ClassVar[str] = "relift"
    tells: ClassVar[tuple[str, ...]] = ("hard", "buffered", "sft_loss")

    patience: int = 50
    """As of GRPO; larger, because what no attempt solves is what the supervised steps are for."""
    buffer: int = 128
    """M, questions of one supervised step; -1: none is made, and nothing differs from GRPO."""
    fail: float = 0.0
    """A question is hard when every reward of its group is from 0 to this; a penalty below 0 makes none."""
    sft_learning_rate: float | None = None
    """None: as `learning_rate` for a Hugging Face model, 1.2e-2 for the embedded one."""
    sft_entropy: float = 0.001
    """Bonus on the mean entropy of demonstrated tokens, nats."""
    sft_max_grad_norm: float = 1.0
    sft_micro_batch: int | None = None
    """Demonstrations in memory at once. None: all of a step."""
    critic: str | None = None
    """Whose value says that an answer is right; None: the verdict critic of the runs' recipes."""
    minimum: float = 1.0
    """Value from which an answer is a demonstration."""
    corrections: Literal["none", "user", "all"] = "user"
    """Answers that a person gave; only `all` takes those of a simulated person, who read the gold (`Row.oracle`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.buffer != -1 and self.buffer < 1:
            raise ConfigError(f"buffer is {self.buffer}", where="buffer", todo="give 1 or more, or -1 for none")

    def examples(self, store: Store, *, run: str | None = None) -> list[Example]:
        """The tasks that may be attempted, one row each; where there is a demonstration, in the column `demonstration`.

        It is a row of the format `demonstrations` (right after words, where the first tries had failed); for another
        task any right answer, because what was solved once, or with hints in sight, can still be hard for the weights.
        The row keeps the provenance of both: attempts, models, licences, and whether gold decided.

        Raises:
            TrainError: there is no task, or not one demonstration, and why.
        """
        tasks = super().examples(store, run=run)
        if self.buffer == -1:
            return tasks
        selection = Selection(
            run=run, splits=self.splits, critic=self.critic, minimum=self.minimum, corrections=self.corrections,
            per_task=1,
        )  # fmt: skip
        shown: dict[str, Row] = {}
        for format in ("sft", "demonstrations"):
            try:
                shown |= {row.task: row for row in build(store, format, selection).rows}
            except TrainError as error:
                if not shown and format == "demonstrations":
                    raise TrainError(f"no demonstration: {error.what}", where=error.where, todo=_TODO) from error
        return [_joined(row, shown[row.task]) if isinstance(row, Row) and row.task in shown else row for row in tasks]

    def check(self, examples: Sequence[Example]) -> None:
        """As `GRPO.check`, and some row has a demonstration.

        Raises:
            TrainError: none has.
        """
        super().check(examples)
        if self.buffer != -1 and not any(row.columns.get("demonstration") for row in examples):
            raise TrainError(f"none of {len(examples)} tasks has a demonstration", where=self.name, todo=_TODO)

    def is_hard(self, rewards: Sequence[float]) -> bool:
        """Whether a group's known rewards are all from 0 to `fail`."""
        return hard(rewards) and max(rewards) <= self.fail

    def callbacks(self, trainer: GroupTrainer) -> list[Any]:
        """The supervised steps."""
        return [] if self.buffer == -1 else [load("lift").Lift(self, trainer)]

    def figures(self, trainer: GroupTrainer) -> dict[str, Any]:
        """Which questions were hard at which steps, and what became of them."""
        return {} if self.buffer == -1 else dict(trainer.memory["lift"])


_TODO = "collect retries (`verbal learn`), train with sft_then_rl or grpo, or set corrections to all"


def _joined(task: Row, shown: Row) -> Row:
    columns = {**task.columns, "demonstration": shown.columns["completion"]}
    attempts = tuple(sorted({*task.attempts, *shown.attempts}))
    return dataclasses.replace(shown, columns=columns, attempts=attempts, runs=tuple(sorted({*task.runs, *shown.runs})))
