"""Any causal language model of Hugging Face, trained on conversational rows with its own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from verbal.errors import TrainError

from .fit import Progress, Run, fit, quiet

if TYPE_CHECKING:
    from .sft import SFT

__all__ = ["opened", "train_huggingface"]


def train_huggingface(
    method: SFT,
    rows: Sequence[Mapping[str, Any]],
    model: str,
    out: Path,
    *,
    seed: int,
    on_progress: Progress | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Trains a model (folder or name) on rows `prompt` + `completion`, saves it and its tokenizer in `out`.

    Raises:
        TrainError: it cannot be loaded, or its tokenizer has no chat template.
    """
    lora = {"r": method.lora_rank, "lora_alpha": 2 * method.lora_rank} if method.lora_rank else None
    gpu = method.device == "auto" and torch.cuda.is_available()
    half = gpu and torch.cuda.is_bf16_supported() if method.precision == "auto" else method.precision == "bfloat16"
    weights, tokenizer = opened(model, torch.bfloat16 if half and lora else torch.float32)
    run = Run(
        epochs=method.epochs or 3.0,
        batch=method.batch or 16,
        micro_batch=method.micro_batch,
        learning_rate=method.learning_rate or (2e-4 if lora else 2e-5),
        max_length=method.max_length,
        seed=seed,
        device=method.device,
        mixed=half,
        gradient_checkpointing=method.gradient_checkpointing,
        threads=method.threads,
        save_steps=method.save_steps,
    )
    trained, figures = fit(weights, tokenizer, rows, out, run, lora=lora, on_progress=on_progress, resume=resume)
    with quiet():
        trained.save_pretrained(out)
        tokenizer.save_pretrained(out)
    return figures


def opened(model: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A causal language model and its tokenizer.

    Raises:
        TrainError: it cannot be loaded, or the tokenizer has no chat template.
    """
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(model)
            weights = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        todo = "give a folder with config.json and weights, or a model name that can be downloaded"
        raise TrainError(f"the model {model!r} cannot be loaded: {first}", where="model", todo=todo) from error
    if tokenizer.chat_template is None:
        raise TrainError(
            f"the tokenizer of {model!r} has no chat template", where="model", todo="take an instruction-tuned model"
        )
    return weights, tokenizer
