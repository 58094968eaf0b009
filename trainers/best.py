"""Keeps the weights that did best on dev tasks while they trained. Imports torch and transformers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.trainer_callback import TrainerCallback

if TYPE_CHECKING:
    from .group import GroupTrainer

__all__ = ["Best"]


class Best(TrainerCallback):  # type: ignore[misc]
    """Attempts dev tasks every `save_steps` steps and after the last; the first of equals is the best.

    Source: PaVeRL-SQL (arXiv 2509.07159), whose second stage starts from the best checkpoint of the first.

    Args:
        trainer: What trains; its `memory` has the steps and values so far.
        folder: Where the best weights lie until the training is over.
    """

    def __init__(self, trainer: GroupTrainer, folder: Path) -> None:
        self.trainer, self._file = trainer, folder / "best.pt"
        trainer.memory["validated"] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validates, and keeps what is better than all before."""
        over = control.should_training_stop or state.global_step >= state.max_steps
        if state.global_step % self.trainer.method.save_steps and not over:
            return
        rollouts, known = self.trainer.rollouts, self.trainer.memory["validated"]
        rollouts.weights.refresh()
        value = rollouts.run(rollouts.validate(state.global_step, self.trainer.method.selects))
        if all(value > before for _, before in known) and self.trainer.is_world_process_zero():
            part = self._file.with_name("best.pt.part")
            torch.save({name: p.detach().cpu() for name, p in self._trained()}, part)
            os.replace(part, self._file)
        known.append([state.global_step, value])

    def restore(self) -> dict[str, Any]:
        """Puts the best weights back into the network; gives the figures: best_step, best_value, validated."""
        known = self.trainer.memory["validated"]
        if not known:
            return {}
        step, value = max(known, key=lambda point: (point[1], -point[0]))
        kept = torch.load(self._file, weights_only=True)
        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(kept[name])
        return {"best_step": step, "best_value": value, "validated": known}

    def _trained(self) -> list[tuple[str, Any]]:
        network = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return [(name, p) for name, p in network.named_parameters() if p.requires_grad]
