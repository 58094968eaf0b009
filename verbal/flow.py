"""Text on the terminal as a model says it, and a sign that it is at work."""

from __future__ import annotations

import re
import shutil
import sys
from typing import TYPE_CHECKING

from verbal.text import visible

if TYPE_CHECKING:
    from rich.status import Status

_WIDTH = 100


class Flow:
    """Text as it comes, wrapped at words; what is in it is shown, never obeyed.

    Args:
        quiet: Write nothing.
        width: Columns; as the terminal has, 100 at most.
    """

    def __init__(self, *, quiet: bool = False, width: int | None = None) -> None:
        self._quiet, self._width = quiet, width
        self._column, self._word, self._open = 0, "", False

    def add(self, piece: str) -> None:
        """More text."""
        for part in re.findall(r"\n|[^\S\n]+|\S+", visible(piece)):
            if part.isspace():
                self._put_word()
                full = part != "\n" and self._column + len(part) > self._columns
                self._put(part if not full and (part != "\n" or self._column or self._open) else "")
            else:
                self._word += part
        if not self._quiet:
            sys.stdout.flush()

    def end(self) -> None:
        """The text is over: the next begins on a line of its own."""
        self._put_word()
        if self._column:
            self._put("\n")
        self._open = False
        if not self._quiet:
            sys.stdout.flush()

    @property
    def _columns(self) -> int:
        return self._width or min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)

    def _put_word(self) -> None:
        word, self._word = self._word, ""
        if word and self._column and self._column + len(word) > self._columns:
            self._put("\n")
        self._put(word)

    def _put(self, text: str) -> None:
        if not text or self._quiet:
            return
        sys.stdout.write(text)
        self._open = True
        self._column = 0 if text == "\n" else self._column + len(text)


class Waiting:
    """A sign that the model is at work, on a terminal only.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._on = not quiet and sys.stdout.isatty() and sys.stderr.isatty()
        self._status: Status | None = None

    def start(self) -> None:
        """Shows it."""
        if self._on and self._status is None:
            from rich.console import Console

            self._status = Console(file=sys.stderr, highlight=False).status("", spinner="dots")
            self._status.start()

    def stop(self) -> None:
        """Takes it away; harmless when it is not shown."""
        if self._status is not None:
            self._status.stop()
            self._status = None


__all__ = ["Flow", "Waiting"]
