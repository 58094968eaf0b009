"""One supervised run through TRL's SFTTrainer: quiet, seeded, resumable, on one thread by default, stopped by a loss
that is not finite. Imports torch, transformers and trl, so it is itself imported only when a run starts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from verbal.errors import TrainError

from . import processes
from .exported import Table
from .guards import OFFENDING, Guarded, memory_guard

__all__ = [
    "Progress",
    "Run",
    "fingerprint",
    "fit",
    "fit_trainer",
    "lora_config",
    "quiet",
    "saved_state",
    "threads_of",
    "window_of",
]

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with (steps done, steps in all, figures): `loss`, and what the method has of `reward`,
`entropy`, `kl` and `tokens_per_second`."""


Rows = Sequence[Mapping[str, Any]]
"""Rows of a training set, in TRL's columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a run trains. Steps are optimiser steps."""

    epochs: float = 3.0
    batch: int = 16
    """Rows (or packs) in one step."""
    micro_batch: int | None = None
    """Rows in memory at once; must divide `batch`. None: all of `batch`."""
    learning_rate: float = 2e-5
    schedule: str = "linear"
    """Name of a transformers learning-rate schedule; it ends at the last step."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float = 0.0
    max_length: int | None = None
    """Tokens; longer rows are left out and counted (never cut, which would cut the answer)."""
    shuffle: bool = True
    seed: int = 0
    device: str = "auto"
    """`cpu`, or `auto` for the first accelerator."""
    mixed: bool = False
    """bfloat16 autocast over float32 weights."""
    gradient_checkpointing: bool = False
    quantization: str | None = None
    """How the weights under LoRA are kept."""
    threads: int = 1
    """Of torch on a CPU. One thread was up to 17 times faster than two where others use the cores."""
    save_steps: int = 200
    """How often a state to resume from is written."""


class _Trainer(Guarded, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that phones nobody and stops before a broken gradient reaches the weights."""

    def _send_telemetry(self) -> None:
        return None

    def create_model_card(self, *_: Any, **__: Any) -> None:
        return None


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Keeps the curve and reports progress.

    TRL counts tokens by the mask, which for packs of one's own says who sees whom: `a_step` tokens are counted there.
    """

    def __init__(self, on_progress: Progress | None, a_step: float | None = None) -> None:
        self.on_progress, self._a_step = on_progress, a_step
        self._tokens, self._clock = 0.0, time.perf_counter()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._clock = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if self.on_progress is None or logs is None or "loss" not in logs or not state.is_world_process_zero:
            return
        point = {k: v for k, v in point_of(logs).items() if k in ("loss", "entropy")}
        now = time.perf_counter()
        tokens = float(logs.get("num_tokens", 0.0)) if self._a_step is None else self._tokens + self._a_step
        point["tokens_per_second"] = max(0.0, tokens - self._tokens) / max(1e-9, now - self._clock)
        self._tokens, self._clock = tokens, now
        self.on_progress(state.global_step, state.max_steps, point)


def _mean_tokens(rows: Sequence[Mapping[str, Any]]) -> float:
    """Mean number of `input_ids` of a row."""
    return sum(len(row["input_ids"]) for row in rows) / max(1, len(rows))


def point_of(logs: Mapping[str, float]) -> dict[str, float]:
    """What of a step's logs is kept as a point of the curve."""
    return {k: float(logs[k]) for k in ("loss", "grad_norm", "entropy", "learning_rate") if k in logs}


