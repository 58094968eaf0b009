"""One run of DPO, KTO or C3PO through TRL, on rows that are already tokens. Imports torch and trl.

The weights themselves put the rows into tokens (`Weights.prompt_ids`, `answer_ids`), slots or chat template, so TRL is
given ids and prepares nothing. The order of all batches is laid out before the first, so a run that was cut off goes on
where it stood.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import datasets
import torch
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from verbal.contracts import Example
from verbal.errors import TrainError

from .fit import Progress, fingerprint, lora_config, quiet, saved_state, threads_of
from .guards import Guarded, memory_guard
from .huggingface import adapter_of, merged
from .prefix import sharing
from .slots import optimizer_of
from .weights import Weights, open_weights

if TYPE_CHECKING:
    from .pairwise import Pairwise

__all__ = ["Tokenised", "Watch", "order_of", "prepared", "tokenised", "train_pairs"]

_PARTS = (
    ("", "prompt", ("chosen", "rejected", "completion")),
    ("near_", "near_prompt", ("near_completion",)),
    ("outside_", "outside_prompt", ("outside_completion",)),
)
"""Prefix, column of the prompt, columns of answers to it."""
_FIGURES = {
    "loss": "loss", "rewards/margins": "reward_margin", "rewards/accuracies": "accuracy", "entropy": "entropy",
    "kl": "kl", "near": "near", "outside": "outside", "grad_norm": "grad_norm",
}  # fmt: skip
"""TRL's name of a figure -> ours."""


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Rows in token ids, and why others are not among them."""

    rows: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    """Those that are not trained on."""
    left_out: dict[str, int]
    """Reason -> rows."""
    tokens: int
    """Of `rows`, prompts counted once for each answer."""


def train_pairs(
    method: Pairwise, examples: Sequence[Example], model: str, folder: Path, *, seed: int,
    on_progress: Progress | None = None, resume: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Trains the weights and saves them; gives steps, rows, left_out, tokens, seconds, the first and last figures and
    `curve`.

    Raises:
        TrainError: these weights can say none of the rows, or the loss is not finite.
    """
    gpu = method.device == "auto" and torch.cuda.is_available()
    half = gpu and torch.cuda.is_bf16_supported() if method.precision == "auto" else method.precision == "bfloat16"
    adapter = adapter_of(method, model)
    method = replace(method, lora_rank=adapter.rank)
    settings = ("micro_batch", "max_length", "lora_rank", "quantization", "gradient_checkpointing")
    with quiet(), threads_of(method.threads), memory_guard({k: getattr(method, k) for k in settings}):
        torch.manual_seed(seed)
        dtype = torch.bfloat16 if half and adapter.rank else None
        weights = open_weights(model, dtype=dtype, quantization=adapter.quantization)
        made = tokenised(weights, examples, method)
        steps = _steps(method, weights, len(made.rows))
        state = folder / "resume"
        start = saved_state(state, fingerprint(method.name, asdict(method), model, seed, made.rows), resume)
        trainer = _trainer(method, weights, made, steps, state, seed=seed, half=half, on_progress=on_progress)
        clock = time.perf_counter()
        with contextlib.ExitStack() as stack:
            together = weights.kind == "embedded" and not method.gradient_checkpointing  # which reads without a cache
            for network in [weights.network, trainer.ref_model] if together else []:
                if network is not None:
                    stack.enter_context(sharing(network))
            trainer.train(resume_from_checkpoint=str(start) if start else None)
            held_out = _held_out(trainer, made)
        seconds = time.perf_counter() - clock
        if method.lora_rank:
            weights.network = merged(trainer.model, folder, anew=model if adapter.quantization else None)
        elif method.blend < 1:
            with torch.no_grad():
                for after, before in zip(weights.network.parameters(), trainer.ref_model.parameters(), strict=True):
                    after.lerp_(before, 1 - method.blend)
        weights.save(folder)
        return {
            "steps": trainer.state.global_step,
            "rows": len(made.rows),
            "left_out": made.left_out,
            "tokens": round(made.tokens * steps * method.batch / len(made.rows)),
            **_ends(trainer.state.log_history),
            **held_out,
            "device": str(trainer.args.device),
            "seconds": round(seconds, 3),
        }


