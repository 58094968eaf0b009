"""The chat agent: it learns from being corrected, and shows what it learned."""

from .agent import ChatAgent
from .turn import Busy, Event, Said, Stale, Turn, Understanding

__all__ = ["ChatAgent", "Busy", "Event", "Said", "Stale", "Turn", "Understanding"]  # noqa: RUF022  (the part comes first)
