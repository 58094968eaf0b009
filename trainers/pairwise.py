"""What methods that learn from stored answers have in common: options, checks before torch, and the course of a run.

DPO, KTO and C3PO read answers that were right and answers that were not, and compare the weights with themselves as
they were before; nothing is sampled.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError
from verbal.recipe import Recipe
from verbal.store import Store

from . import checkpoint
from .adapters import Quantization, adapter_for
from .examples import Rows
from .opening import load, own_folder
from .refusals import require_columns
from .rows import Selection, build

__all__ = ["Pairwise"]


@dataclass(frozen=True, kw_only=True)
class Pairwise:
    """A method over one of the formats of `rows.FORMATS`; a subclass says which, and how TRL trains on it."""

    name: ClassVar[str] = ""
    format: ClassVar[str] = "preference"
    columns: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected")
    """What each row must have."""

    beta: float = 0.1
    """How strongly the weights are held to what they were: the higher, the less they move."""
    learning_rate: float | None = None
    """Peak. None: see `rates`."""
    epochs: float | None = None
    """Passes over the rows. None: 1 for a Hugging Face model, as many as make `small_steps` for the embedded one."""
    steps: int | None = None
    """Optimiser steps, in place of `epochs`."""
    batch: int = 16
    """Rows of one optimiser step."""
    micro_batch: int | None = None
    """Rows in memory at once; must divide `batch`. None: all of `batch`."""
    schedule: str = "cosine"
    """Name of a transformers learning-rate schedule."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises from 0."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 2048
    """Tokens of prompt and answer; longer rows are left out and counted, never cut."""
    lora_rank: int | None = None
    """0: all weights, against a frozen copy of them. Otherwise LoRA of this rank on all linear layers, against the same
    weights with the adapter off, merged at the end. None: 16 above a billion parameters, none below."""
    quantization: Quantization | None = None
    """`nf4`: the weights under the adapters are kept in 4 bits (QLoRA, extra `qlora`)."""
    blend: float = 1.0
    """Share of the trained weights in the result, the rest being the weights before, which returns some of the skill
    that training cost (arXiv 2109.01903, eq. 1). Not with LoRA."""
    gradient_checkpointing: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`bfloat16`: autocast, with LoRA over bfloat16 weights. `auto`: on a GPU that has it. Unused with slots."""
    device: Literal["auto", "cpu"] = "auto"
    arms: tuple[str, ...] | None = None
    critic: str | None = None
    """Whose value decides; None: the verdict critic of the runs' recipes, or the only one there is."""
    minimum: float = 1.0
    """Value from which an answer is right."""
    per_task: int | None = None
    """At most so many rows of one task."""
    splits: tuple[str, ...] = ("train",)
    """Splits to learn from; never `test`."""
    corrections: Literal["none", "user", "all"] = "user"
    """Right answers a person gave: `all` also takes those of a simulated person who read the gold."""
    threads: int = 1
    save_steps: int = 50

    rates: ClassVar[tuple[float, float, float]] = (1e-6, 1e-5, 6e-3)
    """Peak learning rate of all weights, of LoRA, and of the embedded model (by its own optimiser, without LoRA)."""
    small_steps: ClassVar[int] = 80
    """Steps of the embedded model where none are given."""

    def __post_init__(self) -> None:
        positive: dict[str, float | None] = {k: getattr(self, k) for k in _POSITIVE}
        for option, value in positive.items():
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{option} is {value}", where=option, todo="give a positive number")
        if not 0 < self.blend <= 1 or (self.blend < 1 and self.lora_rank):
            what = f"blend is {self.blend}, lora_rank {self.lora_rank}"
            raise ConfigError(what, where="blend", todo="give a share above 0, at most 1; with LoRA 1")
        adapter_for(0, lora_rank=self.lora_rank, quantization=self.quantization)
        if self.batch % (self.micro_batch or self.batch):
            what = f"micro_batch {self.micro_batch} does not divide batch {self.batch}"
            raise ConfigError(what, where="micro_batch", todo="choose a divisor")
        if self.epochs is not None and self.steps is not None:
            raise ConfigError("epochs and steps were both given", where="steps", todo="give one of them")

    def examples(self, store: Store, *, run: str | None = None) -> list[Example]:
        """The rows of `format` that the store (one run of it) gives.

        Raises:
            TrainError: there are none, or they hold no difference to learn from; says why.
        """
        selection = Selection(
            run=run, arms=self.arms, critic=self.critic, minimum=self.minimum, splits=self.splits,
            per_task=self.per_task, corrections=self.corrections,
        )  # fmt: skip
        rows = Rows(build(store, self.format, selection))
        self.require(rows)
        return rows

    def require(self, rows: Sequence[Example]) -> None:
        """Refuses rows that teach nothing.

        Raises:
            TrainError: no rows, or a column is missing.
        """
        require_columns(rows, self.name, self.columns)

    def train(
        self,
        examples: Sequence[Example],
        model: str,
        out: str,
        *,
        seed: int = 0,
        recipe: Recipe | None = None,
        on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
        resume: bool = False,
    ) -> dict[str, Any]:
        """Trains `model` on the rows into the folder `out`; gives the papers of the new weights with the run's figures.

        Args:
            examples: Rows of `examples`.
            model: `embedded`, `embedded:FOLDER`, or a Hugging Face model (folder or name).
            out: Folder for the weights; earlier weights of ours in it are replaced at the end.
            seed: Of the order of the rows and of LoRA's start.
            recipe: Not used: nothing is attempted here.
            on_progress: Called after each step with (done, total, figures).
            resume: Continue a training of the same rows and options that did not finish.

        Raises:
            TrainError: no rows, none that these weights can say, a loss that is not finite, an `out` that is in use.
            MissingExtra: torch, transformers or trl are not installed.
        """
        began = time.perf_counter()
        self.require(examples)
        folder = own_folder(out)
        kind: Literal["embedded", "huggingface"] = "embedded" if model.startswith("embedded") else "huggingface"
        papers = checkpoint.describe(examples, method=self.name, kind=kind, base=model, seed=seed)
        fit: Any = load("pairs").train_pairs
        figures = fit(self, examples, model, folder, seed=seed, on_progress=on_progress, resume=resume)
        seconds = {"total_seconds": round(time.perf_counter() - began, 3)}
        written = checkpoint.write(folder, {**papers, **figures, **seconds, "options": asdict(self)})
        shutil.rmtree(folder / "resume", ignore_errors=True)
        return written

    def trainer(self, settings: Mapping[str, Any], counts: Mapping[str, int], pad: int) -> dict[str, Any]:
        """What makes the trainer, torch being there: `base` (a trainer of TRL), `args` (its configuration), `collator`.

        Args:
            settings: Arguments that the configurations of all trainers take.
            counts: Rows by kind, `right` and `wrong` among them where rows have labels.
            pad: Token id that fills.
        """
        raise TrainError(f"{self.name or 'this method'} has no trainer", where="trainer")


_POSITIVE = (
    "beta", "learning_rate", "epochs", "steps", "batch", "micro_batch", "max_length", "threads", "save_steps",
    "max_grad_norm",
)  # fmt: skip
