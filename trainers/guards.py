"""What stops a training in time, with words and evidence: a loss or gradient that is no number, and memory that is out.

`Guarded` is mixed into any trainer of TRL (`class Mine(Guarded, GRPOTrainer)`); `memory_guard` goes around making the
trainer and training. Imports torch.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from verbal.errors import TrainError

__all__ = ["OFFENDING", "Guarded", "is_out_of_memory", "memory_guard"]

OFFENDING = "offending_batch.json"
"""Name of the file that keeps the rows on which a loss or gradient was no number."""
_OUT = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
_DROPPED = "attention_mask"


class Guarded:
    """Stops before a broken loss reaches the weights, or before weights that a broken gradient reached are saved, and
    keeps the rows of that step as JSON.

    A mixin, first among the bases. The file stands in the folder above the trainer's own (its states are dropped when a
    run starts anew): `OFFENDING`, with step, what became what, and each row's tensors as lists beside its text.
    """

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's, with the batch remembered (no copy) until its step is over."""
        window = self.__dict__.setdefault("_window", deque(maxlen=self.args.gradient_accumulation_steps))
        window.append(dict(inputs) if isinstance(inputs, Mapping) else {"rows": inputs})
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's.

        Raises:
            TrainError: the loss is not finite; names the file of its rows.
        """
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if not torch.isfinite(loss):
            self._stop("loss", loss.item(), self.state.global_step + 1, last=True)
        return loss

    def log(self: Any, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the trainer's; the gradient's norm is looked at before it is told.

        Raises:
            TrainError: the norm is not finite; names the file of the step's rows.
        """
        if not math.isfinite(norm := logs.get("grad_norm", 0.0)):
            self._stop("gradient", norm, self.state.global_step, last=False)
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _stop(self: Any, what: str, value: float, step: int, *, last: bool) -> None:
        batches = list(self.__dict__.get("_window", ()))
        rows = [row for batch in (batches[-1:] if last else batches) for row in _rows(batch, self.processing_class)]
        path = Path(self.args.output_dir).parent / OFFENDING
        path.write_text(
            json.dumps({"step": step, "what": what, "value": str(value), "rows": rows}, ensure_ascii=False, indent=1),
            encoding="utf-8",
        )
        raise TrainError(
            f"the {what} became {value} at step {step} of {self.state.max_steps}",
            where=f"learning rate {self.args.learning_rate:g}; {len(rows)} rows in {path}",
            todo="look at these rows, lower the learning rate; the last saved state is kept",
        )


def _rows(batch: Mapping[str, Any], tokenizer: Any) -> list[dict[str, Any]]:
    """A batch as one dict a row: what has one entry a row, tensors as lists, ids as text too."""
    sized = {k: v for k, v in batch.items() if isinstance(v, Sequence) and not isinstance(v, str)}
    sized |= {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and v.dim() > 0}
    if not sized:
        return []
    count = max(len(v) for k, v in sized.items() if k.endswith("ids") or k == "rows" or len(sized) == 1)
    rows = []
    for i in range(count):
        row = {k: v[i] for k, v in sized.items() if len(v) == count and k != _DROPPED}
        texts = {
            k.replace("ids", "text"): tokenizer.decode([t for t in v.tolist() if t >= 0])
            for k, v in row.items()
            if k.endswith("input_ids") or k in ("prompt_ids", "completion_ids")
        }
        rows.append(texts | {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in row.items()})
    return json.loads(json.dumps(rows, default=str))  # type: ignore[no-any-return]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is out: on a GPU, or torch's own on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT)


@contextlib.contextmanager
def memory_guard(settings: Mapping[str, Any]) -> Iterator[None]:
    """Out of memory becomes an error that says what to lower.

    Args:
        settings: The values that decide, as the method has them: `micro_batch`, `max_length` (or `max_tokens`,
            `group`), `lora_rank`, `quantization`, `gradient_checkpointing`.

    Raises:
        TrainError: memory was out, with the values seen.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, TrainError) or not is_out_of_memory(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        seen = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
        raise TrainError(
            f"memory ran out while training: {first}", where=seen, todo="; ".join(_lower(settings))
        ) from error


def _lower(settings: Mapping[str, Any]) -> Iterator[str]:
    """What needs less memory, the cheapest first."""
    if (micro := settings.get("micro_batch")) is None or micro > 1:
        less = "" if micro is None else f" to {micro // 2}"
        yield f"lower micro_batch{less} (same result, a little slower)"
    if not settings.get("gradient_checkpointing"):
        yield "set gradient_checkpointing = true (a third more time)"
    for name in ("max_length", "max_tokens"):
        if settings.get(name):
            yield f"lower {name} to {max(1, settings[name] // 2)}"
    if not settings.get("lora_rank"):
        yield "set lora_rank = 16 (adapters)"
    elif not settings.get("quantization"):
        yield 'set quantization = "nf4" (weights in 4 bits)'
    yield "or take a smaller model; verbal distill --dry-run tells what a training needs"
