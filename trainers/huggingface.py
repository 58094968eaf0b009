"""Any causal language model of Hugging Face, trained on conversational rows with its own chat template."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from verbal.errors import MissingExtra, TrainError

from .adapters import Adapter, Quantization, adapter_for
from .fit import Progress, Run, fit_trainer, quiet
from .processes import is_first

if TYPE_CHECKING:
    from .sft import SFT

__all__ = ["adapter_of", "merged", "opened", "parameters_of", "train_huggingface"]


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
        TrainError: as `opened` and `fit`. MissingExtra: `quantization` without bitsandbytes.
    """
    adapter = adapter_of(method, model)
    lora = adapter.options()
    gpu = method.device == "auto" and torch.cuda.is_available()
    half = gpu and torch.cuda.is_bf16_supported() if method.precision == "auto" else method.precision == "bfloat16"
    weights, tokenizer = opened(model, torch.bfloat16 if half and lora else torch.float32, adapter.quantization)
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
        quantization=adapter.quantization,
        threads=method.threads,
        save_steps=method.save_steps,
    )
    trainer, figures = fit_trainer(
        weights, tokenizer, rows, out, run, lora=lora, on_progress=on_progress, resume=resume
    )
    _save(trainer, tokenizer, model, out, adapter)
    own = tokenizer.pad_token_id != tokenizer.eos_token_id
    pad = tokenizer.pad_token if own else f"{tokenizer.eos_token} (the end of sequence, for want of another)"
    return {**figures, "lora_rank": adapter.rank, "quantization": adapter.quantization, "pad_token": pad}


def _save(trainer: Any, tokenizer: Any, model: str, out: Path, adapter: Adapter) -> None:
    """Writes the weights, adapters merged; in several processes the first one does.

    Adapters over weights that are in 4 bits, or in pieces on several cards, are merged into the model as it was.
    """
    pieces = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if pieces else None  # every process takes part
    if not is_first():
        return
    whole = trainer.accelerator.unwrap_model(trainer.model_wrapped) if pieces else trainer.model
    with quiet():
        if adapter.rank:
            anew = model if pieces or adapter.quantization else None
            whole, state = merged(whole, out, anew=anew, state=state), None if anew else state
        whole.save_pretrained(out, state_dict=state)
        tokenizer.save_pretrained(out)


def merged(trained: Any, out: Path, *, anew: str | None = None, state: Any = None) -> Any:
    """The model with its adapters merged.

    Args:
        trained: The model with adapters.
        out: Folder in which the adapters may lie for a moment.
        anew: The model that they are merged into, opened again; None: the one they were trained over.
        state: The weights of `trained`, where it does not hold them all itself.
    """
    if anew is not None:
        from peft import PeftModel

        with tempfile.TemporaryDirectory(dir=out) as folder:
            trained.save_pretrained(folder, state_dict=state)
            trained = PeftModel.from_pretrained(opened(anew, torch.bfloat16)[0], folder)
    return trained.merge_and_unload()


def adapter_of(method: Any, model: str) -> Adapter:
    """The adapter that a method's `lora_rank` and `quantization` (where it has them) mean for a model; none for the
    embedded one.

    Raises:
        ConfigError: as `adapter_for`.
    """
    if model == "embedded" or model.startswith("embedded:"):
        return Adapter(rank=0)
    asked = {k: getattr(method, k, None) for k in ("lora_rank", "quantization")}
    return adapter_for(parameters_of(model.removeprefix("hf:")), **asked)


def parameters_of(model: str) -> int:
    """How many a model has, counted on its shapes; 0 where it cannot be read, which `opened` will say better."""
    try:
        with quiet(), torch.device("meta"):
            config = transformers.AutoConfig.from_pretrained(model)
            return int(transformers.AutoModelForCausalLM.from_config(config).num_parameters())
    except (OSError, ValueError, KeyError):
        return 0


def opened(model: str, dtype: torch.dtype, quantization: Quantization | None = None) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, which has a pad token afterwards: the end of sequence if no own.

    Raises:
        TrainError: it cannot be loaded, or the tokenizer has no chat template, or neither pad nor end token.
        MissingExtra: `quantization` without bitsandbytes.
    """
    bits = _four_bit(dtype) if quantization else None
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(model)
            weights = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype, quantization_config=bits)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        todo = "give a folder with config.json and weights, or a model name that can be downloaded"
        raise TrainError(f"the model {model!r} cannot be loaded: {first}", where="model", todo=todo) from error
    if tokenizer.chat_template is None:
        raise TrainError(
            f"the tokenizer of {model!r} has no chat template", where="model", todo="take an instruction-tuned model"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            todo = "give it one: tokenizer.eos_token = ..., tokenizer.save_pretrained(FOLDER)"
            what = f"the tokenizer of {model!r} has neither a pad nor an end-of-sequence token"
            raise TrainError(what, where="model", todo=todo)
        tokenizer.pad_token = tokenizer.eos_token
    return weights, tokenizer


def _four_bit(dtype: torch.dtype) -> Any:
    """NormalFloat of 4 bits, its constants quantized again (QLoRA, arXiv 2305.14314, section 3)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtra.of("bitsandbytes", "qlora")
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
