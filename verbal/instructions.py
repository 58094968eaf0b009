"""The part of a prompt that may change: its instruction, between the role's line and the first heading. No I/O.

Schema, hints and question stay as they are, so that every model reads them as before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verbal.errors import ConfigError
from verbal.loop.context import query
from verbal.prompt import Prompt
from verbal.types import Task

MAX_INSTRUCTION = 8_000
"""Characters of an instruction; a longer one is no candidate."""
_COPIED = 20
"""Characters from which a question or answer of a task may not stand in an instruction."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A prompt's body in three parts."""

    opening: str
    """The line that names the role; may be empty."""
    instruction: str
    """What may change."""
    frame: str
    """From the first heading on: what is filled in."""

    def body(self, instruction: str) -> str:
        """The body with another instruction."""
        return "\n".join(
            [self.opening, instruction.strip(), "", self.frame]
            if self.opening
            else [instruction.strip(), "", self.frame]
        )


def split_prompt(prompt: Prompt) -> Parts:
    """A prompt's opening, instruction and frame.

    Raises:
        ConfigError: it has no instruction of its own.
    """
    lines = prompt.body.rstrip("\n").split("\n")
    opening = lines.pop(0) if lines and lines[0].startswith("# ") else ""
    headings = [i for i, line in enumerate(lines) if line.startswith("## ")]
    fields = [i for i, line in enumerate(lines) if "{{" in line]
    at = (headings or fields or [len(lines)])[0]
    instruction = "\n".join(lines[:at]).strip()
    if not instruction:
        raise ConfigError(f"the prompt {prompt.name!r} has no instruction before its fields", todo="name another role")
    return Parts(opening, instruction, "\n".join(lines[at:]))


def cleaned(text: str, old: str) -> str | None:
    """An instruction as it may stand in a prompt, or None: headings become lines, fields must be those of `old`."""
    lines = [re.sub(r"^#+\s*(.*?):?\s*$", r"\1:", line) for line in text.strip().splitlines()]
    made = "\n".join(lines).strip()
    fields = re.compile(r"\{\{.*?\}\}", re.DOTALL)
    if not made or len(made) > MAX_INSTRUCTION or set(fields.findall(made)) != set(fields.findall(old)):
        return None
    return made


def copies(text: str, tasks: Sequence[Task]) -> bool:
    """Whether a text holds the question or the gold answer of a task, whatever its spaces and capitals."""
    folded = _folded(text)
    known = (_folded(t) for task in tasks for t in (query(task), task.gold or ""))
    return any(len(t) >= _COPIED and t in folded for t in known)


def data(text: str) -> str:
    """A text as data of a prompt: one line that opens no fence, heading or tag."""
    return re.sub(r"```+", "'''", " ".join(text.split())).lstrip("#").replace("<", "&lt;")


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


__all__ = ["MAX_INSTRUCTION", "Parts", "cleaned", "copies", "data", "split_prompt"]
