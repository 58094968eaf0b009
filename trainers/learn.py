"""One run of a group method: weights, rollouts, TRL's trainer, in order. Imports torch and trl."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import datasets
import torch
from transformers.trainer_callback import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig

from verbal.contracts import Example
from verbal.recipe import Recipe

from .best import Best
from .checkpoint import digest
from .fit import Progress, fingerprint, lora_config, quiet, saved_state, threads_of
from .group import GroupTrainer
from .guards import memory_guard
from .huggingface import adapter_of, merged
from .opening import unlimited
from .prefix import sharing
from .rollouts import Rollouts
from .slots import optimizer_of
from .weights import Weights, open_weights

if TYPE_CHECKING:
    from .grpo import GRPO

__all__ = ["config_of", "learn", "order_of"]


def learn(
    method: GRPO, examples: Sequence[Example], recipe: Recipe, model: str, folder: Path, *, seed: int,
    on_progress: Progress | None = None, resume: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Trains the weights and saves them; gives steps, seconds, rows, generated, reward_first, reward_last and curve.

    Raises:
        TrainError: see `GRPO.train`.
    """
    state = folder / "resume"
    tasks = [str(getattr(e, "task", "")) for e in examples]
    run = fingerprint(method.name, asdict(method), model, unlimited(recipe), digest(examples), seed)
    start = saved_state(state, run, resume)
    if not resume:  # one that goes on before its first state finds what was paid for
        for kept in ("rollouts.db", "rollouts.json"):
            (folder / kept).unlink(missing_ok=True)
    gpu = method.device == "auto" and torch.cuda.is_available()
    half = gpu and torch.cuda.is_bf16_supported() if method.precision == "auto" else method.precision == "bfloat16"
    adapter = adapter_of(method, model)
    settings = {k: getattr(method, k) for k in ("micro_batch", "max_tokens", "quantization", "gradient_checkpointing")}
    with contextlib.ExitStack() as stack:
        for around in (quiet(), threads_of(method.threads), memory_guard({**settings, "lora_rank": adapter.rank})):
            stack.enter_context(around)
        torch.manual_seed(seed)
        dtype = torch.bfloat16 if half and adapter.rank else None
        weights = open_weights(model, dtype=dtype, quantization=adapter.quantization)
        rollouts = stack.enter_context(
            Rollouts(
                recipe, tasks, weights, folder, seed=seed, temperature=method.temperature,
                max_tokens=method.max_tokens, memory=method.memory,
            )
        )  # fmt: skip
        tasks = rollouts.run(method.choose(rollouts, tasks))
        config = config_of(method, weights, state, len(tasks), seed=seed, half=half, lora=adapter.rank > 0)
        trainer = GroupTrainer(
            method, rollouts, config, order_of(tasks, method, seed), on_progress=on_progress, examples=examples,
            optimizer=optimizer_of(weights.network, config.learning_rate) if weights.kind == "embedded" else None,
            lora=lora_config(adapter.options()),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        best = Best(trainer, state) if method.validate else None
        if best is not None:
            trainer.add_callback(best)
        if weights.kind == "embedded" and not method.gradient_checkpointing:  # which reads without a cache
            stack.enter_context(sharing(weights.network))  # its prompts begin alike
        clock = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        seconds = time.perf_counter() - clock
        chosen = best.restore() if best is not None else {}
        if adapter.rank:
            weights.network = merged(trainer.model, folder, anew=model if adapter.quantization else None)
        weights.save(folder)
        return {**_figures(trainer, len(tasks)), **method.figures(trainer), **chosen, "seconds": round(seconds, 3)}


def _figures(trainer: GroupTrainer, rows: int) -> dict[str, Any]:
    curve = trainer.watch.curve
    few = max(1, len(curve) // 5)
    return {
        "steps": trainer.state.global_step,
        "rows": rows,
        "generated": trainer.rollouts.generated,
        "reward_first": sum(p["reward"] for p in curve[:few]) / few,
        "reward_last": sum(p["reward"] for p in curve[-few:]) / few,
        "curve": curve,
        **({"counts": dict(trainer.rollouts.counts)} if trainer.rollouts.counts else {}),
        "device": str(trainer.args.device),
    }


def order_of(tasks: Sequence[str], method: GRPO, seed: int) -> datasets.Dataset:
    """The tasks of every step, in order: in shuffled passes, and never twice in one step.

    Laid out before the training, because TRL's own sampler begins its shuffles anew when a training is resumed.
    """
    rng, size = Random(seed), min(method.tasks, len(tasks))
    found: list[str] = []
    while len(found) < size * method.steps:
        found += rng.sample(list(tasks), len(tasks) // size * size)
    return datasets.Dataset.from_list([{"prompt": task} for task in found[: size * method.steps]])


def config_of(
    method: GRPO, weights: Weights, state: Path, rows: int, *, seed: int, half: bool, lora: bool = False
) -> GRPOConfig:
    """TRL's configuration of a method.

    With `passes` 1 all rows of a generation make one optimiser step, so that nothing is off-policy (the ratio is 1).
    """
    tasks = min(method.tasks, rows)
    size = method.slots * tasks
    micro = method.micro_batch or size
    micro = micro if size % micro == 0 else method.slots
    small = weights.kind == "embedded"
    rate = 3e-4 if small else 1e-5 if lora else 1e-6
    return GRPOConfig(
        output_dir=str(state),
        max_steps=method.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=size // micro,
        steps_per_generation=size // micro,
        num_iterations=method.passes,
        num_generations=method.slots,
        learning_rate=method.learning_rate or rate,
        lr_scheduler_type=method.schedule,
        lr_scheduler_kwargs=dict(method.schedule_options),
        weight_decay=method.weight_decay,
        max_grad_norm=method.max_grad_norm,
        temperature=method.temperature,
        max_completion_length=method.max_tokens,
        beta=method.beta,
        use_bias_correction_kl=method.kl_correction,
        epsilon=method.clip,
        epsilon_high=method.clip_high,
        entropy_coef=method.entropy,
        scale_rewards=method.scale,
        loss_type=method.loss,
        shuffle_dataset=False,
        seed=seed,
        use_cpu=method.device == "cpu" or small,
        bf16=half and not small,
        gradient_checkpointing=method.gradient_checkpointing,
        dataloader_pin_memory=False,
        save_strategy="steps",
        save_steps=-(-method.save_steps // method.passes) * method.passes,  # never between passes over one generation
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        push_to_hub=False,
    )
