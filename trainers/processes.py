"""Which of several processes of one training this is: the one that writes, or one that only computes. No torch here."""

from __future__ import annotations

import os

__all__ = ["count", "is_first"]


def count() -> int:
    """Processes of this training, 1 where nobody launched several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process writes what a training leaves behind."""
    return os.environ.get("RANK", "0") == "0"
