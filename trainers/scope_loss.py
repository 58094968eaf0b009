"""The loss of C3PO over TRL's DPOTrainer, whose `_compute_loss` alone it replaces. Imports torch and trl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.utils import pad

from .losses import c3po, nll

__all__ = ["ScopeCollator", "ScopeTrainer"]

_TERMS = ("near", "outside")


class ScopeCollator:
    """TRL's batch of pairs, and for `near` and `outside` each NAME_input_ids, NAME_attention_mask, NAME_labels (B, T).

    Args:
        inner: Makes the batch of pairs.
        pad: Token id that fills; its labels are -100, as are those of prompts.
    """

    def __init__(self, inner: DataCollatorForPreference, pad: int) -> None:
        self.inner, self.pad = inner, pad

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of these rows."""
        batch: dict[str, Tensor] = dict(self.inner(list(rows)))
        for name in _TERMS:
            prompts, answers = [row[f"{name}_prompt_ids"] for row in rows], [row[f"{name}_ids"] for row in rows]
            ids = [torch.tensor([*p, *a]) for p, a in zip(prompts, answers, strict=True)]
            labels = [torch.tensor([*[-100] * len(p), *a]) for p, a in zip(prompts, answers, strict=True)]
            batch[f"{name}_input_ids"] = pad(ids, padding_value=self.pad)
            batch[f"{name}_attention_mask"] = pad([torch.ones_like(i) for i in ids], padding_value=0)
            batch[f"{name}_labels"] = pad(labels, padding_value=-100)
        return batch


class ScopeTrainer(DPOTrainer):  # type: ignore[misc]
    """DPO inside the scope, and the likelihood per token of old answers near and outside it.

    Args:
        soft: Weight of the answers outside.
        hard: Weight of the answers near.
    """

    def __init__(self, *args: Any, soft: float, hard: float, **kwargs: Any) -> None:
        self.soft, self.hard = soft, hard
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False) -> Any:
        # What is not taken out here would reach the model's forward.
        rows = {name: [inputs.pop(f"{name}_{part}") for part in ("input_ids", "attention_mask", "labels")]
                for name in _TERMS}  # fmt: skip
        found = super()._compute_loss(model, inputs, return_outputs)
        inside = found[0] if return_outputs else found
        terms = {name: self._likelihood(model, *parts) for name, parts in rows.items()}
        mode = "train" if self.model.training else "eval"
        for name, term in terms.items():
            self._metrics[mode][name].append(self.accelerator.gather(term.detach()).mean().item())
        loss = c3po(inside, terms["outside"], terms["near"], soft=self.soft, hard=self.hard)
        return (loss, found[1]) if return_outputs else loss

    def _likelihood(self, model: Any, ids: Tensor, attention: Tensor, labels: Tensor) -> Tensor:
        made = model(input_ids=ids, attention_mask=attention, labels=labels, fused_lm_head=True, use_cache=False)
        wanted = labels[:, 1:]
        return nll(made.log_probs[:, -wanted.shape[1] :], (wanted != -100).to(made.log_probs.dtype))
