"""Attempts as spans in the terms of OpenTelemetry's GenAI conventions. Values only: `verbal/telemetry.py` sends them.

A span is `chat {model}`, with `gen_ai.*` attributes and our own under `verbal.*`; an attempt of several model calls
has an `invoke_agent` span around them. Feedback is the event `gen_ai.evaluation.result`. Ids are made from that of the
attempt, so a span and what is said of it later find each other. Secrets are cut out of prompts and replies.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verbal.errors import UnknownName
from verbal.store import Store
from verbal.types import Attempt, Feedback, Message, Step

META = "exchange"
"""Key of the step in which a gateway keeps what it knows of an attempt (times, route, project)."""
EVALUATION = "gen_ai.evaluation.result"
"""Name of the event that feedback is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span before it is one of OpenTelemetry's."""

    name: str
    trace: int
    id: int
    parent: int = 0
    start: float
    """Seconds since 1970."""
    end: float
    attributes: dict[str, Any]
    events: tuple[tuple[str, float, dict[str, Any]], ...] = ()
    error: str = ""
    client: bool = True
    """Whether it is a call to a model; else something within."""


@dataclass(slots=True)
class _Ids:
    """Ids from names: equal on every machine."""

    attempt: str
    parent: str = ""
    """The attempt that it stands beside."""

    @property
    def trace(self) -> int:
        """Of all that stands together."""
        return _number("trace", self.parent or self.attempt, 16)

    def span(self, part: str = "") -> int:
        """Of the span of a part of the attempt; of the attempt itself when there is none."""
        return _number("span", f"{self.attempt}\x1f{part}", 8)

    @property
    def above(self) -> int:
        """Of the span of the attempt that it stands beside, 0 for none."""
        return _Ids(self.parent).span() if self.parent else 0


def attempt_spans(
    attempt: Attempt,
    meta: Mapping[str, Any] | None = None,
    *,
    feedback: Sequence[Feedback] = (),
    content: bool = False,
    began: float = 0.0,
    agent: str = "",
) -> list[Span]:
    """The spans of an attempt: one for one call to a model, else one for each below that of the agent.

    Args:
        attempt: The attempt, without secrets.
        meta: What a gateway knows of it.
        feedback: What was said of it, which becomes events.
        content: Whether prompts and replies go along.
        began: When it began, where `meta` does not say.
        agent: Name of what made it, for one of several calls.
    """
    meta = meta or {}
    start = float(meta.get("began") or began)
    seconds = float(meta.get("seconds") or attempt.usage.seconds)
    ids = _Ids(attempt.id, attempt.parent or "" if attempt.arm == "shadow" else "")
    said = [s for s in attempt.steps if s.author == "policy"]
    common = _own(attempt, meta)
    if not meta.get("began"):
        common["verbal.times"] = "estimated"  # a run keeps how long its attempts took, not when they began
    events = tuple((EVALUATION, start + seconds, evaluation(f)) for f in feedback)
    span: dict[str, Any] = {
        "trace": ids.trace,
        "start": start,
        "end": start + seconds,
        "error": (attempt.error or "")[:500],
    }
    if len(said) == 1 or meta:
        attributes = _chat(attempt, meta) | common | _content(said[0] if said else None, meta, content)
        name = f"chat {attributes['gen_ai.request.model']}"
        return [Span(name=name, id=ids.span(), parent=ids.above, attributes=attributes, events=events, **span)]
    named = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent or "verbal"}
    whole = named | common | _usage(attempt)
    found = [Span(name=f"invoke_agent {agent or 'verbal'}", id=ids.span(), parent=ids.above, attributes=whole,
                  events=events, client=False, **span)]  # fmt: skip
    part = seconds / max(len(said), 1)
    for i, step in enumerate(said):
        attributes = _chat(attempt, {}, usage=False) | _content(step, {}, content)
        found.append(
            Span(name=f"chat {attributes['gen_ai.request.model']}", trace=ids.trace, id=ids.span(str(i)),
                 parent=ids.span(), start=start + i * part, end=start + (i + 1) * part, attributes=attributes)
        )  # fmt: skip
    return found


def evaluation(feedback: Feedback, label: str = "") -> dict[str, Any]:
    """The attributes of the event that feedback is."""
    found: dict[str, Any] = {"gen_ai.evaluation.name": feedback.critic, "gen_ai.response.id": feedback.attempt}
    if feedback.value is not None:
        found["gen_ai.evaluation.score.value"] = feedback.value
    if label:
        found["gen_ai.evaluation.score.label"] = label
    if feedback.text:
        found["gen_ai.evaluation.explanation"] = feedback.text
    return {**found, "verbal.source": feedback.source, "verbal.oracle": feedback.oracle}


