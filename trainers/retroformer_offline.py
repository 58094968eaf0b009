"""Retroformer from stored reflections: nothing is attempted, each reflection is judged by the retry that read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError
from verbal.recipe import Recipe
from verbal.store import Store

from . import checkpoint
from .dpo import DPO
from .kto import KTO
from .pairwise import Pairwise
from .refusals import require_labels
from .retrospect import as_kto, as_preference
from .rows import Selection, build

__all__ = ["RetroformerOffline"]


@dataclass(frozen=True, kw_only=True)
class RetroformerOffline:
    """The reflector learns which of its stored reflections helped: by KTO from labels, or by DPO from pairs.

    Source: Retroformer (arXiv 2308.02151): r = G_{i+1} - G_i, a reflection is good when r is above 0.25 (released
    labels). Differs: KTO or DPO in place of a reward model with PPO, which needs rewards of reflections nobody tried.
    """

    name: ClassVar[str] = "retroformer_offline"
    role: ClassVar[str] = "reflector"
    """Who the trained weights are in a loop: `--set model.roles.reflector=checkpoint:NAME`."""

    through: Literal["kto", "dpo"] = "kto"
    """`dpo` needs several reflections on one attempt whose rewards differ."""
    threshold: float = 0.25
    """Of `kto`: a reflection is good when its reward is above this."""
    margin: float = 0.0
    """Of `dpo`: rewards of a pair differ by more than this."""
    successes: float = 0.1
    """Reflections on right attempts, for each one on a failed attempt."""
    critic: str | None = None
    """Whose value is the return; None: the verdict critic of the runs' recipes."""
    arms: tuple[str, ...] | None = None
    splits: tuple[str, ...] = ("train",)
    """Splits to learn from; never `test`."""
    corrections: Literal["user", "all"] = "user"
    """`all` also takes reflections whose prompt shows what a simulated person knew from the gold."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the method `kto` or `dpo` (`steps`, `beta`, `learning_rate`, `lora_rank`, ...)."""

    def __post_init__(self) -> None:
        if self.through not in ("kto", "dpo"):
            raise ConfigError(f"through is {self.through!r}", where="through", todo="give kto or dpo")
        if not (math.isfinite(self.threshold) and self.margin >= 0):
            what = f"threshold is {self.threshold}, margin {self.margin}"
            raise ConfigError(what, where="threshold, margin", todo="give numbers, the margin 0 or more")
        self._inner()

    def _inner(self) -> Pairwise:
        method: type[Pairwise] = KTO if self.through == "kto" else DPO
        try:
            return method(**self.options)
        except TypeError as error:
            raise ConfigError(f"options of {self.through}: {error}", where="options") from error

    def examples(self, store: Store, *, run: str | None = None) -> list[Example]:
        """Labelled reflections, or pairs of them on one attempt.

        Raises:
            TrainError: nobody reflected, no retry read a reflection, all labels are equal, or there is no pair.
        """
        selection = Selection(
            run=run, arms=self.arms, critic=self.critic, splits=self.splits, corrections=self.corrections,
            successes=self.successes,
        )  # fmt: skip
        rows = build(store, "retrospective", selection).rows
        if all(row.columns["reward"] is None for row in rows):
            what = f"no retry read one of the {len(rows)} reflections, so that none has a reward"
            raise TrainError(what, where=self.name, todo="collect with 2 rounds or more: --set loop.rounds=3")
        if self.through == "kto":
            found: list[Example] = [*as_kto(rows, self.threshold)]
            require_labels(found, self.name)
            return found
        found = [*as_preference(rows, self.margin)]
        if not found:
            raise TrainError(
                f"no two of the {len(rows)} reflections stand on one attempt with rewards that differ by more than "
                f"{self.margin:g}",
                where=self.name, todo="train through kto, or collect reflections of several models on the same tasks",
            )  # fmt: skip
        return found

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
        """Trains the reflector `model` on the rows into the folder `out`; gives its papers. See `Pairwise.train`."""
        inner = self._inner()
        inner.train(examples, model, out, seed=seed, recipe=recipe, on_progress=on_progress, resume=resume)
        own = {
            "method": self.name,
            "role": self.role,
            "through": self.through,
            "options": {**asdict(self), "options": asdict(inner)},
        }
        return checkpoint.amend(out, own)
