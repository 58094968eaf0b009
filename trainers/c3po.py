"""C3PO: a lesson is learned where it applies, and what the weights said elsewhere is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError

from .pairwise import Pairwise

__all__ = ["C3PO"]


@dataclass(frozen=True, kw_only=True)
class C3PO(Pairwise):
    """Contextualised critiques with constrained preference optimisation, on what `verbal memory scope --answers` kept.

    L = L_DPO(inside) + soft x L_SFT(outside) + hard x L_SFT(near); likelihoods per token, prompt and filling masked.
    Rows that are `held_out` are not trained on; the loss on them after training is among the figures.
    Source: RLVF / C3PO (arXiv 2402.10893, eq. 5). Differs: the preferred answer was given with the lesson in context
    instead of revised; the KL form of the two terms is left out (it hurts adherence, section 5.3).
    """

    name: ClassVar[str] = "c3po"
    format: ClassVar[str] = "scope"
    columns: ClassVar[tuple[str, ...]] = (
        "prompt", "chosen", "rejected", "near_prompt", "near_completion", "outside_prompt", "outside_completion",
    )  # fmt: skip
    rates: ClassVar[tuple[float, float, float]] = (1e-6, 5e-5, 6e-3)

    soft: float = 0.2
    """Weight of the answers outside the scope."""
    hard: float = 0.1
    """Weight of the answers near it."""
    lora_rank: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.soft < 0 or self.hard < 0:
            raise ConfigError(f"soft is {self.soft}, hard is {self.hard}", where="soft, hard", todo="give 0 or more")

    def require(self, rows: Sequence[Example]) -> None:
        """Refuses rows that teach nothing.

        Raises:
            TrainError: no rows, a column is missing, or all are held out.
        """
        super().require(rows)
        if all(row.columns.get("held_out") for row in rows):
            raise TrainError(
                f"all {len(rows)} triples are held out for evaluation",
                where="held_out", todo="try the lesson on more requests: verbal memory scope MEMORY ITEM --count 24",
            )  # fmt: skip

    def trainer(self, settings: Mapping[str, Any], counts: Mapping[str, int], pad: int) -> dict[str, Any]:
        """TRL's DPOTrainer with the two further terms; see `Pairwise.trainer`."""
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        from .scope_loss import ScopeCollator, ScopeTrainer

        args = DPOConfig(**settings, beta=self.beta)
        collator = ScopeCollator(DataCollatorForPreference(pad_token_id=pad), pad)
        return {"base": ScopeTrainer, "args": args, "collator": collator, "soft": self.soft, "hard": self.hard}
