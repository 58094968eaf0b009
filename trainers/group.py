"""TRL's GRPOTrainer with rollouts of our own loop: a method samples the rows, may give each token its own weight, and
may bring its own loss. Only the hooks that tests/trainers/test_trl_hooks.py holds still are touched.

`rollout_func` gives the rows; `_generate_and_score_completions` replaces the advantages, (B) or (B, T); `_compute_loss`
is replaced for methods with a loss of their own; `_save_checkpoint` and `_load_optimizer_and_scheduler` carry what a
method remembers.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.trainer_callback import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from verbal.contracts import Example
from verbal.errors import TrainError

from .fit import Progress
from .guards import Guarded
from .losses import aggregate
from .rollouts import Kind, Rollouts, Sampled
from .weights import Tokens

if TYPE_CHECKING:
    from .grpo import GRPO

__all__ = ["Batch", "GroupTrainer"]

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # it warns of rollout_func, which the contract tests hold still

_MEMORY = "method.pt"
_STEPS = 1_000_003


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one generation, in groups one after another."""

    scores: Tensor
    """(B), NaN where a row has none."""
    groups: Tensor
    """(B) number of each row's group."""
    mask: Tensor
    """(B, T), 1 on tokens that the policy wrote."""
    kinds: tuple[Kind, ...]
    pivots: Tensor
    """(B) first token that counts."""
    tasks: tuple[str, ...] = ()
    """Task of each row."""

    def of(self, *kinds: Kind) -> Tensor:
        """(B) which rows are of these kinds."""
        return torch.tensor([kind in kinds for kind in self.kinds], device=self.scores.device)


class GroupTrainer(Guarded, GRPOTrainer):  # type: ignore[misc]
    """Trains the weights of a `Rollouts` by a method of the GRPO family."""

    def __init__(
        self, method: GRPO, rollouts: Rollouts, config: GRPOConfig, rows: Any, *, on_progress: Progress | None,
        optimizer: Any = None, lora: Any = None, examples: Sequence[Example] = (),
    ) -> None:  # fmt: skip
        self.method, self.rollouts, self.examples = method, rollouts, examples
        self.batch: Batch | None = None
        """Rows of the last generation."""
        self.memory = rollouts.memory
        """What the method remembers from step to step; saved with every checkpoint."""
        super().__init__(
            model=rollouts.weights.network,
            reward_funcs=[_given],
            args=config,
            train_dataset=rows,
            processing_class=rollouts.weights.tokenizer,
            rollout_func=_roll_out,
            optimizers=(optimizer, None),
            peft_config=lora,
        )
        self.watch = Watch(self, on_progress)
        self.add_callback(self.watch)
        for callback in method.callbacks(self):
            self.add_callback(callback)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        found = super()._generate_and_score_completions(inputs)
        mask = found["completion_mask"] * found.get("tool_mask", 1)
        size, device = self.num_generations, mask.device
        batch = Batch(
            scores=torch.tensor([math.nan if row["reward"] is None else row["reward"] for row in inputs]).to(device),
            groups=torch.arange(len(inputs), device=device) // size,
            mask=mask,
            kinds=tuple(row["kind"] for row in inputs),
            pivots=torch.tensor([row["pivot"] for row in inputs], device=device),
            tasks=tuple(row["prompt"] for row in inputs),
        )
        self.batch = batch
        weights = self.method.credit(batch)
        if weights is not None:
            found["advantages"] = weights
        found["off_policy"] = batch.of("refined")
        self.watch.saw(batch)
        # What is drawn from here on (the order of the rows) is the same when the step is run again after a kill.
        torch.manual_seed(self.args.seed * _STEPS + self.state.global_step)
        return found  # type: ignore[no-any-return]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if not self.method.own_loss:
            return super()._compute_loss(model, inputs)
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        seen = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        logps, entropies, _ = self._get_per_token_logps_and_entropies(
            model, ids, seen, inputs["completion_ids"].size(1), compute_entropy=True
        )
        old = inputs.get("old_per_token_logps")
        weights = inputs["advantages"] if inputs["advantages"].dim() == 2 else inputs["advantages"][:, None]
        losses = self.method.token_losses(logps, logps.detach() if old is None else old, weights, inputs["off_policy"])
        entropy = (entropies * mask).sum() / mask.sum().clamp(min=1)
        loss = aggregate(losses, mask, "length", length=self.max_completion_length)
        loss = loss - self.method.entropy * entropy
        self._metrics["train"]["entropy"].append(entropy.item())
        return loss / self.current_gradient_accumulation_steps

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            kept = {"memory": self.memory, "counts": dict(self.rollouts.counts), **self.watch.state()}
            torch.save(kept, folder / _MEMORY)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            kept = torch.load(Path(checkpoint) / _MEMORY, weights_only=True)
            self.memory.update(kept["memory"])
            self.watch.load(kept)
            self.rollouts.counts.clear()  # what was counted before the first step is among them
            self.rollouts.counts.update(kept["counts"])
            self.rollouts.go_on(self.state.global_step, kept["generated"])

    def _send_telemetry(self) -> None:
        return None

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: our own papers say more."""


class Watch(TrainerCallback):  # type: ignore[misc]
    """Keeps the curve, tells progress, and stops what cannot learn or has used its tokens."""

    def __init__(self, trainer: GroupTrainer, on_progress: Progress | None) -> None:
        self.trainer, self.on_progress = trainer, on_progress
        self.curve: list[dict[str, float]] = []
        self._differed, self._flat, self._began, self._seen = False, 0, time.perf_counter(), 0
        self._rewards: list[float] = []

    def state(self) -> dict[str, Any]:
        """What a training that goes on must know."""
        seen = {"differed": self._differed, "flat": self._flat}
        return {"curve": self.curve, "generated": self.trainer.rollouts.generated, **seen}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.curve[:], self._seen = state["curve"], state["generated"]
        self._differed, self._flat = state["differed"], state["flat"]

    def saw(self, batch: Batch) -> None:
        """Notes the rewards of a generation.

        Raises:
            TrainError: in the first generations no group had two rewards that differ.
        """
        live = batch.scores[batch.of("initial", "solver", "reflection", "proposer", "judge")]
        self._rewards = [float(x) for x in live[~live.isnan()]]
        known = [batch.scores[(batch.groups == g) & ~batch.scores.isnan()] for g in batch.groups.unique()]
        spread = [len(set(scores.tolist())) > 1 for scores in known]
        self._differed, self._flat = self._differed or any(spread), self._flat + 1
        method = self.trainer.method
        if not self._differed and self._flat >= method.patience:
            told = f"{sum(self._rewards) / max(1, len(self._rewards)):g}"
            raise TrainError(
                f"rewards are equal within every group of the first {self._flat} generations (mean {told}): every "
                f"advantage of {method.name} is 0",
                where=f"group {method.group}, temperature {method.temperature:g}",
                todo="choose tasks that are solved sometimes, a higher temperature, larger groups, a graded critic, "
                "or start from demonstrations (recipe sft_then_rl)",
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """Adds a point to the curve."""
        if logs is None or "loss" not in logs:
            return
        now, made = time.perf_counter(), self.trainer.rollouts.generated
        point = {"step": float(state.global_step), "loss": float(logs["loss"])}
        point["reward"] = sum(self._rewards) / len(self._rewards) if self._rewards else math.nan
        point |= {k: float(logs[k]) for k in ("entropy", "kl", *self.trainer.method.tells) if k in logs}
        point["generated"] = float(made)
        point["tokens_per_second"] = (made - self._seen) / max(1e-9, now - self._began)
        self._began, self._seen = now, made
        self.curve.append(point)
        if self.on_progress is not None:
            told = {k: v for k, v in point.items() if k not in ("step", "generated")}
            self.on_progress(state.global_step, state.max_steps, told)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ends the training when its tokens are used."""
        most = self.trainer.method.max_generated
        if most is not None and self.trainer.rollouts.generated >= most:
            control.should_training_stop = True


