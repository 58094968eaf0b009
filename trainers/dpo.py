"""DPO: of two answers to one prompt the right one becomes likelier than the wrong one, compared with before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from verbal.errors import ConfigError

from .pairwise import Pairwise

__all__ = ["DPO"]

Loss = Literal["sigmoid", "ipo", "hinge", "robust", "apo_zero", "apo_down", "sigmoid_norm"]
"""TRL's names of the losses that a pair alone decides."""


@dataclass(frozen=True, kw_only=True)
class DPO(Pairwise):
    """Direct preference optimisation on a retry against what it retried, a correction against what it corrects, and any
    right answer to a task against any wrong one, through TRL's DPOTrainer.

    Source: DPO (arXiv 2305.18290, eq. 7); with `likelihood` as in Iterative RPO (arXiv 2404.19733, eq. 2), without
    which the right answer itself often becomes less likely, only more slowly than the wrong one.
    """

    name: ClassVar[str] = "dpo"

    loss: Loss = "sigmoid"
    """`ipo` does not grow certain of noisy pairs (beta is its tau), `robust` allows for `smoothing` wrong pairs."""
    smoothing: float = 0.0
    """Share of pairs that are thought to be the wrong way round (`robust`)."""
    likelihood: float = 0.0
    """Weight of the negative log-likelihood of the right answer, per token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.smoothing < 0.5:
            raise ConfigError(f"smoothing is {self.smoothing}", where="smoothing", todo="give 0 up to 0.5")
        if self.likelihood < 0:
            raise ConfigError(f"likelihood is {self.likelihood}", where="likelihood", todo="give 0 or more")

    def trainer(self, settings: Mapping[str, Any], counts: Mapping[str, int], pad: int) -> dict[str, Any]:
        """TRL's DPOTrainer with these options; see `Pairwise.trainer`."""
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

        both = self.likelihood > 0
        args = DPOConfig(
            **settings,
            beta=self.beta,
            loss_type=[self.loss, "sft"] if both else [self.loss],
            loss_weights=[1.0, self.likelihood] if both else None,
            label_smoothing=self.smoothing,
        )
        return {"base": DPOTrainer, "args": args, "collator": DataCollatorForPreference(pad_token_id=pad)}