def fit(model: Any, tokenizer: Any, rows: Rows, out: Path, run: Run, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The trained model (in memory, adapters merged) and the figures; arguments and errors as of `fit_trainer`."""
    trainer, figures = fit_trainer(model, tokenizer, rows, out, run, **options)
    return (trainer.model.merge_and_unload() if options.get("lora") else trainer.model), figures


def fit_trainer(
    model: Any,
    tokenizer: Any,
    rows: Rows,
    out: Path,
    run: Run,
    *,
    collator: Any = None,
    optimizer: Any = None,
    lora: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
    resume: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """TRL's trainer after training, and the figures: steps, seconds, rows, tokens, too_long, loss_first, loss_last,
    curve. In several processes each calls it and trains its share of every batch.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        rows: `prompt` + `completion`, or `input_ids` + `labels` with whatever `collator` reads; a `Table` of an export
            stays on disk.
        out: Folder; what is needed to resume is kept in its folder `resume` until the run is done.
        run: How to train.
        collator: Makes a batch of rows with `input_ids`; None: TRL's.
        optimizer: Over the model's parameters; None: AdamW at `run.learning_rate`.
        lora: Options of `peft.LoraConfig`; None: all weights are trained.
        on_progress: Called after each step.
        resume: Continue from the last saved state, if there is one.

    Raises:
        TrainError: no row is short enough, the loss is not finite (its rows are kept in `out`), memory ran out, or the
            saved state is of another run.
    """
    state = out / "resume"
    plain: Any = rows.digest if isinstance(rows, Table) else [dict(r) for r in rows]
    several = [n] if (n := processes.count()) > 1 else []
    start = saved_state(state, fingerprint(plain, asdict(run), dict(lora or {}), *several), resume)
    (out / OFFENDING).unlink(missing_ok=True)
    with quiet(), threads_of(run.threads), memory_guard(_settings(run, lora)):
        prepared = collator is not None
        trainer = _Trainer(
            model=model,
            args=_config(run, state, prepared),
            train_dataset=rows.dataset if isinstance(rows, Table) else datasets.Dataset.from_list(plain),
            processing_class=tokenizer,
            data_collator=collator,
            optimizers=(optimizer, None),
            callbacks=[
                _Watch(on_progress, _mean_tokens(plain) * run.batch if prepared and isinstance(plain, list) else None)
            ],
            peft_config=lora_config(lora),
        )
        trainer.remove_callback(PrinterCallback)
        too_long = _leave_out_long(trainer, run.max_length, None if prepared else window_of(model))
        clock = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        seconds = time.perf_counter() - clock
    return trainer, {**_figures(trainer, run), "too_long": too_long, "seconds": round(seconds, 3)}


def _config(run: Run, state: Path, prepared: bool) -> Any:
    share = processes.count()
    micro = run.micro_batch or max(1, run.batch // share)
    if run.batch % (micro * share):
        among = f" among {share} processes" if share > 1 else ""
        raise TrainError(f"micro_batch {micro} does not divide batch {run.batch}{among}", todo="choose a divisor")
    return SFTConfig(
        output_dir=str(state),
        num_train_epochs=run.epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=run.batch // (micro * share),
        learning_rate=run.learning_rate,
        lr_scheduler_type=run.schedule,
        warmup_steps=run.warmup,
        weight_decay=run.weight_decay,
        max_length=None,
        seed=run.seed,
        data_seed=run.seed,
        train_sampling_strategy="random" if run.shuffle else "sequential",
        use_cpu=run.device == "cpu",
        bf16=run.mixed,
        gradient_checkpointing=run.gradient_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True} if prepared else None,
        remove_unused_columns=not prepared,
        dataloader_pin_memory=False,
        save_strategy="steps",
        save_steps=run.save_steps,
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        push_to_hub=False,
    )


def lora_config(options: Mapping[str, Any] | None) -> Any:
    """Options of `peft.LoraConfig` as one, on all linear layers unless they say otherwise; None stays None."""
    if options is None:
        return None
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", **{"target_modules": "all-linear", **options})


def window_of(model: Any) -> int | None:
    """Tokens that a model of transformers reads at most; None where it does not say."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else None


def _leave_out_long(trainer: Any, max_length: int | None, window: int | None) -> int:
    before = len(trainer.train_dataset)
    if limits := [n for n in (max_length, window) if n is not None]:
        limit = min(limits)
        trainer.train_dataset = trainer.train_dataset.filter(lambda row: len(row["input_ids"]) <= limit)
        if not len(trainer.train_dataset):
            what = f"all {before} rows are longer than {limit} tokens"
            if limit != max_length:
                todo = "take a model that reads more, or build shorter rows"
                raise TrainError(f"{what}, which is all the model reads", where="max_position_embeddings", todo=todo)
            raise TrainError(what, where="max_length", todo="raise max_length")
    return before - len(trainer.train_dataset)


def _settings(run: Run, lora: Mapping[str, Any] | None) -> dict[str, Any]:
    """What decides how much memory a run takes."""
    return {
        "micro_batch": run.micro_batch or run.batch,
        "max_length": run.max_length,
        "lora_rank": (lora or {}).get("r", 0),
        "quantization": run.quantization,
        "gradient_checkpointing": run.gradient_checkpointing,
    }


def _figures(trainer: Any, run: Run) -> dict[str, Any]:
    curve = [{"step": float(e["step"]), **point_of(e)} for e in trainer.state.log_history if "loss" in e]
    losses = [point["loss"] for point in curve]
    tail = losses[-max(1, len(losses) // 10) :]
    ids = trainer.train_dataset.select_columns("input_ids")
    tokens = sum(len(row) for batch in ids.iter(1000) for row in batch["input_ids"])
    return {
        "steps": trainer.state.global_step,
        "rows": len(trainer.train_dataset),
        "tokens": round(tokens * run.epochs),
        "loss_first": losses[0],
        "loss_last": sum(tail) / len(tail),
        "curve": curve,
        "device": str(trainer.args.device),
    }


def fingerprint(*parts: Any) -> str:
    """A digest of what makes a run that run: rows and options, of plain types."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def saved_state(state: Path, digest: str, resume: bool) -> Path | None:
    """The state to go on from, None for a fresh start; anything older is dropped unless `resume`.

    Args:
        state: Folder of the states.
        digest: The `fingerprint` of this run.
        resume: Whether to go on.

    Raises:
        TrainError: what was saved belongs to another run.
    """
    mark = state / "run.sha256"
    if not resume and processes.is_first():
        shutil.rmtree(state, ignore_errors=True)
    kept = state.glob("checkpoint-*") if resume else ()
    found = max(kept, key=lambda p: int(p.name.split("-")[1]), default=None)
    if found is not None and mark.read_text() != digest:
        raise TrainError(
            "the saved state belongs to a run with other rows or options",
            where=str(state),
            todo="repeat the options, or start anew without resume",
        )
    if processes.is_first():
        state.mkdir(parents=True, exist_ok=True)
        mark.write_text(digest)
    return found


@contextlib.contextmanager
def threads_of(n: int) -> Iterator[None]:
    """So many threads of torch meanwhile, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars and no advice on the terminal: progress is reported by `on_progress`, errors by exceptions."""
    logging = transformers.logging
    rows_bars, weights_bars = not datasets.are_progress_bars_disabled(), logging.is_progress_bar_enabled()
    level, ours = logging.get_verbosity(), getLogger("trl").level
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    getLogger("trl").setLevel(ERROR)  # rows without a reward are a matter of course here
    try:
        yield
    finally:
        logging.set_verbosity(level)
        getLogger("trl").setLevel(ours)
        if weights_bars:
            logging.enable_progress_bar()
        if rows_bars:
            datasets.enable_progress_bars()