def evaluation_span(attempt: Attempt, feedback: Feedback, label: str, meta: Mapping[str, Any]) -> Span:
    """What was said of an attempt whose own span is gone: a span below it that carries the event."""
    now, ids = time.time(), _Ids(attempt.id)
    attributes = {"gen_ai.operation.name": "evaluate", "gen_ai.response.id": attempt.id, **_own(attempt, meta)}
    return Span(
        name=f"evaluate {feedback.critic}", trace=ids.trace, id=_number("span", f"{attempt.id}{now}", 8),
        parent=ids.span(), start=now, end=now, attributes=attributes, client=False,
        events=((EVALUATION, now, evaluation(feedback, label)),),
    )  # fmt: skip


def spans_of(store: Store, run: str, *, content: bool = False) -> Iterator[Span]:
    """The spans of a run's attempts, with feedback as events, in the order they were kept.

    Raises:
        UnknownName: no such run.
    """
    known = store.run(run)
    if known is None:
        raise UnknownName.of("run", run, [r["id"] for r in store.runs()], where=store.where)
    agent = str(known["recipe"].get("name") or "verbal")
    for number, attempt in enumerate(store.attempts(run)):
        step = store.step(attempt.id, META)
        yield from attempt_spans(
            attempt, json.loads(step.text) if step is not None else None, agent=agent, content=content,
            feedback=store.feedback([attempt.id])[attempt.id], began=float(known["started"]) + number * 1e-3,
        )  # fmt: skip


def _chat(attempt: Attempt, meta: Mapping[str, Any], *, usage: bool = True) -> dict[str, Any]:
    provider, _, model = attempt.model.partition("/")
    found: dict[str, Any] = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": provider or "verbal",
        "gen_ai.request.model": meta.get("asked") or model or provider, "gen_ai.response.model": model or provider,
    }  # fmt: skip
    named = ("temperature", "top_p", "max_tokens", "stream")
    found |= {f"gen_ai.request.{k}": meta[k] for k in named if meta.get(k) is not None}
    found |= {"gen_ai.request.seed": attempt.seed} if attempt.seed is not None else {}
    found |= {"gen_ai.response.id": attempt.id} if meta else {}
    found |= {"gen_ai.response.finish_reasons": [meta["finish"]]} if meta.get("finish") else {}
    found |= {"gen_ai.response.time_to_first_chunk": meta["first"]} if meta.get("first") is not None else {}
    found |= {"error.type": str(meta.get("status") or attempt.stop)} if attempt.error else {}
    return found | (_usage(attempt) if usage else {})


def _usage(attempt: Attempt) -> dict[str, Any]:
    used = attempt.usage
    found = {"gen_ai.usage.input_tokens": used.prompt_tokens, "gen_ai.usage.output_tokens": used.completion_tokens}
    return {**found, **({"verbal.cost": used.cost} if used.cost is not None else {})}


def _own(attempt: Attempt, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Our own attributes."""
    shown = list(dict.fromkeys(i for step in attempt.steps for i in step.shown))
    offered = list(dict.fromkeys(i for step in attempt.steps for i in step.offered))
    found: dict[str, Any] = {
        "verbal.run": attempt.run, "verbal.attempt": attempt.id, "verbal.task": attempt.task, "verbal.arm": attempt.arm,
        "verbal.round": attempt.round, "verbal.sample": attempt.sample, "verbal.stop": str(attempt.stop),
    }  # fmt: skip
    found |= {f"verbal.{k}": meta[k] for k in ("project", "route", "key", "memory", "protocol") if meta.get(k)}
    found |= {"verbal.version": meta["version"]} if meta.get("version") else {}
    found |= {"verbal.reflections.shown": shown} if shown else {}
    return found | ({"verbal.reflections.offered": offered} if offered else {})


def _content(step: Step | None, meta: Mapping[str, Any], wanted: bool) -> dict[str, Any]:
    if step is None or not wanted:
        return {}
    from verbal.models import redact

    rules = [_text(m.content, redact) for m in step.prompt if m.role == "system"]
    asked = [{"role": m.role, "parts": _parts(m, redact)} for m in step.prompt if m.role != "system"]
    reply = Message(role="assistant", content=step.text, tool_calls=step.tool_calls)
    said = [{"role": "assistant", "parts": _parts(reply, redact), "finish_reason": meta.get("finish") or "stop"}]
    found = {"gen_ai.input.messages": asked, "gen_ai.output.messages": said}
    found |= {"gen_ai.system_instructions": rules} if rules else {}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in found.items()}


def _parts(message: Message, clean: Any) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": clean(message.content)}]
    text = [_text(message.content, clean)] if message.content else []
    calls = [{"type": "tool_call", "id": c.id, "name": c.name, "arguments": clean(c.arguments)}
             for c in message.tool_calls]  # fmt: skip
    return [*text, *calls]


def _text(text: str, clean: Any) -> dict[str, Any]:
    return {"type": "text", "content": clean(text)}


def _number(kind: str, name: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{kind}\x1f{name}".encode("utf-8", "replace")).digest()[:size], "big") or 1


__all__ = ["EVALUATION", "META", "Span", "attempt_spans", "evaluation", "evaluation_span", "spans_of"]
