"""SDFT: the weights with words in sight teach the weights without them, token by token, on answers of the latter.

Through a trainer of TRL that is experimental: see `self_distillation.py`.
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
from .opening import load, own_folder
from .refusals import require_columns
from .rows import Selection, build

__all__ = ["SDFT"]

_SLOTS = """the embedded model cannot be its own teacher token by token: with the words in its prompt other slots stand
for the same names, so one answer is other tokens to teacher and student"""


@dataclass(frozen=True, kw_only=True)
class SDFT:
    """Self-distillation fine-tuning: a divergence to the own distribution under prompt + words, on own samples.

    Source: SDFT (arXiv 2601.19897), where the words are a demonstration. Differs: by default they are the reflections
    and critiques that an attempt had read (format `privileged`).
    """

    name: ClassVar[str] = "sdft"
    trainer: ClassVar[Literal["sdft", "sdpo"]] = "sdft"
    columns: ClassVar[tuple[str, ...]] = ("prompt", "completion")

    source: Literal["words", "demonstrations"] = "words"
    """What the teacher reads: words (`privileged_context`), or a right answer to a question that first tries failed."""
    template: str = ""
    """Of the teacher's prompt, with {prompt} and {words}. Empty: the words after the prompt; a demonstration with an
    introduction."""
    teacher: Literal["base", "ema", "live"] = "base"
    """The weights before training, a moving mean of them, or the weights as they are."""
    teacher_rate: float = 0.05
    """Of the moving mean."""
    mode: Literal["topk_logits", "full_logits", "sampled_token"] = "topk_logits"
    """Over which tokens the distributions are compared."""
    topk: int = 100
    alpha: float = 0.5
    """0: forward KL (to the teacher), 1: reverse KL, between: a Jensen-Shannon mixture. `sampled_token` needs 1."""
    group: int = 1
    """Answers to one prompt in a step."""
    tasks: int = 8
    """Prompts of a step."""
    steps: int = 50
    learning_rate: float | None = None
    """None: 1e-5, or 1e-4 with LoRA."""
    schedule: str = "cosine"
    warmup: float = 0.1
    temperature: float = 1.0
    max_tokens: int = 256
    """Of an answer."""
    max_length: int = 4096
    """Tokens of the teacher's prompt and an answer; longer rows are left out and counted."""
    micro_batch: int | None = None
    """Rows in memory at once; must divide group x tasks. None: all."""
    max_grad_norm: float = 1.0
    lora_rank: int | None = None
    """0: all weights. None: 16 above a billion parameters, none below."""
    gradient_checkpointing: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu"] = "auto"
    arms: tuple[str, ...] | None = None
    critic: str | None = None
    minimum: float = 1.0
    per_task: int | None = None
    splits: tuple[str, ...] = ("train",)
    threads: int = 1
    save_steps: int = 25

    def __post_init__(self) -> None:
        for option in ("topk", "group", "tasks", "steps", "max_tokens", "max_length", "threads", "save_steps"):
            if (value := getattr(self, option)) < 1:
                raise ConfigError(f"{option} is {value}, at least 1 is needed", where=option)
        if not 0 <= self.alpha <= 1 or not 0 < self.teacher_rate <= 1:
            what = f"alpha is {self.alpha}, teacher_rate is {self.teacher_rate}"
            raise ConfigError(what, where="alpha, teacher_rate", todo="give shares, teacher_rate above 0")
        if self.mode == "sampled_token" and self.alpha != 1:
            raise ConfigError(f"alpha is {self.alpha}: sampled_token knows the reverse KL only", todo="give alpha=1")
        if (self.group * self.tasks) % (self.micro_batch or self.group * self.tasks):
            what = f"micro_batch {self.micro_batch} does not divide group x tasks, {self.group * self.tasks}"
            raise ConfigError(what, where="micro_batch", todo="choose a divisor")
        if self.template and not ("{prompt}" in self.template and "{words}" in self.template):
            raise ConfigError(f"the template {self.template!r} lacks {{prompt}} or {{words}}", where="template")

    def examples(self, store: Store, *, run: str | None = None) -> list[Example]:
        """Right answers after words that can be told, or demonstrations of hard questions.

        Raises:
            TrainError: there is none, and why.
        """
        selection = Selection(
            run=run, arms=self.arms, critic=self.critic, minimum=self.minimum, splits=self.splits,
            per_task=self.per_task,
        )  # fmt: skip
        return list(build(store, "privileged" if self.source == "words" else "demonstrations", selection).rows)

    def words_of(self, example: Example) -> str:
        """What the teacher reads beside the prompt of a row."""
        if self.source == "words":
            return str(example.columns["privileged_context"])
        return str(example.columns["completion"][-1]["content"])

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
            model: A Hugging Face model (folder or name).
            out: Folder for the weights.
            seed: Of the order of the rows, of every draw and of LoRA's start.
            recipe: App, critics and loop, for a method that makes attempts of its own.
            on_progress: Called after each step with (done, total, figures).
            resume: Continue a training of the same rows and options that did not finish.

        Raises:
            TrainError: no rows, the embedded model, a loss that is not finite, an `out` that is in use.
            MissingExtra: torch, transformers or trl are not installed.
        """
        began = time.perf_counter()
        needed = (*self.columns, "privileged_context") if self.trainer == "sdft" and self.source == "words" else ()
        require_columns(examples, self.name, needed or self.columns)
        if model.startswith("embedded"):
            todo = "train a Hugging Face model, or use sft (rejection sampling without the words) or critique_grpo"
            raise TrainError(" ".join(_SLOTS.split()), where=f"{self.name}, model {model!r}", todo=todo)
        folder = own_folder(out)
        papers = checkpoint.describe(examples, method=self.name, kind="huggingface", base=model, seed=seed)
        load("fit")
        fit: Any = load("self_distillation").distil
        figures = fit(
            self, examples, model, folder, seed=seed, recipe=recipe, on_progress=on_progress, resume=resume
        )  # fmt: skip
        seconds = {"total_seconds": round(time.perf_counter() - began, 3)}
        written = checkpoint.write(folder, {**papers, **figures, **seconds, "options": asdict(self)})
        shutil.rmtree(folder / "resume", ignore_errors=True)
        return written
