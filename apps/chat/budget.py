"""A long conversation within a budget of tokens: the newest turns as they were, the older ones in a summary.

A turn is kept whole or goes whole, so that no call of a tool is parted from its result. When the budget is reached,
turns go until half of it is left: a summary is written now and then, and not with every turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from verbal.errors import DataError
from verbal.prompt import load_prompt
from verbal.types import Message

from .reading import quoted

Ask = Callable[[str, list[Message]], Awaitable[str | None]]
"""Asks the role `summary` under a key; None when it cannot, or its call failed."""

_FRAME = 8
_SHARE = 6
_CLIP = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A turn before."""

    id: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What a prompt holds of the turns before."""

    turns: tuple[Past, ...]
    summary: str = ""
    upto: str = ""
    """Id of the newest turn that is in the summary, or left out."""
    went: int = 0
    """Turns that went now."""
    dropped: bool = False
    """Whether they were left out without a summary."""


def tokens(messages: Sequence[Message] | str) -> int:
    """About how many tokens messages take: one for four bytes of UTF-8, and some for each message."""
    if isinstance(messages, str):
        return len(messages.encode("utf-8", "replace")) // 4 + 1
    calls = (c.name + c.arguments for m in messages for c in m.tool_calls)
    return sum(_FRAME + tokens(m.content) for m in messages) + sum(map(tokens, calls))


async def window(turns: Sequence[Past], summary: str, left: int, ask: Ask) -> Window:
    """What fits into a budget.

    Args:
        turns: The turns that are not in the summary, oldest first.
        summary: Of those before them.
        left: Tokens that the budget leaves for them.
        ask: The role that writes summaries.

    Raises:
        DataError: nothing is left, for the message alone is larger.
    """
    if left < 0:
        raise DataError("the message is longer than the budget of tokens", todo="say less, or give a larger --budget")
    sizes = [tokens(t.messages) for t in turns]
    if sum(sizes) + tokens(summary) <= left:
        return Window(turns=tuple(turns), summary=summary)
    room, kept = left // 2, len(turns)
    while kept and sum(sizes[kept - 1 :]) <= room:
        kept -= 1
    gone = turns[:kept]
    text = await _summarised(gone, summary, max(left // _SHARE, 40), ask) if gone else summary
    dropped = bool(gone) and text is None
    return Window(
        turns=tuple(turns[kept:]), summary=summary if text is None else text, upto=gone[-1].id if gone else "",
        went=len(gone), dropped=dropped,
    )  # fmt: skip


async def _summarised(gone: Sequence[Past], before: str, most: int, ask: Ask) -> str | None:
    lines = []
    for past in gone:
        for message in past.messages:
            told = {"by": message.role, "text": message.content[:_CLIP]}
            if message.tool_calls:
                told["calls"] = ", ".join(f"{c.name}({c.arguments[:200]})" for c in message.tool_calls)
            lines.append(json.dumps(told, ensure_ascii=False))
    prompt = load_prompt("chat/summary").fill(before=quoted(before), turns="\n".join(lines), words=str(most * 2 // 3))
    reply = await ask(f"summary:{gone[-1].id}", [Message(role="user", content=prompt)])
    found = re.findall(r"^[ \t>*]*summary\**:\**[ \t]*(\S.*)$", reply or "", re.IGNORECASE | re.MULTILINE)
    if len(found) != 1:
        return None
    text = " ".join(found[0].split())
    return text.encode("utf-8", "replace")[: most * 4].decode("utf-8", "ignore")


__all__ = ["Ask", "Past", "Window", "tokens", "window"]
