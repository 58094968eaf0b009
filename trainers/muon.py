"""Muon on matrices and AdamW on the rest, as the one optimiser that a trainer and its learning-rate schedule expect."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["MuonAdamW"]


class MuonAdamW(torch.optim.Optimizer):  # type: ignore[misc]
    """Muon (torch's own) on the matrices inside the layers, AdamW on embeddings, norms and biases.

    Source: K. Jordan et al., Muon (2024); update scaled to AdamW's as in J. Liu et al. 2025, arXiv 2502.16982, eq. 4.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, torch.nn.Parameter]],
        lr: float,
        embedding_lr: float,
        row_rates_V: torch.Tensor | None = None,
    ) -> None:
        """Takes the parameters by name; those of embeddings and of the head go to AdamW whatever their shape.

        Args:
            named: As `model.named_parameters()` gives them.
            lr: Peak rate of Muon.
            embedding_lr: Peak rate of AdamW.
            row_rates_V: Factor of `embedding_lr` for each token's embedding; None: 1 for all.
        """
        self._embedding: torch.nn.Parameter | None = None
        self._row_rates_V1 = None if row_rates_V is None else row_rates_V[:, None]
        matrices: list[torch.nn.Parameter] = []
        rest: list[torch.nn.Parameter] = []
        for name, parameter in named:
            inner = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (matrices if inner else rest).append(parameter)
            if name.endswith("embed_tokens.weight"):
                self._embedding = parameter
        muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(rest, lr=embedding_lr, betas=(0.9, 0.98), weight_decay=0.0)
        self._parts = (muon, adamw)
        super().__init__([{"params": matrices, "lr": lr}, {"params": rest, "lr": embedding_lr}], {})

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update of both, at the rates that the schedule set."""
        table_VD = self._embedding
        before_VD = None if table_VD is None or self._row_rates_V1 is None else table_VD.detach().clone()
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups[0]["lr"] = group["lr"]
            part.step()
        if table_VD is not None and before_VD is not None:
            with torch.no_grad():
                table_VD.sub_(before_VD).mul_(self._row_rates_V1).add_(before_VD)
        return closure() if closure is not None else None

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""
        rates = [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups]
        return {"parts": [part.state_dict() for part in self._parts], "rates": rates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        for group, rates in zip(self.param_groups, state_dict["rates"], strict=True):
            group.update(rates)
