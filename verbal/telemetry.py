"""Traces for OpenTelemetry: the spans of `verbal/spans.py`, sent to any OTLP collector over HTTP.

Off unless an endpoint is named (`--otlp URL`, or OTEL_EXPORTER_OTLP_ENDPOINT) and the extra `otel` is installed.
Prompts and replies are left out unless OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says so. What sends is
imported when it is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from verbal.errors import ConfigError, MissingExtra
from verbal.spans import Span, attempt_spans, evaluation_span, spans_of
from verbal.store import Store
from verbal.types import Attempt, Feedback

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Environment variable that names a collector."""
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""Environment variable that lets prompts and replies be sent."""
_QUEUE, _BATCH = 2048, 256
_PATIENCE = 5.0
"""Seconds that a collector has for a batch."""
_log = logging.getLogger("verbal.telemetry")


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
        span = evaluation_span(attempt, feedback, label, meta)
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
    parts, todo = urlsplit(endpoint), "give an address such as http://localhost:4318"
    if parts.scheme not in ("http", "https") or not parts.hostname:
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
        name=_sendable(span.name), context=context(span.id), parent=context(span.parent) if span.parent else None,
        kind=SpanKind.CLIENT if span.client else SpanKind.INTERNAL, resource=resource,
        attributes=_sendable(span.attributes),
        events=[Event(name, _sendable(attributes), int(at * 1e9)) for name, at, attributes in span.events],
        status=Status(StatusCode.ERROR, _sendable(span.error)) if span.error else Status(StatusCode.UNSET),
        start_time=int(span.start * 1e9), end_time=int(span.end * 1e9),
        instrumentation_scope=InstrumentationScope("verbal"),
    )  # fmt: skip


def _sendable(value: Any) -> Any:
    """A value whose texts have a UTF-8 form: half a surrogate pair would keep a whole batch from being sent."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_sendable(v) for v in value]
    return {k: _sendable(v) for k, v in value.items()} if isinstance(value, dict) else value


__all__ = ["CONTENT", "ENDPOINT", "Telemetry", "export_spans", "open_telemetry", "spans_of", "wants_content"]
