"""Which weights of a model are trained: all, or low-rank adapters (LoRA) over weights that stay, in 16 or 4 bit.

No torch here: the estimate and the recipes ask before anything heavy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from verbal.errors import ConfigError

__all__ = ["LARGE", "Adapter", "Quantization", "adapter_for"]

LARGE = 1_000_000_000
"""Parameters above which a model gets adapters unless it is told otherwise."""
RANK = 16
"""Of the adapters when none is given."""

Quantization = Literal["nf4"]
"""How the weights that stay are kept: NormalFloat of 4 bits with double quantization (QLoRA, arXiv 2305.14314)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """How the weights of one model are trained."""

    rank: int
    """Of LoRA on all linear layers but the head; 0: all weights are trained."""
    quantization: Quantization | None = None

    def options(self) -> dict[str, Any] | None:
        """Options of `peft.LoraConfig`; None where all weights are trained."""
        return {"r": self.rank, "lora_alpha": 2 * self.rank} if self.rank else None


def adapter_for(parameters: int, *, lora_rank: int | None = None, quantization: Quantization | None = None) -> Adapter:
    """The adapter of a model: what was asked for, else LoRA of rank 16 above a billion parameters and none below.

    Source: LoRA (arXiv 2106.09685) on all linear layers, which QLoRA (arXiv 2305.14314, section 4) found necessary to
    match full fine-tuning; scaling alpha = 2 x rank.

    Args:
        parameters: Of the whole model.
        lora_rank: 0: all weights are trained; None: 16 above a billion parameters, or with `quantization`.
        quantization: `nf4`: the weights that stay are kept in 4 bits.

    Raises:
        ConfigError: a negative rank, or 4-bit weights that were to be trained themselves.
    """
    if lora_rank is not None and lora_rank < 0:
        raise ConfigError(f"lora_rank is {lora_rank}", where="lora_rank", todo="give 0 (all weights) or a rank")
    if quantization not in (None, "nf4"):
        raise ConfigError(f"quantization is {quantization!r}", where="quantization", todo="give nf4, or leave it out")
    if quantization and lora_rank == 0:
        todo = "leave lora_rank out (16), or give a rank"
        raise ConfigError(
            "weights of 4 bits cannot be trained, only adapters over them", where="lora_rank=0", todo=todo
        )
    if lora_rank is None:
        lora_rank = RANK if quantization or parameters > LARGE else 0
    return Adapter(rank=lora_rank, quantization=quantization)
