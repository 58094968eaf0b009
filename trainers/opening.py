"""What every training does before anything heavy is loaded: takes its folder, and loads torch with a word of advice."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from verbal.errors import MissingExtra, TrainError
from verbal.recipe import Recipe

__all__ = ["load", "own_folder", "unlimited"]


def load(module: str) -> Any:
    """A module of this room that imports torch, transformers and trl.

    Raises:
        MissingExtra: one of them is not installed.
    """
    try:
        return importlib.import_module(f".{module}", __package__)
    except ModuleNotFoundError as error:
        raise MissingExtra.of(error.name or "trl", "train") from error


def unlimited(recipe: Recipe | None) -> dict[str, Any]:
    """A recipe as plain types without its limits: those may be raised when a training goes on."""
    return {k: v for k, v in recipe.to_dict().items() if k != "limits"} if recipe is not None else {}


def own_folder(out: str | Path) -> Path:
    """The folder for weights, made; what an earlier training left in it will be replaced at the end.

    Raises:
        TrainError: it is a file, holds what is not ours, or cannot be made.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise TrainError(f"{str(folder)!r} is a file", where="out", todo="give a folder")
    names = {p.name for p in folder.iterdir()} if folder.exists() else set()
    if names and not names & {"resume", "verbal.json"}:
        raise TrainError(f"{str(folder)!r} is in use", where="out", todo="give a new folder for the weights")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{str(folder)!r} cannot be made: {error.strerror}", where="out") from error
    return folder
