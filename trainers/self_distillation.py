"""SDFT and SDPO through `trl.experimental.sdft` and `trl.experimental.sdpo`. EXPERIMENTAL: TRL may change or remove
both in any release without notice, as it removed nine such modules between 1.10 and 1.16.

What may vanish, and what is used of it: `SDFTTrainer` and `SDFTConfig` as they are; of `SDPOTrainer` two methods,
`sample_rollouts` and `_generate`, so that the attempts are those of our loop, and `_load_optimizer_and_scheduler` and
`_save_checkpoint`, because a teacher that moves is in no checkpoint of TRL's. Nothing else of verbal needs this file;
without it, critique_grpo has the same aim on a stable trainer. Imports torch and trl.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import datasets
import torch
from transformers.trainer_callback import PrinterCallback

from verbal.contracts import Example
from verbal.errors import TrainError
from verbal.recipe import Recipe, load_recipe

from .checkpoint import digest
from .fit import Progress, fingerprint, lora_config, quiet, saved_state, threads_of
from .guards import memory_guard
from .huggingface import adapter_of
from .opening import unlimited
from .pairs import Watch, point_of, prepared
from .rollouts import Made, Rollouts
from .weights import Weights, open_weights
from .words import answers_of, shows

if TYPE_CHECKING:
    from .sdft import SDFT

__all__ = ["distil"]

_TEMPLATES = {
    "words": "{prompt}\n\n{words}",
    "demonstrations": "{prompt}\n\nThis is an example of a good answer:\n\n{words}\n\nNow give an answer of your own.",
}
_TEACHER = "teacher.pt"


def distil(
    method: SDFT, examples: Sequence[Example], model: str, folder: Path, *, seed: int, recipe: Recipe | None = None,
    on_progress: Progress | None = None, resume: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Trains the weights and saves them; gives steps, rows, left_out, seconds, loss_first, loss_last and curve.

    Raises:
        TrainError: no row is short enough, the loss is not finite, or a moving LoRA teacher would be resumed.
    """
    method = replace(method, lora_rank=adapter_of(method, model).rank)
    state = folder / "resume"
    online = method.trainer == "sdpo"
    chosen = (recipe or load_recipe(method.name)) if online else None
    run = fingerprint(method.name, asdict(method), model, unlimited(chosen), digest(examples), seed)
    start = saved_state(state, run, resume)
    if start and method.lora_rank and method.teacher == "ema":
        what = "a LoRA teacher that moves is kept in no checkpoint, so this training cannot go on"
        raise TrainError(what, where=str(start), todo="start anew without resume; teacher=base can be resumed")
    gpu = method.device == "auto" and torch.cuda.is_available()
    half = gpu and torch.cuda.is_bf16_supported() if method.precision == "auto" else method.precision == "bfloat16"
    with contextlib.ExitStack() as stack:
        settings = {k: getattr(method, k) for k in ("micro_batch", "max_tokens", "lora_rank", "gradient_checkpointing")}
        for around in (quiet(), threads_of(method.threads), memory_guard(settings)):
            stack.enter_context(around)
        torch.manual_seed(seed)
        weights = open_weights(model, dtype=torch.bfloat16 if half and method.lora_rank else None)
        rows, left_out = _rows(method, weights, examples)
        rollouts = None
        if chosen is not None:
            if not resume:
                (folder / "rollouts.db").unlink(missing_ok=True)
            names = [row["task"] for row in rows]
            rollouts = stack.enter_context(
                Rollouts(
                    chosen, names, weights, folder, seed=seed, temperature=method.temperature,
                    max_tokens=method.max_tokens,
                )
            )  # fmt: skip
        trainer = _trainer(method, weights, rows, state, rollouts, seed=seed, half=half, on_progress=on_progress)
        clock = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        seconds = time.perf_counter() - clock
        if method.lora_rank:
            weights.network = trainer.model.merge_and_unload()
        weights.save(folder)
        curve = [{"step": float(e["step"]), **point_of(e)} for e in trainer.state.log_history if "loss" in e]
        tail = curve[-max(1, len(curve) // 10) :]
        return {
            "steps": trainer.state.global_step,
            "rows": len(rows),
            "left_out": left_out,
            **({"generated": rollouts.generated} if rollouts else {}),
            "loss_first": curve[0]["loss"],
            "loss_last": sum(point["loss"] for point in tail) / len(tail),
            "curve": curve,
            "experimental": f"trl.experimental.{method.trainer}",
            "device": str(trainer.args.device),
            "seconds": round(seconds, 3),
        }


def _rows(method: SDFT, weights: Weights, examples: Sequence[Example]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows as TRL reads them, and why others are not among them."""
    kept: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    template = method.template or _TEMPLATES[method.source]
    longest = min(method.max_length, weights.context) - method.max_tokens
    for example in examples:
        prompt = [dict(m) for m in example.columns["prompt"]]
        row: dict[str, Any] = {"prompt": prompt, "task": str(getattr(example, "task", ""))}
        if method.trainer == "sdft":
            row["privileged_context"] = method.words_of(example)
            text = template.replace("{words}", row["privileged_context"]).replace("{prompt}", prompt[-1]["content"])
            prompt = [*prompt[:-1], {"role": "user", "content": text}]
        if row["prompt"][-1]["role"] != "user":
            reasons["the prompt does not end with the user's turn"] += 1
        elif len(weights.prompt_ids(prompt)) > longest:
            reasons[f"a prompt of more than {longest} tokens"] += 1
        else:
            kept.append(row)
    if not kept:
        told = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common())
        todo = "raise max_length, lower max_tokens, or take a model that reads more"
        raise TrainError(f"none of {len(examples)} rows is left for {method.name}: {told}", where="rows", todo=todo)
    return kept, dict(sorted(reasons.items()))


def _trainer(
    method: SDFT, weights: Weights, rows: Sequence[dict[str, Any]], state: Path, rollouts: Rollouts | None, *,
    seed: int, half: bool, on_progress: Progress | None,
) -> Any:  # fmt: skip
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # it warns of what this file's docstring says
    module = importlib.import_module(f"trl.experimental.{method.trainer}")
    tasks = min(method.tasks, len(rows))
    settings = _settings(method, weights, state, tasks, seed=seed, half=half)
    if rollouts is None:
        template = (method.template or _TEMPLATES[method.source]).replace("{words}", "{privileged_context}")
        base, args = module.SDFTTrainer, module.SDFTConfig(**settings, teacher_prompt_template=template)
        more: dict[str, Any] = {}
    else:
        base, args = _online(module.SDPOTrainer, rollouts), _sdpo_config(module, method, settings)
        more = {"reward_funcs": [_given]}
    lora = {"r": method.lora_rank, "lora_alpha": 2 * (method.lora_rank or 0)}
    trainer = _resumable(prepared(base))(
        model=weights.network,
        args=args,
        train_dataset=datasets.Dataset.from_list(list(rows)).select(_order(len(rows), tasks, method.steps, seed)),
        processing_class=weights.tokenizer,
        callbacks=[Watch(on_progress)],
        peft_config=lora_config(lora) if method.lora_rank else None,
        **more,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _settings(method: SDFT, weights: Weights, state: Path, tasks: int, *, seed: int, half: bool) -> dict[str, Any]:
    """Arguments of both configurations. All rows of a generation make one optimiser step."""
    size = method.group * tasks
    micro = method.micro_batch if method.micro_batch and size % method.micro_batch == 0 else size
    rate = (1e-4 if method.lora_rank else 1e-5) if method.trainer == "sdft" else (1e-5 if method.lora_rank else 1e-6)
    return {
        "output_dir": str(state),
        "max_steps": method.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": size // micro,
        "num_generations": method.group,
        "learning_rate": method.learning_rate or rate,
        "lr_scheduler_type": method.schedule,
        "warmup_steps": method.warmup,
        "max_grad_norm": method.max_grad_norm,
        "temperature": method.temperature,
        "max_prompt_length": None,
        "max_completion_length": method.max_tokens,
        "teacher_model_kind": method.teacher,
        "teacher_update_rate": method.teacher_rate,
        "distillation_mode": method.mode,
        "distillation_alpha": method.alpha,
        "distillation_topk": min(method.topk, weights.network.config.vocab_size) if "topk" in method.mode else None,
        "shuffle_dataset": False,
        "seed": seed,
        "use_cpu": method.device == "cpu",
        "bf16": half,
        "gradient_checkpointing": method.gradient_checkpointing,
        "dataloader_pin_memory": False,
        "save_strategy": "steps",
        "save_steps": method.save_steps,
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
    }


def _order(rows: int, tasks: int, steps: int, seed: int) -> list[int]:
    """The rows of every step: each once before any comes again, and never twice in one step."""
    rng = Random(seed)
    found: list[int] = []
    while len(found) < tasks * steps:
        found += rng.sample(range(rows), rows // tasks * tasks)
    return found[: tasks * steps]


def _sdpo_config(module: Any, method: Any, settings: dict[str, Any]) -> Any:
    return module.SDPOConfig(
        **settings,
        distillation_weight=1 - method.policy,
        use_successful_as_teacher=method.siblings,
        include_environment_feedback=method.words != "never",
        environment_feedback_only_without_solution=method.words == "without_sibling",
        success_reward_threshold=method.minimum,
        max_reprompt_len=method.max_length,
        scale_rewards="none",
        diagnostics_warning_interval=0,
        remove_unused_columns=False,
    )


def _given(value: Sequence[float | None], **_: Any) -> list[float | None]:
    """The verdicts that came with the attempts."""
    return list(value)


def _online(base: type[Any], rollouts: Rollouts) -> type[Any]:
    """SDPOTrainer whose answers are attempts of our loop, judged and criticised there."""

    class Online(base):  # type: ignore[misc]
        def sample_rollouts(self, inputs: list[dict[str, Any]]) -> Any:
            size = self.num_generations
            tasks = [row["task"] for row in inputs[::size]]
            rollouts.weights.refresh()
            made = rollouts.run(_attempts(rollouts, tasks, size, self.state.global_step, self.args))
            for row, (one, words) in zip(inputs, made, strict=True):
                row["value"], row["privileged_context"] = one.value, words
            self._made = [one for one, _ in made]
            return super().sample_rollouts(inputs)

        def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
            found = [_answer(rollouts, one) for one in self._made]
            return [prompt for prompt, _ in found], [answer for _, answer in found]

    return Online


def _answer(rollouts: Rollouts, made: Made) -> tuple[list[int], list[int]]:
    tokens = rollouts.weights.tokens(made.attempt)
    if tokens is None or not tokens.completion:
        why = made.attempt.error or "no token was recorded"
        raise TrainError(f"attempt {made.attempt.id} gave no answer: {why}", where="rollouts.db")
    if 0 in tokens.mask:
        what = "an attempt of several turns: SDPO compares one answer under two prompts"
        raise TrainError(what, where=f"attempt {made.attempt.id}", todo="use r3l or grpo for episodes of several turns")
    return tokens.prompt, tokens.completion


async def _attempts(
    rollouts: Rollouts, tasks: Sequence[str], size: int, step: int, args: Any
) -> list[tuple[Made, str]]:
    """Every attempt of the groups, and what is said of it: nothing of a right one."""
    groups = await rollouts.groups(step, tasks, size)
    context, found = rollouts.context(step), []
    for task, group in zip(tasks, groups, strict=True):
        if len(group) != size:
            raise TrainError(f"{len(group)} attempts for a group of {size}", where=f"task {task}")
        for one in group:
            words = ""
            if args.include_environment_feedback and (one.value is None or one.value < args.success_reward_threshold):
                said = await rollouts.words(context, one.attempt)
                words = "\n".join(r.text for r in said)
                feedback = context.store.feedback([one.attempt.id])[one.attempt.id]
                words = "" if shows(words, answers_of(rollouts.tasks[task], feedback)) else words
            found.append((one, words))
    return found


def _resumable(base: type[Any]) -> type[Any]:
    """Keeps a teacher that moves beside the checkpoint, where TRL keeps the student only."""

    class Resumable(base):  # type: ignore[misc]
        def _moves(self) -> bool:
            return self.args.teacher_model_kind == "ema" and self.teacher_model is not self.model

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super()._save_checkpoint(model, trial)
            if self._moves() and self.args.should_save:
                folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                torch.save(self.accelerator.unwrap_model(self.teacher_model).state_dict(), folder / _TEACHER)

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint is not None:
                # The trainer counts micro-steps from 0 again; a new generation is due at every optimiser step.
                self._step = self.state.global_step * self.args.gradient_accumulation_steps
            if checkpoint is not None and self._moves():
                kept = torch.load(Path(checkpoint) / _TEACHER, weights_only=True)
                self.accelerator.unwrap_model(self.teacher_model).load_state_dict(kept)

    return Resumable
