"""Traces in OpenTelemetry's terms: attempts as spans of its GenAI conventions, sent to any OTLP collector over HTTP.

Off unless an endpoint is named (`--otlp URL`, or OTEL_EXPORTER_OTLP_ENDPOINT) and the extra `otel` is installed. A span
is `chat {model}`, with `gen_ai.*` attributes and our own under `verbal.*`; an attempt of several model calls has an
`invoke_agent` span around them. Feedback is the event `gen_ai.evaluation.result`: on the span of what was judged where
that is sent later, else on a span of its own below it. Ids are made from the attempt's id, so the two find each other.

Prompts and replies are left out unless OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says so; secrets are cut out
of them in any case. `spans_of` needs no package; what sends is imported when it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from verbal.errors import ConfigError, MissingExtra, UnknownName
from verbal.store import Store
from verbal.types import Attempt, Feedback, Message, Step, ToolCall

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Environment variable that names a collector."""
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""Environment variable that lets prompts and replies be sent."""
META = "exchange"
"""Key of the step in which a gateway keeps what it knows of an attempt (times, route, project)."""
EVALUATION = "gen_ai.evaluation.result"
"""Name of the event that feedback is."""
_QUEUE, _BATCH = 2048, 256
_PATIENCE = 5.0
"""Seconds that a collector has for a batch."""
_log = logging.getLogger("verbal.telemetry")


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
    trace: int = field(init=False)

    def __post_init__(self) -> None:
        self.trace = _number("trace", self.parent or self.attempt, 16)

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
    span: dict[str, Any] = {"trace": ids.trace, "start": start, "end": start + seconds, "error": _error(attempt)}
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


def export_spans(store: Store, run: str, endpoint: str) -> int:
    """Sends a run's attempts to a collector; gives how many spans it took.

    Raises:
        UnknownName: no such run. MissingExtra: the extra `otel` is not installed.
        ConfigError: the endpoint is no address, or the collector does not take them.
    """
    exporter: Any = _exporter(endpoint)
    batch, sent = list[Any](), 0
    try:
        resource = _resource()
        for span in spans_of(store, run, content=wants_content()):
            batch.append(_readable(span, resource))
            if len(batch) == _BATCH:
                sent, batch = sent + _sent(exporter, batch, endpoint), []
        return sent + (_sent(exporter, batch, endpoint) if batch else 0)
    finally:
        exporter.shutdown()


def wants_content() -> bool:
    """Whether the environment lets prompts and replies be sent."""
    return os.environ.get(CONTENT, "").strip().lower() in ("true", "1", "yes", "span_only", "span_and_event")


class Telemetry:
    """Sends spans in the background, in batches; what a collector does not take is counted and nobody waits.

    Args:
        endpoint: Address of the collector, such as `http://localhost:4318`.
        content: Whether prompts and replies go along; as the environment says when None.

    Raises:
        MissingExtra: the extra `otel` is not installed. ConfigError: the endpoint is no address.
    """

    def __init__(self, endpoint: str, *, content: bool | None = None) -> None:
        self._exporter = _Told(_exporter(endpoint), endpoint)
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._content = wants_content() if content is None else content
        self._resource, told = _resource(), cast("Any", self._exporter)
        self._processor: Any = BatchSpanProcessor(told, max_queue_size=_QUEUE, max_export_batch_size=_BATCH)

    def attempt(self, attempt: Attempt, meta: Mapping[str, Any]) -> None:
        """Takes an attempt that ended."""
        for span in attempt_spans(attempt, meta, content=self._content):
            self._processor.on_end(_readable(span, self._resource))

    def feedback(self, attempt: Attempt, feedback: Feedback, label: str, meta: Mapping[str, Any]) -> None:
        """Takes what was said of an attempt, as a span below its own."""
        now, ids = time.time(), _Ids(attempt.id)
        event = (EVALUATION, now, evaluation(feedback, label))
        attributes = {"gen_ai.operation.name": "evaluate", "gen_ai.response.id": attempt.id, **_own(attempt, meta)}
        span = Span(
            name=f"evaluate {feedback.critic}", trace=ids.trace, id=_number("span", f"{attempt.id}{now}", 8),
            parent=ids.span(), start=now, end=now, attributes=attributes, events=(event,), client=False,
        )  # fmt: skip
        self._processor.on_end(_readable(span, self._resource))

    def health(self) -> dict[str, int]:
        """Counts, for `/health`."""
        return {"sent": self._exporter.sent, "refused": self._exporter.refused}

    def close(self) -> None:
        """Sends what waits, for some seconds at most."""
        self._exporter.ending = True
        self._processor.shutdown()


def open_telemetry(endpoint: str = "") -> Telemetry | None:
    """What sends to an endpoint, or to the one of the environment; None where neither is named.

    Raises:
        MissingExtra: the extra `otel` is not installed. ConfigError: the endpoint is no address.
    """
    found = endpoint or os.environ.get(ENDPOINT, "")
    return Telemetry(found) if found else None


class _Told:
    """An exporter that tells a failure once and counts."""

    def __init__(self, exporter: Any, endpoint: str) -> None:
        self._exporter, self._endpoint, self._failed, self.ending = exporter, endpoint, False, False
        self.sent = self.refused = 0

    def export(self, spans: Sequence[Any]) -> Any:
        if self.ending and self._failed:  # who wants to end does not wait for a collector that is away
            from opentelemetry.sdk.trace.export import SpanExportResult

            self.refused += len(spans)
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        taken = result.name == "SUCCESS"
        self.sent, self.refused = self.sent + len(spans) * taken, self.refused + len(spans) * (not taken)
        if not taken and not self._failed:
            _log.error("telemetry: the collector at %s takes no spans; they are dropped", _place(self._endpoint))
        self._failed = not taken
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _exporter(endpoint: str) -> Any:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        todo = "give an address such as http://localhost:4318"
        raise ConfigError(f"the collector {endpoint[:200]!r} is no address", where=f"--otlp or {ENDPOINT}", todo=todo)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise MissingExtra.of("opentelemetry-exporter-otlp-proto-http", "otel") from None
    # Its own messages repeat every few seconds while a collector is away; `_Told` tells the first.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    path = endpoint.rstrip("/")
    return OTLPSpanExporter(path if path.endswith("/v1/traces") else f"{path}/v1/traces", timeout=_PATIENCE)


def _sent(exporter: Any, batch: Sequence[Any], endpoint: str) -> int:
    if exporter.export(batch).name != "SUCCESS":
        todo = "check that a collector listens there for OTLP over HTTP (port 4318 by custom)"
        raise ConfigError(f"the collector at {_place(endpoint)} takes no spans", where="OTLP", todo=todo)
    return len(batch)


def _place(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _resource() -> Any:
    from opentelemetry.sdk.resources import Resource

    from verbal import __version__

    return Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "verbal"),
                            "service.version": __version__})  # fmt: skip


def _readable(span: Span, resource: Any) -> Any:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(id: int) -> SpanContext:
        return SpanContext(span.trace, id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    return ReadableSpan(
        name=span.name, context=context(span.id), parent=context(span.parent) if span.parent else None,
        resource=resource, attributes=span.attributes, kind=SpanKind.CLIENT if span.client else SpanKind.INTERNAL,
        events=[Event(name, attributes, int(at * 1e9)) for name, at, attributes in span.events],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=int(span.start * 1e9), end_time=int(span.end * 1e9),
        instrumentation_scope=InstrumentationScope("verbal"),
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

    rules = [{"type": "text", "content": redact(m.content)} for m in step.prompt if m.role == "system"]
    asked = [{"role": m.role, "parts": _parts(m, redact)} for m in step.prompt if m.role != "system"]
    reply = Message(role="assistant", content=step.text, tool_calls=step.tool_calls)
    said = [{"role": "assistant", "parts": _parts(reply, redact), "finish_reason": meta.get("finish") or "stop"}]
    found = {"gen_ai.input.messages": asked, "gen_ai.output.messages": said}
    found |= {"gen_ai.system_instructions": rules} if rules else {}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in found.items()}


def _parts(message: Message, clean: Any) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": clean(message.content)}]
    text = [{"type": "text", "content": clean(message.content)}] if message.content else []
    return [*text, *(_call(c, clean) for c in message.tool_calls)]


def _call(call: ToolCall, clean: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": clean(call.arguments)}


def _error(attempt: Attempt) -> str:
    return (attempt.error or "")[:500]


def _number(kind: str, name: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{kind}\x1f{name}".encode()).digest()[:size], "big") or 1


__all__ = [
    "CONTENT", "ENDPOINT", "EVALUATION", "META", "Span", "Telemetry", "attempt_spans", "evaluation", "export_spans",
    "open_telemetry", "spans_of", "wants_content",
]  # fmt: skip
