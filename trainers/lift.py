"""The supervised steps of ReLIFT: hard questions wait in a buffer; when it is full, their demonstrations are imitated
with an optimiser of its own. Imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import Tensor
from transformers.trainer_callback import TrainerCallback

from verbal.errors import TrainError

from .losses import nll
from .slots import optimizer_of

if TYPE_CHECKING:
    from .group import Batch, GroupTrainer
    from .relift import ReLIFT

__all__ = ["Lift", "Shown", "padded", "supervised"]


_RATE = 1.2e-2
"""Of the embedded model's supervised steps."""


class Shown(NamedTuple):
    """A demonstration in tokens."""

    prompt: list[int]
    completion: list[int]
    """The token that ends it included."""


class Lift(TrainerCallback):  # type: ignore[misc]
    """Collects hard questions and makes a supervised step after a step of GRPO when `buffer` of them are there.

    What it remembers is in `trainer.memory`: `lift`, and the state of the second optimiser. Every
    process makes the same supervised step, so the weights stay the same on all of them without a word between them.
    """

    def __init__(self, method: ReLIFT, trainer: GroupTrainer) -> None:
        if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
            what = "a second optimiser over the same weights cannot be had under DeepSpeed or FSDP"
            raise TrainError(what, where="relift", todo="use one GPU or plain data parallelism (LoRA), or sft_then_rl")
        self.method, self.trainer = method, trainer
        self.shown, left_out = demonstrations(method, trainer)
        self._batch: Batch | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        trainer.memory["lift"] = {
            "buffer": [], "hard_questions": [], "supervised_steps": 0, "supervised_rows": 0, "solved_meanwhile": 0,
            "without_demonstration": 0, "demonstrations": len(self.shown), "demonstrations_left_out": dict(left_out),
        }  # fmt: skip

    @property
    def memory(self) -> dict[str, Any]:
        """What is kept with checkpoints, in plain types."""
        found: dict[str, Any] = self.trainer.memory["lift"]
        return found

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The second optimiser, with its moments."""
        if self._optimizer is None:
            rate, network = self.method.sft_learning_rate, self.trainer.accelerator.unwrap_model(self.trainer.model)
            if self.trainer.rollouts.weights.kind == "embedded":
                self._optimizer = optimizer_of(network, rate or _RATE)
            else:
                weights = [p for p in network.parameters() if p.requires_grad]
                rate = rate or self.trainer.args.learning_rate
                self._optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=self.method.weight_decay)
            if "optimizer" in self.trainer.memory:
                self._optimizer.load_state_dict(self.trainer.memory["optimizer"])
        return self._optimizer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Buffers the hard questions of the last generation, once, and learns when there are enough."""
        batch = self.trainer.batch
        hard = 0
        if batch is not None and batch is not self._batch:
            self._batch = batch
            hard = self.note(batch, state.global_step)
        told = self.trainer._metrics["train"]
        told["hard"].append(float(hard))
        if len(self.memory["buffer"]) >= self.method.buffer:
            told["sft_loss"].append(self.learn())
        told["buffered"].append(float(len(self.memory["buffer"])))

    def note(self, batch: Batch, step: int) -> int:
        """Looks at each group of a generation; gives how many questions were hard in all processes."""
        found = []
        for group in batch.groups.unique():
            rows = (batch.groups == group).nonzero().flatten().tolist()
            rewards = [r for i in rows if (r := float(batch.scores[i])) == r]
            if rewards:
                found.append((batch.tasks[rows[0]], self.method.is_hard(rewards)))
        memory, found = self.memory, gather_object(found)
        for task, hard in found:
            waits = task in memory["buffer"]
            if hard:
                memory["hard_questions"].append([task, step])
                if task not in self.shown:
                    memory["without_demonstration"] += 1
                elif not waits:
                    memory["buffer"].append(task)
            elif waits:
                memory["buffer"].remove(task)
                memory["solved_meanwhile"] += 1
        return sum(hard for _, hard in found)

    def learn(self) -> float:
        """One supervised step on the oldest `buffer` questions, which then leave; gives the loss per target token."""
        size, memory = self.method.buffer, self.memory
        rows = [self.shown[task] for task in memory["buffer"][:size]]
        del memory["buffer"][:size]
        network = self.trainer.accelerator.unwrap_model(self.trainer.model)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients(network, rows)
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, self.method.sft_max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.trainer.memory["optimizer"] = self.optimizer.state_dict()
        memory["supervised_steps"] += 1
        memory["supervised_rows"] += len(rows)
        return loss

    def _gradients(self, network: Any, rows: Sequence[Shown]) -> float:
        device, micro = self.trainer.accelerator.device, self.method.sft_micro_batch or len(rows)
        pad = self.trainer.rollouts.weights.tokenizer.pad_token_id
        total, told = sum(len(row.completion) for row in rows), 0.0
        for at in range(0, len(rows), micro):
            ids, seen, mask = (x.to(device) for x in padded(rows[at : at + micro], pad))
            with self.trainer.compute_loss_context_manager():
                logits = network(input_ids=ids, attention_mask=seen).logits
            loss, plain = supervised(logits, ids, mask, total, self.method.sft_entropy)
            if not torch.isfinite(loss):
                what = f"the supervised loss became {loss.item()}"
                raise TrainError(what, where="relift", todo="lower sft_learning_rate; the last saved state is kept")
            loss.backward()
            told += plain
        return told