def _given(reward: Sequence[float | None], **_: Any) -> list[float | None]:
    """The verdicts that came with the rows."""
    return list(reward)


def _roll_out(prompts: Sequence[str], trainer: GroupTrainer) -> dict[str, Any]:
    """One row for each entry of `prompts` (task ids, each `num_generations` times in a row)."""
    rollouts, size, step = trainer.rollouts, trainer.num_generations, trainer.state.global_step
    rollouts.weights.refresh()
    rollouts.notes.clear()
    tasks, began = list(prompts[::size]), rollouts.generated
    groups = rollouts.run(trainer.method.sample(rollouts, tasks, step))
    rollouts.finished(step, rollouts.generated - began)
    for figure, value in rollouts.notes.items():
        trainer._metrics["train"][figure].append(value)
    rows = _filled(groups, size, tasks)
    if empty := sum(not group for group in groups):
        rollouts.counts["groups without a row"] += empty
    return {
        "prompt_ids": [row.tokens.prompt for row in rows],
        "completion_ids": [row.tokens.completion for row in rows],
        "logprobs": [row.tokens.logprobs or [math.nan] * len(row.tokens.completion) for row in rows],
        "env_mask": [[m if i >= row.pivot else 0 for i, m in enumerate(row.tokens.mask)] for row in rows],
        "reward": [row.reward for row in rows],
        "kind": [row.kind for row in rows],
        "pivot": [row.pivot for row in rows],
    }


def _filled(groups: Sequence[Sequence[Sampled]], size: int, tasks: Sequence[str]) -> list[Sampled]:
    """The groups, each filled up where rows are missing with rows of one token that counts for nothing.

    A mean over tokens does not see them; a loss divided by a fixed length and the number of rows does, as if those rows
    had been there and taught nothing. A group that is empty (its prompt is too long, or its attempts failed) is filled
    with those of another task.

    Raises:
        TrainError: no group has a row, or one has too many.
    """
    first = next((group[0] for group in groups if group), None)
    if first is None or any(len(group) > size for group in groups):
        most = max(len(group) for group in groups)
        what = f"{most} rows for a group of {size}" if first else f"no attempt at {len(tasks)} tasks has a reply"
        todo = "see why the attempts failed: verbal traces --store OUT/rollouts.db"
        raise TrainError(what, where=f"tasks {', '.join(tasks[:3])} ...", todo=todo)
    rows: list[Sampled] = []
    for group in groups:
        like = (group[0] if group else first).tokens
        spare = Sampled(Tokens(like.prompt, like.completion[:1], [0], None), None, "filler")
        rows += [*group, *[spare] * (size - len(group))]
    return rows
