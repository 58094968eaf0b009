"""Imitate first, then reinforce: right answers are learned by SFT, then a group method goes on from those weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError
from verbal.parts import make_part
from verbal.recipe import Recipe
from verbal.store import Store

from . import checkpoint
from .grpo import GRPO
from .opening import own_folder, unlimited
from .rows import Selection, build
from .sft import SFT

__all__ = ["SFTThenRL"]

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with (steps done, steps in all, figures by name)."""


@dataclass(frozen=True, kw_only=True)
class SFTThenRL:
    """A phase of SFT and a phase of a group method, as one training with one checkpoint.

    Source: SFT-then-RL outperforms mixed-policy methods (arXiv 2604.23747): with demonstrations of most questions it
    gave more for less than methods that mix the two, ReLIFT among them.
    """

    name: ClassVar[str] = "sft_then_rl"

    rl: str = "grpo"
    """The group method of the second phase."""
    sft_options: Mapping[str, Any] = field(default_factory=dict)
    """Of the first phase (`sft`)."""
    rl_options: Mapping[str, Any] = field(default_factory=dict)
    """Of the second."""
    rows: Literal["right", "demonstrations"] = "right"
    """What is imitated: every right answer, or only the demonstrations that ReLIFT would have."""

    def __post_init__(self) -> None:
        self.phases()
        if self.rows not in ("right", "demonstrations"):
            raise ConfigError(f"rows is {self.rows!r}", where="rows", todo="right or demonstrations")

    def phases(self) -> tuple[SFT, GRPO]:
        """The two methods.

        Raises:
            ConfigError: one does not take its options, or `rl` is no group method.
        """
        first: SFT = make_part("trainers", "sft", where="sft_options", **self.sft_options)
        second = make_part("trainers", self.rl, where="rl_options", **self.rl_options)
        if not isinstance(second, GRPO):
            raise ConfigError(f"{self.rl} attempts nothing itself", where="rl", todo="grpo, relift, critique_grpo ...")
        return first, second

    def examples(self, store: Store, *, run: str | None = None) -> list[Example]:
        """The rows of both phases; the column `phase` (`sft` or `rl`) tells which is whose.

        Raises:
            TrainError: a phase has none, and why.
        """
        first, second = self.phases()
        if self.rows == "right":
            imitated = first.examples(store, run=run)
        else:
            selection = Selection(
                run=run, arms=first.arms, critic=first.critic, minimum=first.minimum, splits=first.splits,
                per_task=first.per_task, corrections=first.corrections,
            )  # fmt: skip
            imitated = list(build(store, "demonstrations", selection).rows)
        return [*_of("sft", imitated), *_of("rl", second.examples(store, run=run))]

    def train(
        self,
        examples: Sequence[Example],
        model: str,
        out: str,
        *,
        seed: int = 0,
        recipe: Recipe | None = None,
        on_progress: Progress | None = None,
        resume: bool = False,
    ) -> dict[str, Any]:
        """Trains `model` by both phases into the folder `out`; the papers tell the figures of each under `phases`.

        Args:
            examples: Rows of `examples`.
            model: `embedded`, `embedded:FOLDER`, or a Hugging Face model (folder or name).
            out: Folder for the weights and the attempts of the second phase.
            seed: Of both phases.
            recipe: Of the attempts; the shipped recipe of the second phase's method when not given.
            on_progress: Called after each step with (done, total, figures), steps of both phases counted.
            resume: Continue in whichever phase it did not finish.

        Raises:
            TrainError: a phase has no rows or fails, or the folder holds a training of other rows or options.
            MissingExtra: torch, transformers or trl are not installed.
        """
        began = time.perf_counter()
        first, second = self.phases()
        imitated, attempted = ([e for e in examples if e.columns.get("phase") == p] for p in ("sft", "rl"))
        if not imitated:
            raise TrainError("no rows to imitate", where=self.name, todo="build the rows with this method's `examples`")
        second.check(attempted)
        folder = own_folder(out)
        told = [self.name, asdict(self), model, seed, checkpoint.digest(examples), unlimited(recipe)]
        state = _state(folder, json.dumps(told, sort_keys=True, default=str), resume)
        small = model == "embedded" or model.startswith("embedded:")
        papers = checkpoint.describe(
            examples, method=self.name, kind="embedded" if small else "huggingface", base=model, seed=seed
        )
        one, two = state / "sft", state / "rl"
        sft = _finished(one) or first.train(
            imitated, model, str(one), seed=seed, on_progress=_shifted(on_progress, 0, second.steps), resume=resume
        )
        rl = _finished(two) or second.train(
            attempted, f"embedded:{one}" if small else str(one), str(two), seed=seed, recipe=recipe,
            on_progress=_shifted(on_progress, sft["steps"], 0), resume=resume,
        )  # fmt: skip
        for path in two.iterdir():
            if path.name not in ("verbal.json", "resume"):
                os.replace(path, folder / path.name)
        figures = _figures(sft, rl) | {"total_seconds": round(time.perf_counter() - began, 3)}
        written = checkpoint.write(folder, {**papers, **figures, "options": asdict(self)})
        shutil.rmtree(state, ignore_errors=True)
        return written


def _of(phase: str, rows: Sequence[Example]) -> list[Example]:
    return [dataclasses.replace(row, columns={**row.columns, "phase": phase}) for row in rows]


def _state(folder: Path, told: str, resume: bool) -> Path:
    """The folder of both phases while they train; one of another training is refused."""
    state, digest = folder / "resume", hashlib.sha256(told.encode()).hexdigest()
    mark = state / "phases.sha256"
    if not resume:
        shutil.rmtree(state, ignore_errors=True)
    if state.exists() and (not mark.exists() or mark.read_text() != digest):
        what = "the saved state belongs to a run with other rows or options"
        raise TrainError(what, where=str(state), todo="repeat the options, or start anew without resume")
    state.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest)
    return state


def _finished(folder: Path) -> dict[str, Any] | None:
    """The papers of a phase that was finished before."""
    path = folder / "verbal.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _shifted(on_progress: Progress | None, before: int, after: int) -> Progress | None:
    """Progress that counts the steps of the other phase."""
    if on_progress is None:
        return None
    return lambda done, total, figures: on_progress(before + done, before + total + after, figures)


_HERE = ("rows", "steps", "seconds", "loss_first", "loss_last", "reward_first", "reward_last", "generated", "tokens",
         "too_long", "unsupported", "options")  # fmt: skip


def _figures(sft: Mapping[str, Any], rl: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of both phases, and of the second all that the method tells."""
    known = {
        "kind", "base", "seed", "weights", "attempts", "versions", "rows_sha256", "tasks", "curve", "oracle_rows",
        "critics", "models", "runs", "licences", "origins", "total_seconds",
    }  # fmt: skip
    steps = sft["steps"]
    curve = [*sft.get("curve", []), *({**p, "step": p["step"] + steps} for p in rl["curve"])]
    return {
        "steps": steps + rl["steps"],
        "seconds": round(sft["seconds"] + rl["seconds"], 3),
        **{name: rl[name] for name in ("generated", "reward_first", "reward_last", "device")},
        "curve": curve,
        "phases": [
            {"method": "sft", **{name: sft[name] for name in _HERE if name in sft}},
            {name: value for name, value in rl.items() if name not in known},
        ],
    }
