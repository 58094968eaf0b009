"""What stands in the prompts: what people or models said is on lines of its own that cannot pass for more."""

from __future__ import annotations

import re
from collections.abc import Sequence

from verbal.types import Reflection

NONE = "none"
"""What stands in an empty section."""
_TAG = re.compile(r"<(?=\s*/?\s*(?:hint|goal|dialogue|talk)\b)", re.I)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:-]")


def one_line(text: str) -> str:
    """`text` with every run of white space as one space: it starts no heading, closes no tag, is no line of a talk."""
    return _TAG.sub("&lt;", re.sub(r"```+", "'''", " ".join(text.split())))


def hint_line(hint: Reflection) -> str:
    """A reflection as one `<hint id="...">...</hint>` line whose text cannot close the tag."""
    text = f"{hint.text} (not for: {hint.boundary})" if hint.boundary else hint.text
    return f'<hint id="{_UNSAFE.sub("_", hint.id)}">{one_line(text)}</hint>'


def lines_of(texts: Sequence[str]) -> str:
    """Transcripts one after another, each line for itself; what could be a heading is moved in by a space."""
    talks = ("\n".join(f"> {one_line(line)}" for line in text.splitlines() if line.strip()) for text in texts)
    return "\n\n".join(talks) or NONE


__all__ = ["NONE", "hint_line", "lines_of", "one_line"]
