"""R3L: each attempt is looked back at in words and tried again from the turn where it went wrong; the retry is trained
as if nobody had advised it, on its own turns only, with success weighted up.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from verbal.errors import ConfigError

from .grpo import GRPO

if TYPE_CHECKING:
    from torch import Tensor

    from verbal.loop.branches import Place

    from .group import Batch, GroupTrainer
    from .pivots import Explored
    from .rollouts import Rollouts, Sampled

__all__ = ["R3L"]


@dataclass(frozen=True, kw_only=True)
class R3L(GRPO):
    """Reflect, then retry.

    Source: R3L (arXiv 2601.03715): half of a group are base attempts, the rest their retries; pivotal credit (turns
    that a retry shares with its base count in neither), positive amplification, no importance ratio, no KL.
    Loss: -A log pi as a mean over the tokens of a step, divided by 1 + tau.
    Differs: see `pivots`. Reflections and advised retries to imitate (weight 1, compared with nothing) take the places
    that missing retries left open in any group of the step, then `extra` more places of each task; the rest is left
    out and counted.
    """

    name: ClassVar[str] = "r3l"

    alpha: float = 3.0
    """Of rows above the mean of their group."""
    max_reward: float | None = 1.0
    """Weight of a perfect row whatever the mean: 1 in the released code, `alpha` in the authors' correction; None: no
    such rule."""
    tau: float = 1.0
    trigger: Literal["verdict", "reward"] = "verdict"
    """What decides on a retry: the model's own verdict on its attempt (as published), or its score (nobody looks back
    at a perfect attempt, which saves tokens)."""
    supervised: bool = True
    """Whether reflections that helped, and retries with advice in sight, are imitated."""
    extra: int | None = None
    """Places of each task for rows to imitate, beyond the group. None: half a group."""
    reflection_tokens: int = 1024
    """Of one reflection."""
    place: Place = "system"
    """Where advice stands in a retry's prompt: see `verbal.loop.branches.Place`."""
    loss: Literal["dr_grpo", "grpo", "dapo", "bnpo"] = "dapo"
    """A mean over tokens: `dapo` of the whole step, `bnpo` of each micro-batch; the same where these are one."""

    def __post_init__(self) -> None:
        GRPO.__post_init__(self)
        if self.group % 2:
            what = f"group is {self.group}, an odd number"
            raise ConfigError(what, where="group", todo="half of it are base attempts: give an even one")
        if self.alpha < 0 or self.tau <= -1:
            raise ConfigError(f"alpha is {self.alpha}, tau is {self.tau}", todo="give alpha from 0 and tau above -1")

    @property
    def slots(self) -> int:
        """The group, and places for rows to imitate."""
        more = self.group // 2 if self.extra is None else self.extra
        return self.group + (more if self.supervised else 0)

    async def sample(self, rollouts: Rollouts, tasks: Sequence[str], step: int) -> list[list[Sampled]]:
        """Base attempts, retries without their advice, and rows to imitate."""
        from verbal.loop.episodes import side_by_side

        from .pivots import explore

        groups = await rollouts.groups(step, tasks, self.group // 2)
        context = rollouts.context(step)
        found: list[list[Explored | None]] = [[None] * len(group) for group in groups]

        async def one(g: int, i: int) -> None:
            found[g][i] = await explore(
                rollouts, context, groups[g][i], verdict=self.trigger == "verdict", tokens=self.reflection_tokens,
                place=self.place,
            )  # fmt: skip

        await side_by_side([one(g, i) for g, group in enumerate(groups) for i in range(len(group))])
        known = [[e for e in group if e is not None] for group in found]
        rows = [[r for r in (*(e.base for e in g), *(e.retry for e in g)) if r is not None] for g in known]
        spare = iter([row for g in known for e in g for row in e.supervised] if self.supervised else [])
        for group in rows:
            group.extend(itertools.islice(spare, self.slots - len(group)) if group else ())
        rollouts.counts["rows to imitate without a place"] += sum(1 for _ in spare)
        return rows

    def credit(self, batch: Batch) -> Tensor:
        """Distances from the group's mean, amplified; 1 for rows to imitate."""
        from .credit import amplified

        scores = batch.scores.masked_fill(~batch.of("initial", "retry"), float("nan"))
        weights = amplified(scores, batch.groups, alpha=self.alpha, reward=self.max_reward)
        return weights.masked_fill(batch.of("supervised"), 1.0) / (1 + self.tau)

    def figures(self, trainer: GroupTrainer) -> dict[str, Any]:
        """What was reflected on, retried and left out."""
        return {"counts": dict(sorted(trainer.rollouts.counts.items()))}
