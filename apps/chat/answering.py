"""One answer: the model's pieces as they come, the tools it calls, and what it says that it used.

A person sees the text without what the model thought first (`<think>`) and without the line `USED: u1, t3` by which it
names the lessons that it followed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from verbal.contracts import Reply, Sampling
from verbal.types import Message, Step

from .budget import tokens
from .tools import Toolbox
from .turn import Event

ALIAS = r"[utg](?:\d+|-[\w.-]+)"
"""How lessons are called in a prompt: of the user, the team, all (`global`)."""
_USED = re.compile(r"^[\s*_`>-]*USED[\s*_`]*:(?P<ids>.*?)[\s*_`]*$", re.IGNORECASE)
_MAYBE = re.compile(r"^[\s*_`>-]*(?:U|US|USE|USED|USED[\s*_`]*|USED[\s*_`]*:.*)?$", re.IGNORECASE)
_SHORTEST = 200
_NAME = re.compile(rf"(?:{ALIAS}|none)", re.IGNORECASE)


class Visible:
    """What a person sees of a reply, piece by piece."""

    def __init__(self) -> None:
        self.used: list[str] = []
        """Lessons that the reply names, in its order."""
        self._held, self._blank, self._open = "", "", False
        self._begun = self._thinking = False

    def add(self, piece: str) -> str:
        """The text that can be shown after this piece."""
        self._held += piece
        if not self._begun and not self._begin():
            return ""
        shown = ""
        while (end := self._held.find("\n")) >= 0:
            line, self._held = self._held[:end], self._held[end + 1 :]
            shown += self._line(line)
            self._blank, self._open = self._blank + "\n", False
        if self._held and (self._open or not _MAYBE.match(self._held)):
            shown += self._line(self._held)
            self._held, self._open = "", True
        return shown

    def rest(self) -> str:
        """What is left to show when the reply is over."""
        if self._thinking:
            return ""
        shown, self._held = self._line(self._held), ""
        return shown

    def _line(self, line: str) -> str:
        """A line, or the rest of one that is shown in part, with the blanks before it; nothing for `USED: ...`."""
        if not self._open and (named := names(line)) is not None:
            self.used += named
            return ""
        kept = line.rstrip()
        shown = self._blank + kept if kept else ""
        self._blank = line[len(kept) :] if kept else self._blank + line
        return shown

    def _begin(self) -> bool:
        """Whether the text has begun: what a model thinks aloud before it is left out."""
        text = self._held.lstrip()
        if self._thinking or text.lower().startswith("<think>"):
            self._thinking = True
            if (end := text.lower().find("</think>")) < 0:
                return False
            self._thinking, text = False, text[end + len("</think>") :].lstrip()
        self._held = text
        self._begun = bool(text) and not "<think>".startswith(text.lower()[: len("<think>")])
        return self._begun


def names(line: str) -> list[str] | None:
    """The lessons that a line `USED: u1, t3` names, none for `USED: none`; None for any other line.

    >>> names("USED: u1, [t3]"), names("Used: cars are cheap")
    (['u1', 't3'], None)
    """
    found = _USED.match(line)
    if not found:
        return None
    words = [w.strip("[]().*`_\"'") for w in re.split(r"[\s,;]+", found["ids"]) if w.strip("[]().*`_\"'")]
    if not all(_NAME.fullmatch(w) for w in words):
        return None
    return [w.lower() for w in words if w.lower() != "none"]


def visible(text: str) -> str:
    """A whole reply as a person sees it."""
    shown = Visible()
    return shown.add(text) + shown.rest()


@dataclass(slots=True)
class Answered:
    """What an answer came to; filled as it comes."""

    text: str = ""
    """As the person sees it: all that was said, also between calls of tools."""
    steps: list[Step] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    finish: str = "stop"
    first: float | None = None
    """Seconds until the first piece of text."""
    cut: bool = False
    """Whether it still called tools when it had no rounds left."""


async def answer(
    caller: Any,
    messages: Sequence[Message],
    sampling: Sampling,
    toolbox: Toolbox,
    made: Answered,
    *,
    rounds: int,
    shown: Collection[str] = (),
    budget: int | None = None,
) -> AsyncGenerator[Event, None]:
    """Text and tools of one answer as they come, noted in `made`.

    Args:
        caller: The model of the role.
        messages: The prompt.
        sampling: How it samples.
        toolbox: What it may call.
        made: Where it is noted.
        rounds: Times that tools may be called; after these it has to answer without.
        shown: Lessons in the prompt, as steps name them.
        budget: Tokens of a prompt at most: where results of tools are more, the longest are cut further.

    Raises:
        ModelError: a call failed.
    """
    began, messages = time.perf_counter(), list(messages)
    for left in range(rounds, -1, -1):
        prompt, reply = tuple(messages), Reply(text="")
        tools = toolbox.definitions if left else ()
        async with aclosing(_said(caller, messages, replace(sampling, tools=tools), made)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Reply):
                    reply = piece
                    continue
                if made.first is None:
                    made.first = time.perf_counter() - began
                yield Event(type="text", data={"delta": piece})
        made.finish = reply.finish
        made.steps.append(
            Step(
                author="policy", text=reply.text, tool_calls=reply.tool_calls, prompt=prompt, shown=tuple(shown),
                token_ids=reply.token_ids, logprobs=reply.logprobs, parent=len(made.steps) - 1 if made.steps else None,
            )
        )  # fmt: skip
        if not reply.tool_calls:
            return
        if not left:
            made.cut = True
            return
        messages.append(Message(role="assistant", content=reply.text, tool_calls=reply.tool_calls))
        for call in reply.tool_calls:
            called = await toolbox.call(call)
            made.steps.append(
                Step(author="tool", text=called.result, tool_calls=(call,), observation=called.error or None)
            )
            messages.append(Message(role="tool", content=called.told, tool_call_id=call.id))
            yield Event(type="tool", data=called.to_dict())
        _trim(messages, budget)


def _trim(messages: list[Message], budget: int | None) -> None:
    """Cuts the longest results of tools until a prompt fits its budget; each stays one JSON object."""
    while budget is not None and tokens(messages) > budget:
        at = max(range(len(messages)), key=lambda i: len(messages[i].content) * (messages[i].role == "tool"))
        told = json.loads(messages[at].content) if messages[at].role == "tool" else {}
        key = "error" if "error" in told else "result"
        if len(told.get(key, "")) <= _SHORTEST:
            return
        told[key] = f"{told[key][: len(told[key]) // 2]} ... (cut)"
        messages[at] = messages[at].replace(content=json.dumps(told, ensure_ascii=False))


async def _said(
    caller: Any, messages: Sequence[Message], sampling: Sampling, made: Answered
) -> AsyncGenerator[str | Reply, None]:
    """The visible pieces of one reply, apart from what was said before it, then the reply."""
    seen, gap = Visible(), "\n\n" if made.text else ""
    async with aclosing(caller.stream_reply(messages, sampling)) as pieces:
        async for piece in pieces:
            text = seen.rest() if isinstance(piece, Reply) else seen.add(piece)
            if text:
                made.text, text, gap = made.text + gap + text, gap + text, ""
                yield text
            if isinstance(piece, Reply):
                made.used += seen.used
                yield piece


__all__ = ["ALIAS", "Answered", "Visible", "answer", "names", "visible"]
