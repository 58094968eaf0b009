"""An exchange as the records of the house: a task, an attempt, what the gateway knows of it. Secrets are cut out here.

The attempt has the id that the client was told as the id of the response, so feedback finds it. Its run is
`gateway-PROJECT`. What has no place in an attempt (route, key, times, status) is a later step of it, under the key
`exchange`. No I/O here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verbal.models._faults import environment_secrets, redact
from verbal.parts import load_function
from verbal.prompt import load_prompt
from verbal.spans import META
from verbal.types import Attempt, Message, Reflection, Step, StopReason, Task, ToolCall, Usage

from .exchange import Exchange
from .fields import with_lessons

RUN = "gateway-"
"""How the runs of a gateway are called: this and the project."""
SHADOW = "shadow"
"""Arm of the answers that no client saw."""
_TAG = re.compile(r"<(?=\s*/?\s*lessons?\b)", re.IGNORECASE)
_REMEMBERED = 4096
"""Texts that are known to hold no secret; a conversation sends its beginning again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of one exchange."""

    task: Task
    attempt: Attempt
    meta: Mapping[str, Any]
    role: str = "solver"
    """Under which its cost is counted."""

    @property
    def step(self) -> Step:
        """What the gateway knows of it, as a later step."""
        return Step(author="environment", role="gateway", text=json.dumps(self.meta, sort_keys=True))


@dataclass(slots=True)
class Cleaner:
    """Cuts secrets out of texts, those of the environment as it was when this was made; remembers which hold none."""

    _clean: dict[bytes, None] = field(default_factory=dict)
    _secrets: list[tuple[str, str]] = field(default_factory=environment_secrets)
    _masked: Callable[[str], str] = field(default_factory=lambda: load_function("memory", "leaks", "masked"))

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if not text:
            return text
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._clean:
            return text
        cut = self._masked(redact(text, self._secrets))
        if cut == text:
            if len(self._clean) >= _REMEMBERED:
                self._clean.clear()
            self._clean[digest] = None
        return cut

    def messages(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """A conversation without secrets."""
        return tuple(
            m.replace(content=self(m.content), tool_calls=self.calls(m.tool_calls)) if m.tool_calls
            else m.replace(content=self(m.content))
            for m in messages
        )  # fmt: skip

    def calls(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Tool calls without secrets in their arguments."""
        return tuple(c.replace(arguments=self(c.arguments)) for c in calls)


def run_of(project: str) -> str:
    """The run under which a project's exchanges are kept."""
    return RUN + project


def task_id(messages: Sequence[Message]) -> str:
    """The id of a conversation that has no secrets in it: who asks the very same asks the same task."""
    plain = [m.to_json() for m in messages]
    return f"chat-{hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]}"


def lessons_text(lessons: Sequence[Reflection]) -> str:
    """Lessons as the text that a prompt gets: one line each, which cannot close its tag; empty for none."""
    if not lessons:
        return ""
    return load_prompt("gateway/lessons").fill(lessons="\n".join(map(_line, lessons))).strip()


def records(exchange: Exchange, clean: Cleaner, *, arm: str = "main", parent: str | None = None) -> Kept:
    """What is kept of an exchange, without secrets."""
    messages, reply = clean.messages(exchange.messages), exchange.reply
    task = Task(id=task_id(messages), kind="chat", messages=messages, split="train")
    text = clean(reply.text) if reply is not None else ""
    usage = exchange.usage
    step = Step(
        author="policy", text=text, tool_calls=clean.calls(reply.tool_calls) if reply is not None else (),
        prompt=with_lessons(messages, lessons_text(exchange.shown)) if exchange.shown else messages,
        token_ids=reply.token_ids if reply is not None else None,
        logprobs=reply.logprobs if reply is not None else None,
        shown=tuple(r.id for r in exchange.shown), offered=dict(exchange.offered),
    )  # fmt: skip
    attempt = Attempt(
        id=exchange.id, run=run_of(exchange.caller.project), task=task.id, arm=arm, parent=parent, answer=text,
        steps=(step,), model=exchange.answered_by or exchange.model, stop=_stop(exchange),
        prompts={"gateway/lessons": load_prompt("gateway/lessons").hash} if exchange.shown else {},
        usage=usage if usage.seconds else replace_seconds(usage, exchange.seconds),
        error=clean(exchange.error) or None, seed=exchange.sampling.seed,
    )  # fmt: skip
    return Kept(task=task, attempt=attempt, meta=_meta(exchange), role=SHADOW if arm == SHADOW else "solver")


def replace_seconds(usage: Usage, seconds: float) -> Usage:
    """A usage with its time."""
    return replace(usage, seconds=seconds)


def _line(lesson: Reflection) -> str:
    text = f"{lesson.when}: {lesson.text}" if lesson.when else lesson.text
    text = f"{text} (not for: {lesson.boundary})" if lesson.boundary else text
    return f'<lesson id="{re.sub("[^A-Za-z0-9._-]", "_", lesson.id)}">{_one_line(text)}</lesson>'


def _one_line(text: str) -> str:
    return _TAG.sub("&lt;", " ".join(text.split()))


def _stop(exchange: Exchange) -> StopReason:
    finish = exchange.reply.finish if exchange.reply is not None else "error"
    if exchange.error or finish == "error" or exchange.status >= 400:
        return StopReason.TIMEOUT if exchange.status in (408, 504) else StopReason.ERROR
    return StopReason.LENGTH if finish == "length" else StopReason.ANSWERED


def _meta(exchange: Exchange) -> dict[str, Any]:
    sampling = exchange.sampling
    return {
        "route": exchange.route, "asked": exchange.model, "protocol": exchange.protocol, "stream": exchange.stream,
        "project": exchange.caller.project, "key": exchange.caller.key, "memory": exchange.memory,
        "version": exchange.version, "status": exchange.status, "began": exchange.began, "first": exchange.first,
        "seconds": exchange.seconds, "finish": exchange.reply.finish if exchange.reply is not None else None,
        "usage": "estimated" if exchange.guess is not None else "told",
        "temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens,
        "tools": [str((tool.get("function") or tool).get("name", "")) for tool in sampling.tools],
    }  # fmt: skip


__all__ = ["META", "RUN", "SHADOW", "Cleaner", "Kept", "lessons_text", "records", "run_of", "task_id"]