def _held_out(trainer: Any, made: Tokenised) -> dict[str, Any]:
    """The figures on rows that were not trained on."""
    if not made.held_out:
        return {}
    found = trainer.evaluate()
    told = {"held_out_loss": found["eval_loss"], "held_out_accuracy": found["eval_rewards/accuracies"]}
    return {"held_out": len(made.held_out), **told}


def tokenised(weights: Weights, examples: Sequence[Example], method: Pairwise) -> Tokenised:
    """The rows as these weights say them; those they cannot say, that are too long, or whose answers are the same to
    them are left out and counted.

    Raises:
        TrainError: none is left, or none of one label; it lists the reasons.
    """
    longest = min(method.max_length, weights.context)
    kept: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for example in examples:
        try:
            row = _row(weights, example.columns)
        except TrainError as error:
            reasons[error.what.splitlines()[0][:80]] += 1
            continue
        lengths = [len(row[f"{p}prompt_ids"]) + len(row[k]) for p, _, answers in _PARTS for k in _ids(p, answers, row)]
        if max(lengths) > longest:
            reasons[f"longer than {longest} tokens"] += 1
        elif "chosen_ids" in row and row["chosen_ids"] == row["rejected_ids"]:
            reasons["both answers are the same to these weights"] += 1
        else:
            (held if example.columns.get("held_out") else kept).append(row)
    told = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(5))
    if not kept:
        raise TrainError(
            f"none of {len(examples)} rows is left for {method.name}: {told}",
            where="rows", todo="raise max_length, collect other answers, or train a model that can say them",
        )  # fmt: skip
    if "label" in kept[0] and len({row["label"] for row in kept}) < 2:
        which = "right" if kept[0]["label"] else "wrong"
        raise TrainError(
            f"all {len(kept)} rows that these weights can say are {which}: {told}",
            where="label", todo="collect more answers, or train with sft",
        )  # fmt: skip
    tokens = sum(
        len(row[f"{p}prompt_ids"]) + len(row[k]) for row in kept for p, _, a in _PARTS for k in _ids(p, a, row)
    )
    return Tokenised(kept, held, dict(sorted(reasons.items())), tokens)


def _ids(prefix: str, answers: Sequence[str], row: Mapping[str, Any]) -> list[str]:
    names = [f"{prefix}ids" if prefix else f"{a}_ids" for a in answers]
    return [n for n in names if n in row]