def demonstrations(method: ReLIFT, trainer: GroupTrainer) -> tuple[dict[str, Shown], Counter[str]]:
    """The demonstrations by task, and how many were left out and why. None is cut: that would teach an abrupt end.

    Raises:
        TrainError: none can be learned from.
    """
    weights, left_out = trainer.rollouts.weights, Counter[str]()
    found: dict[str, Shown] = {}
    for row in trainer.examples:
        said = row.columns.get("demonstration")
        if not said:
            continue
        try:
            prompt = weights.prompt_ids(row.columns["prompt"])
            completion = weights.answer_ids(row.columns["prompt"], said[-1]["content"])
        except TrainError:
            left_out["these weights cannot say it"] += 1
            continue
        if len(completion) > method.max_tokens or len(prompt) + len(completion) > weights.context:
            left_out["too long"] += 1
        else:
            found[str(getattr(row, "task", ""))] = Shown(prompt, completion)
    if not found:
        told = ", ".join(f"{reason}: {n}" for reason, n in left_out.items())
        raise TrainError(f"no demonstration can be learned from ({told})", where="relift", todo="raise max_tokens")
    return found, left_out


def padded(rows: Sequence[Shown], pad: int, slots: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (B, T), attention (B, T) and target mask (B, T) of demonstrations after their prompts, padded on the right.

    The mask is 1 on the tokens of the completion, up to and including the one that ends it.

    Args:
        rows: Demonstrations.
        pad: Token of the padding.
        slots: T; that of the longest row when not given.
    """
    length = slots or max(len(row.prompt) + len(row.completion) for row in rows)
    ids, seen, mask = (torch.full((len(rows), length), fill) for fill in (pad, 0, 0))
    for i, row in enumerate(rows):
        start, end = len(row.prompt), len(row.prompt) + len(row.completion)
        ids[i, :end] = torch.tensor([*row.prompt, *row.completion])
        seen[i, :end] = 1
        mask[i, start:end] = 1
    return ids, seen, mask


def supervised(logits: Tensor, ids: Tensor, mask: Tensor, total: int, entropy: float) -> tuple[Tensor, float]:
    """Cross-entropy minus `entropy` x entropy, summed over the targets of these rows and divided by those of all.

    Micro-batches add up to the mean over all target tokens (a mean of their means would weigh short rows more).

    Args:
        logits: (B, T, V).
        ids: (B, T).
        mask: (B, T), 1 on targets.
        total: Target tokens of the whole step.
        entropy: Coefficient of the bonus.
    """
    where = mask[:, 1:].bool()
    logps_NV = logits[:, :-1][where].float().log_softmax(-1)
    taken_N = logps_NV.gather(1, ids[:, 1:][where][:, None])[:, 0]
    share = len(taken_N) / total
    plain = nll(taken_N, torch.ones_like(taken_N)) * share
    spread = -(logps_NV.exp() * logps_NV).sum(-1).mean() * share
    return plain - entropy * spread, float(plain.detach())
