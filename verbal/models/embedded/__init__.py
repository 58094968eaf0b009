"""The embedded model: a small language model that ships with the project and runs on numpy alone."""

from __future__ import annotations

from typing import Any

__all__ = ["EmbeddedModel"]


def __getattr__(name: str) -> Any:
    """`EmbeddedModel`, imported when it is first asked for: the codec alone needs none of its imports."""
    if name == "EmbeddedModel":
        from verbal.models.embedded.model import EmbeddedModel

        return EmbeddedModel
    raise AttributeError(name)
