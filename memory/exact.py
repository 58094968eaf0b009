"""Exact search by brute force in numpy: no file, no lock; as fast as an approximate index up to some 50,000 items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .matrix import ExactIndex
from .reflections import ReflectionMemory

if TYPE_CHECKING:
    from verbal.store import Store


class ExactMemory(ReflectionMemory):
    """Reflections found by exact search; the vectors are read from the store when it opens.

    Args:
        store: Where op log and vectors are.
        name: Name of the memory in the store.
        folder: Not used, since nothing lies on disk; taken so that a recipe can switch between indexes by name.
        options: As for `ReflectionMemory`.
    """

    def __init__(self, store: Store, name: str = "main", folder: str | Path | None = None, **options: Any) -> None:
        super().__init__(store, ExactIndex(), name, **options)


__all__ = ["ExactMemory", "ExactIndex"]  # noqa: RUF022  (a part's class comes first)