def _row(weights: Weights, columns: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for prefix, prompt, answers in _PARTS:
        for answer in answers:
            if answer in columns:
                row[f"{prefix}prompt_ids"] = weights.prompt_ids(columns[prompt])
                name = f"{prefix}ids" if prefix else f"{answer}_ids"
                row[name] = weights.answer_ids(columns[prompt], columns[answer][-1]["content"])
    if "label" in columns:
        row["label"] = bool(columns["label"])
    return row


def order_of(rows: int, count: int, seed: int) -> list[int]:
    """`count` numbers of rows: pass after pass over all of them, each in an order of its own.

    >>> sorted(order_of(3, 6, 0)[:3]), len(order_of(3, 7, 0))
    ([0, 1, 2], 7)
    """
    rng = Random(seed)
    found: list[int] = []
    while len(found) < count:
        found += rng.sample(range(rows), rows)
    return found[:count]


def _steps(method: Pairwise, weights: Weights, rows: int) -> int:
    if method.steps is not None:
        return method.steps
    if method.epochs is None and weights.kind == "embedded":
        return method.small_steps
    return max(1, math.ceil((method.epochs or 1.0) * rows / method.batch))


def _trainer(
    method: Pairwise, weights: Weights, made: Tokenised, steps: int, state: Path, *, seed: int, half: bool,
    on_progress: Progress | None,
) -> Any:  # fmt: skip
    settings = _settings(method, weights, steps, state, seed=seed, half=half)
    right = sum(bool(row.get("label")) for row in made.rows)
    parts = method.trainer(
        settings, {"right": right, "wrong": len(made.rows) - right}, weights.tokenizer.pad_token_id
    )  # fmt: skip
    base, args, collator = (parts.pop(k) for k in ("base", "args", "collator"))
    rows = datasets.Dataset.from_list(made.rows).select(order_of(len(made.rows), steps * method.batch, seed))
    lora = {"r": method.lora_rank, "lora_alpha": 2 * (method.lora_rank or 0), "lora_dropout": 0.05}
    trainer = prepared(base)(
        model=weights.network,
        # A model in memory cannot be loaded a second time by its name; the copy is the weights before training.
        ref_model=None if method.lora_rank else copy.deepcopy(weights.network),
        args=args,
        data_collator=collator,
        train_dataset=rows,
        eval_dataset=datasets.Dataset.from_list(made.held_out) if made.held_out else None,
        processing_class=weights.tokenizer,
        optimizers=(_optimizer(method, weights, args.learning_rate), None),
        callbacks=[Watch(on_progress)],
        peft_config=lora_config(lora) if method.lora_rank else None,
        **parts,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _optimizer(method: Pairwise, weights: Weights, rate: float) -> Any:
    """What is better than AdamW for the embedded model: on the demo it learned terms where AdamW only forgot."""
    small = weights.kind == "embedded" and not method.lora_rank
    return optimizer_of(weights.network, rate) if small else None


def _settings(method: Pairwise, weights: Weights, steps: int, state: Path, *, seed: int, half: bool) -> dict[str, Any]:
    """Arguments of TRL's configurations that all of these methods share."""
    micro = method.micro_batch or method.batch
    small = weights.kind == "embedded"
    whole, lora, embedded = method.rates
    if small and method.lora_rank:
        embedded = 1e-3  # of AdamW, on a few thousand weights
    return {
        "output_dir": str(state),
        "max_steps": steps,
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": method.batch // micro,
        "learning_rate": method.learning_rate or (embedded if small else lora if method.lora_rank else whole),
        "lr_scheduler_type": method.schedule,
        "warmup_steps": method.warmup,
        "weight_decay": method.weight_decay,
        "max_grad_norm": method.max_grad_norm,
        "max_length": None,
        "seed": seed,
        "data_seed": seed,
        "train_sampling_strategy": "sequential",
        "use_cpu": method.device == "cpu" or small,
        "bf16": half and not small,
        "gradient_checkpointing": method.gradient_checkpointing,
        "remove_unused_columns": False,  # what a collator reads need not be an argument of the model
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


def prepared(base: type[Any]) -> type[Any]:
    """A trainer of TRL that takes rows as they are, phones nobody and stops before a broken gradient reaches the
    weights (see `Guarded`).
    """

    class Prepared(Guarded, base):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _send_telemetry(self) -> None:
            return None

        def create_model_card(self, *_: Any, **__: Any) -> None:
            return None

    return Prepared


class Watch(TrainerCallback):  # type: ignore[misc]
    """Reports progress."""

    def __init__(self, on_progress: Progress | None) -> None:
        self.on_progress = on_progress
        self._began, self._seen = time.perf_counter(), 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """Tells the figures of a step."""
        if self.on_progress is not None and logs is not None and "loss" in logs:
            figures = point_of(logs)
            figures.pop("grad_norm", None)
            if "num_tokens" in logs:
                now, seen = time.perf_counter(), float(logs["num_tokens"])
                figures["tokens_per_second"] = max(0.0, seen - self._seen) / max(1e-9, now - self._began)
                self._began, self._seen = now, seen
            self.on_progress(state.global_step, state.max_steps, figures)


def point_of(logs: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a step by our names."""
    return {ours: float(logs[theirs]) for theirs, ours in _FIGURES.items() if logs.get(theirs) is not None}


def _ends(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """First and last figures, the last ones the mean of the last tenth, and the curve."""
    curve = [{"step": float(entry["step"]), **point_of(entry)} for entry in history if "loss" in entry]
    tail = curve[-max(1, len(curve) // 10) :]
    found: dict[str, Any] = {"loss_first": curve[0]["loss"]}
    for name in ("loss", "reward_margin", "accuracy"):
        if known := [point[name] for point in tail if name in point]:
            found[f"{name}_last"] = sum(known) / len(known)
    return {**found, "curve": curve}
