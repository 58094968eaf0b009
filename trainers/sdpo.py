"""SDPO: the weights that read what was said of their failed answer teach the weights that did not.

Through a trainer of TRL that is experimental: see `self_distillation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from verbal.contracts import Example
from verbal.errors import ConfigError
from verbal.store import Store

from .rows import Selection, build
from .sdft import SDFT

__all__ = ["SDPO"]


@dataclass(frozen=True, kw_only=True)
class SDPO(SDFT):
    """Self-distillation policy optimisation on attempts of our own loop.

    An answer is distilled from the weights that read another, right answer of its group, what the loop's critics and
    reflector say of it where it failed, or both; one of which nothing can be read is left alone.
    Source: SDPO (arXiv 2601.20802); mode and alpha are TRL's defaults. Differs: words that give the answer away are not
    read.
    """

    name: ClassVar[str] = "sdpo"
    trainer: ClassVar[Literal["sdft", "sdpo"]] = "sdpo"
    columns: ClassVar[tuple[str, ...]] = ("prompt",)

    siblings: bool = True
    """Whether the teacher reads a right answer of the group, where there is one."""
    words: Literal["always", "without_sibling", "never"] = "always"
    """Whether it reads words about the failed answer."""
    policy: float = 0.0
    """Share of the group relative policy loss in the loss; the rest is self-distillation."""
    teacher: Literal["base", "ema", "live"] = "ema"
    mode: Literal["topk_logits", "full_logits", "sampled_token"] = "sampled_token"
    alpha: float = 1.0
    group: int = 8
    tasks: int = 4
    learning_rate: float | None = None
    """None: 1e-6, or 1e-5 with LoRA."""

    def __post_init__(self) -> None:
        SDFT.__post_init__(self)
        if self.group < 2:
            raise ConfigError("group is 1: a sibling is another answer of the group", where="group", todo="give 2")
        if not self.siblings and self.words == "never" and self.policy < 1:
            raise ConfigError("the teacher reads nothing", where="siblings, words", todo="give it one of them")
        if not 0 <= self.policy < 1:
            raise ConfigError(f"policy is {self.policy}", where="policy", todo="give 0 up to 1, or use grpo")

    def examples(self, store: Store, *, run: str | None = None) -> list[Example]:
        """The tasks that may be attempted, one row each.

        Raises:
            TrainError: there is none, and why.
        """
        return list(build(store, "prompt", Selection(run=run, splits=self.splits)).rows)
