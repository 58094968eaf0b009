"""A chat with the agent: one person's conversation, open while it is spoken to."""

from __future__ import annotations

__all__ = []
