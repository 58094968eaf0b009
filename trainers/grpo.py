"""GRPO: several answers to one task are compared with their mean; those above it become likelier."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError
from verbal.recipe import Recipe
from verbal.store import Store
from verbal.types import Task

from . import checkpoint
from .adapters import adapter_for
from .examples import Rows
from .opening import load, own_folder
from .refusals import require_columns
from .rows import Selection, build

if TYPE_CHECKING:
    from torch import Tensor

    from .group import Batch, GroupTrainer
    from .rollouts import Rollouts, Sampled

__all__ = ["GRPO"]


@dataclass(frozen=True, kw_only=True)
class GRPO:
    """Group relative policy optimisation on attempts of our own loop, through TRL's GRPOTrainer.

    Source: GRPO (arXiv 2402.03300); defaults as Dr. GRPO (arXiv 2503.20783): no division by the group's deviation,
    token losses summed and divided by a fixed length.
    """

    name: ClassVar[str] = "grpo"
    own_loss: ClassVar[bool] = False
    """Whether `token_losses` replaces TRL's loss."""
    tells: ClassVar[tuple[str, ...]] = ()
    """What it adds to the figures of a step (from the trainer's metrics)."""

    group: int = 8
    """Rows of one task that are compared; at least 2."""
    tasks: int = 8
    """Tasks of one step."""
    steps: int = 50
    """Optimiser steps."""
    learning_rate: float | None = None
    """None: 1e-6 (1e-5 with LoRA) for a Hugging Face model, 3e-4 for the embedded one."""
    schedule: str = "constant"
    """Name of a transformers learning-rate schedule."""
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    """Of that schedule, such as `min_lr_rate` of `cosine_with_min_lr`."""
    temperature: float = 1.0
    max_tokens: int = 256
    """Of one reply; also the fixed length that token losses are divided by."""
    micro_batch: int | None = None
    """Rows in memory at once; must divide group x tasks. None: all."""
    passes: int = 1
    """Optimiser steps on the rows of one generation; above 1 the ratio to what was sampled counts, and is clipped."""
    clip: float = 0.2
    clip_high: float | None = None
    """Upper bound of the clip where it differs from the lower."""
    beta: float = 0.0
    """Of the KL to the weights before training."""
    kl_correction: bool = True
    """Whether the KL's gradient is corrected by the ratio to the sampler (TRL's default; published code mostly not)."""
    entropy: float = 0.001
    """Bonus on the mean entropy of policy tokens, nats."""
    scale: Literal["none", "group"] = "none"
    """`group` divides by the group's deviation."""
    loss: Literal["dr_grpo", "grpo", "dapo", "bnpo"] = "dr_grpo"
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    max_generated: int | None = None
    """Ends the training when so many tokens were generated, by every role together."""
    patience: int = 8
    """Generations at the start that may give no group with two different rewards before the training is refused."""
    lora_rank: int | None = None
    """0: all weights. Otherwise LoRA of this rank on all linear layers, merged at the end. None: 16 above a billion
    parameters, none below."""
    quantization: Literal["nf4"] | None = None
    """`nf4`: the weights under the adapters are kept in 4 bits (QLoRA, extra `qlora`)."""
    gradient_checkpointing: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu"] = "auto"
    splits: tuple[str, ...] = ("train",)
    memory: str = ""
    """`STORE#NAME` of a memory that the prompts of rollouts show reflections of; empty for none."""
    threads: int = 1
    save_steps: int = 25
    validate: int = 0
    """Dev tasks that are attempted greedily every `save_steps` steps; the weights that did best are the result. 0: the
    last ones are."""

    def __post_init__(self) -> None:
        least = {
            "group": (self.group, 2),
            "tasks": (self.tasks, 1),
            "steps": (self.steps, 1),
            "passes": (self.passes, 1),
        }
        for option, (value, low) in least.items():
            if value < low:
                why = "one sample a group has no mean to be compared with" if option == "group" else ""
                raise ConfigError(f"{option} is {value}, at least {low} is needed", where=option, todo=why)
        adapter_for(0, lora_rank=self.lora_rank, quantization=self.quantization)
        if (self.slots * self.tasks) % (self.micro_batch or self.slots * self.tasks):
            raise ConfigError(
                f"micro_batch {self.micro_batch} does not divide the rows of a step, {self.slots * self.tasks}",
                where="micro_batch", todo="choose a divisor",
            )  # fmt: skip

    @property
    def slots(self) -> int:
        """Rows of one task in a step; those that a group leaves open are filled with rows of no weight."""
        return self.group

    def examples(self, store: Store, *, run: str | None = None) -> list[Example]:
        """The tasks that may be attempted, one row each.

        Raises:
            TrainError: there is none, and why.
        """
        return Rows(build(store, "prompt", Selection(run=run, splits=self.splits)))

    def check(self, examples: Sequence[Example]) -> None:
        """Refuses rows that it cannot learn from, before torch is loaded.

        Raises:
            TrainError: see `require_columns`.
        """
        require_columns(examples, self.name, ("prompt",))

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
        """Trains `model` on the tasks of the rows into the folder `out`; gives the papers with the run's figures.

        Args:
            examples: Rows of `examples`.
            model: `embedded`, `embedded:FOLDER`, or a Hugging Face model (folder or name).
            out: Folder for the weights and the attempts (`rollouts.db`).
            seed: Of tasks, draws and LoRA's start.
            recipe: App, critics and loop of the attempts; the shipped recipe of this method's name when not given.
            on_progress: Called after each step with (done, total, figures).
            resume: Continue a training of the same rows and options that did not finish.

        Raises:
            TrainError: no tasks, no difference between rewards, a loss that is not finite, an `out` that is in use.
            MissingExtra: torch, transformers or trl are not installed.
        """
        from verbal.recipe import load_recipe

        began = time.perf_counter()
        self.check(examples)
        folder = own_folder(out)
        kind: Literal["embedded", "huggingface"] = "embedded" if model.startswith("embedded") else "huggingface"
        recipe = self.plan(recipe or load_recipe(self.name), model)
        papers = checkpoint.describe(examples, method=self.name, kind=kind, base=model, seed=seed, recipe=recipe)
        load("fit")
        train: Any = load("learn").learn
        figures = train(
            self,
            examples,
            recipe,
            model,
            folder,
            seed=seed,
            on_progress=on_progress,
            resume=resume,
        )
        seconds = {"total_seconds": round(time.perf_counter() - began, 3)}
        written = checkpoint.write(folder, {**papers, **figures, **seconds, "options": asdict(self)})
        shutil.rmtree(folder / "resume", ignore_errors=True)
        return written

    def selects(self, tasks: Sequence[Task], seed: int) -> list[Task]:
        """Those of the dev tasks by which the best weights are chosen: they say nothing of the result any more."""
        held = sorted(tasks, key=lambda task: task.id)
        return Random(seed).sample(held, min(self.validate, len(held)))

    def plan(self, recipe: Recipe, model: str) -> Recipe:
        """The recipe of the attempts; a method may give roles to other models than the one that is trained."""
        return recipe

    async def choose(self, rollouts: Rollouts, tasks: Sequence[str]) -> list[str]:
        """Those of the tasks that are trained on, found before the first step."""
        return list(tasks)

    async def sample(self, rollouts: Rollouts, tasks: Sequence[str], step: int) -> list[list[Sampled]]:
        """The rows of each task's group, `group` at most."""
        groups = await rollouts.groups(step, tasks, self.group)
        return [[row for made in group if (row := rollouts.row(made))] for group in groups]

    def credit(self, batch: Batch) -> Tensor | None:
        """Weights (B) or (B, T) of the rows; None keeps TRL's: reward minus the group's mean."""
        return None

    def token_losses(self, logps: Tensor, old: Tensor, weights: Tensor, off_policy: Tensor) -> Tensor:
        """Losses (B, T) of a method with `own_loss`."""
        raise TrainError(f"{self.name} has no loss of its own", where="own_loss")

    def callbacks(self, trainer: GroupTrainer) -> list[Any]:
        """What else happens after each step, as callbacks of transformers."""
        return []

    def figures(self, trainer: GroupTrainer) -> dict[str, Any]:
        """What it adds to the papers."""
        return {}
