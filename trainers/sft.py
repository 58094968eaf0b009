"""Supervised distillation: imitate the answers that were right, without the words that led to them.

Torch, transformers and TRL are loaded by `train` only, after everything that can be checked without them was checked.
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

from . import checkpoint, processes
from .adapters import Quantization, adapter_for
from .examples import Rows
from .exported import Exported
from .opening import load, own_folder
from .rows import Selection, sft

__all__ = ["SFT"]


@dataclass(frozen=True, kw_only=True)
class SFT:
    """Rejection-sampled fine-tuning on right answers, retries and corrections, through TRL's SFTTrainer.

    Source: rejection sampling fine-tuning (Yuan et al. 2023, arXiv 2308.01825) with answers found under retrieved
    reflections and retries; the reflections leave the prompt (context distillation, Askell et al. 2021,
    arXiv 2112.00861, section 2.2.1).
    """

    name: ClassVar[str] = "sft"
    several_processes: ClassVar[bool] = True
    """Whether `launch` may train it in several processes."""

    arms: tuple[str, ...] | None = None
    """Arms of a comparison to learn from; None: all."""
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
    epochs: float | None = None
    """Passes over the rows. None: 3 for a Hugging Face model, as many as make 72 steps for the embedded one."""
    learning_rate: float | None = None
    """Peak. None: 2e-5 (2e-4 with LoRA) for a Hugging Face model, the measured default for the embedded one."""
    batch: int | None = None
    """Rows in one optimiser step. None: 16 for a Hugging Face model; a quarter of all, at most 32, for the embedded."""
    micro_batch: int | None = None
    """Rows in memory at once (Hugging Face models); None: all of `batch`."""
    max_length: int = 2048
    """Tokens; longer rows are left out and counted."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`bfloat16`: autocast over float32 weights; with LoRA the frozen weights are bfloat16 too. `auto`: where the
    hardware multiplies it (of CPUs only for the embedded model)."""
    device: Literal["auto", "cpu"] = "auto"
    """Where a Hugging Face model trains; the embedded model always trains on the CPU."""
    lora_rank: int | None = None
    """Of LoRA on all linear layers, merged at the end. 0: all weights are trained; None: 16 above 10^9 parameters."""
    quantization: Quantization | None = None
    """`nf4`: the weights under LoRA are kept in 4 bits (QLoRA); needs bitsandbytes."""
    gradient_checkpointing: bool = False
    """Less memory for about a third more time (Hugging Face models)."""
    rehearsal: float = 0.125
    """Synthetic rows per trained row (embedded model), against forgetting."""
    blend: float | None = None
    """Share of the trained weights in the result, the rest being the weights before (embedded model). None: 0.8."""
    threads: int = 1
    """Of torch on a CPU; raise it only where no other process computes."""
    save_steps: int = 200
    """Steps between states to resume from."""

    def __post_init__(self) -> None:
        positive: dict[str, float | None] = {
            "batch": self.batch,
            "max_length": self.max_length,
            "threads": self.threads,
        }
        positive |= {"save_steps": self.save_steps, "epochs": self.epochs, "learning_rate": self.learning_rate}
        for option, value in positive.items():
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{option} is {value}", where=option, todo="give a positive number")
        adapter_for(0, lora_rank=self.lora_rank, quantization=self.quantization)
        if self.rehearsal < 0:
            raise ConfigError(f"rehearsal is {self.rehearsal}", where="rehearsal", todo="give 0 or more")
        if self.blend is not None and not 0 < self.blend <= 1:
            raise ConfigError(f"blend is {self.blend}", where="blend", todo="give a share above 0, at most 1")

    def warm(self) -> None:
        """Loads torch and TRL (some seconds) while something else still goes on.

        Raises:
            MissingExtra: one of them is not installed.
        """
        load("fit")

    def examples(self, store: Store, *, run: str | None = None) -> list[Example]:
        """The distinct right answers of the store (of one run), each under its task's own prompt.

        Raises:
            TrainError: there is none, and why.
        """
        selection = Selection(
            corrections=self.corrections,
            run=run,
            arms=self.arms,
            critic=self.critic,
            minimum=self.minimum,
            splits=self.splits,
            per_task=self.per_task,
        )
        return Rows(sft(store, selection))

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
            examples: Rows with `prompt` and `completion`.
            model: `embedded`, `embedded:FOLDER`, or a Hugging Face model (folder or name, `hf:` before it or not).
            out: Folder for the weights; earlier weights of ours in it are replaced at the end.
            seed: Of the order of the rows, of LoRA's start and of rehearsal.
            recipe: Not used: nothing is attempted here.
            on_progress: Called after each step with (done, total, figures); figures hold `loss`.
            resume: Continue a training of the same rows and options that did not finish.

        Raises:
            TrainError: no rows, rows of another type, a loss that is not finite, an `out` that is in use.
            MissingExtra: torch, transformers or trl are not installed.
        """
        began = time.perf_counter()
        rows = _checked(examples)
        folder = own_folder(out)
        small = model == "embedded" or model.startswith("embedded:")
        kind: Literal["embedded", "huggingface"] = "embedded" if small else "huggingface"
        papers = checkpoint.describe(examples, method=self.name, kind=kind, base=model, seed=seed)
        self.warm()
        if small:
            from .slots import train_embedded as train_weights
        else:
            from .huggingface import train_huggingface as train_weights
        loading = time.perf_counter() - began
        figures = train_weights(
            self, rows, model.removeprefix("hf:"), folder, seed=seed, on_progress=on_progress, resume=resume
        )
        if not processes.is_first():
            return {**papers, **figures}
        times = {"import_seconds": round(loading, 3), "total_seconds": round(time.perf_counter() - began, 3)}
        written = checkpoint.write(folder, {**papers, **figures, **times, "options": asdict(self)})
        shutil.rmtree(folder / "resume", ignore_errors=True)
        return written


def _checked(examples: Sequence[Example]) -> Sequence[Mapping[str, Any]]:
    """The rows as TRL takes them; those of an export stay on disk."""
    if not len(examples):
        raise TrainError("no rows to train on", todo="collect attempts, then ask the method for its examples")
    if isinstance(examples, Exported):
        return examples.columns("prompt", "completion")
    rows = []
    for i, example in enumerate(examples):
        prompt, completion = example.columns.get("prompt"), example.columns.get("completion")
        if not prompt or not completion:
            raise TrainError(
                f"row {i} has the columns {sorted(example.columns)}, not prompt and completion",
                where=f"attempts {', '.join(example.attempts)}",
                todo="build the rows with this method's `examples`",
            )
        rows.append({"prompt": list(prompt), "completion": list(completion)})
    return rows
