"""Spans of the GenAI conventions, as a collector on loopback receives them; a collector that is away breaks nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from gateway_world import sdk, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from verbal.apps.gateway.opened import opened
from verbal.errors import ConfigError, MissingExtra, UnknownName
from verbal.spans import attempt_spans, spans_of
from verbal.store import Store
from verbal.telemetry import CONTENT, ENDPOINT, Telemetry, export_spans, open_telemetry
from verbal.types import Attempt, Feedback, Message, Step, StopReason, Usage

ASK = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "colours? sk-proj-4fQz81LmXw02PqRt77Yb"}]
META = {
    "asked": "support", "route": "support", "project": "shop", "began": 1000.0, "seconds": 2.0, "first": 0.5,
    "finish": "stop", "temperature": 0.2, "stream": True, "memory": "m", "version": 3, "status": 200,
}  # fmt: skip


class Collector:
    """What was received, as plain values."""

    def __init__(self):
        self.spans, self.status, self.url = [], 200, ""

    async def take(self, request):
        assert request.path == "/v1/traces" and request.content_type == "application/x-protobuf"
        received = ExportTraceServiceRequest.FromString(await request.read())
        for resource in received.resource_spans:
            for scope in resource.scope_spans:
                named = _plain(resource.resource.attributes)
                self.spans += [(span, _plain(span.attributes), named) for span in scope.spans]
        return web.Response(status=self.status, content_type="application/x-protobuf")


def _plain(attributes):
    def value(found):
        kind = found.WhichOneof("value")
        return [value(v) for v in found.array_value.values] if kind == "array_value" else getattr(found, kind)

    return {a.key: value(a.value) for a in attributes}


@asynccontextmanager
async def collecting():
    collector = Collector()
    app = web.Application()
    app.router.add_post("/{path:.*}", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.delenv(ENDPOINT, raising=False)
    monkeypatch.delenv(CONTENT, raising=False)
    logger = logging.getLogger("opentelemetry")
    before = logger.level
    yield
    logger.setLevel(before)


def attempt(**fields):
    step = Step(author="policy", text="red", prompt=(Message(role="user", content="colours?"),), shown=("r1",),
                offered={"r1": 0.9, "r2": 0.5})  # fmt: skip
    usage = Usage(calls=1, prompt_tokens=7, completion_tokens=2, cost=0.5, seconds=4.0)
    given = {"id": "chatcmpl-1", "run": "gateway-shop", "task": "t", "model": "openai/gpt", "steps": (step,), **fields}
    return Attempt(usage=usage, **given)


# spans --------------------------------------------------------------------------------------------------------------


def test_an_exchange_is_one_span_of_the_conventions():
    (span,) = attempt_spans(attempt(seed=7), META, feedback=[Feedback(attempt="chatcmpl-1", critic="user", value=1.0)])
    assert span.name == "chat support" and (span.start, span.end, span.client) == (1000.0, 1002.0, True)
    named = {k.removeprefix("gen_ai."): v for k, v in span.attributes.items() if k.startswith("gen_ai.")}
    assert named == {
        "operation.name": "chat", "provider.name": "openai", "request.model": "support", "response.model": "gpt",
        "request.temperature": 0.2, "request.stream": True, "request.seed": 7, "response.id": "chatcmpl-1",
        "response.finish_reasons": ["stop"], "response.time_to_first_chunk": 0.5, "usage.input_tokens": 7,
        "usage.output_tokens": 2,
    }  # fmt: skip
    own = {k.removeprefix("verbal."): v for k, v in span.attributes.items() if k.startswith("verbal.")}
    assert own["reflections.shown"] == ["r1"] and own["reflections.offered"] == ["r1", "r2"]
    assert (own["project"], own["route"], own["memory"], own["version"], own["cost"]) == (
        "shop",
        "support",
        "m",
        3,
        0.5,
    )
    ((name, at, event),) = span.events
    assert (name, at, event["gen_ai.evaluation.score.value"]) == ("gen_ai.evaluation.result", 1002.0, 1.0)


def test_a_shadow_stands_below_what_it_shadows_and_a_failure_is_an_error():
    (main,) = attempt_spans(attempt(), META)
    beside = attempt(id="chatcmpl-1:shadow", arm="shadow", parent="chatcmpl-1", error="no", stop=StopReason.ERROR)
    (span,) = attempt_spans(beside, {**META, "status": 502})
    assert (span.trace, span.parent) == (main.trace, main.id) and span.id != main.id
    assert span.error == "no" and span.attributes["error.type"] == "502" and main.error == ""


def test_an_attempt_of_several_calls_has_the_agents_span_around_them():
    steps = tuple(Step(author=a, text="x") for a in ("policy", "tool", "policy"))
    whole, first, second = attempt_spans(attempt(steps=steps), began=100.0, agent="reflect")
    assert whole.name == "invoke_agent reflect" and {first.parent, second.parent} == {whole.id}
    assert (first.start, first.end, second.end, whole.end) == (100.0, 102.0, 104.0, 104.0)
    assert whole.attributes["gen_ai.usage.input_tokens"] == 7 and "gen_ai.usage.input_tokens" not in first.attributes
    assert whole.attributes["verbal.times"] == "estimated"


@pytest.mark.parametrize("wanted", [False, True])
def test_prompts_and_replies_go_along_only_when_asked_for_and_without_secrets(wanted):
    step = Step(author="policy", text="see Bearer abcdefgh12345678", prompt=tuple(Message(**m) for m in ASK))
    (span,) = attempt_spans(attempt(steps=(step,)), META, content=wanted)
    told = json.dumps(span.attributes)
    assert "abcdefgh12345678" not in told and "4fQz81LmXw02" not in told
    assert ("gen_ai.input.messages" in span.attributes) is wanted and ("colours?" in told) is wanted
    if wanted:
        assert json.loads(span.attributes["gen_ai.system_instructions"]) == [{"type": "text", "content": "be kind"}]
        (said,) = json.loads(span.attributes["gen_ai.output.messages"])
        assert said["role"] == "assistant" and said["finish_reason"] == "stop"


# sent ---------------------------------------------------------------------------------------------------------------


async def test_what_passes_a_gateway_and_its_feedback_reach_a_collector(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"reply": "red"}')
    async with collecting() as collector:
        async with (
            opened(f"scripted:{tmp_path}/m.jsonl", tmp_path / "v.db", open=True, otlp=collector.url) as it,
            it.gateway as gateway,
            sdk(gateway) as client,
        ):
            made = await client.chat.completions.create(model="scripted/m", messages=ASK)
            body = {"id": made.id, "score": 0.5, "label": "so-so", "text": "short"}
            await client.post("/feedback", body=body, cast_to=object)
            assert set(it.capture.health()["telemetry"]) == {"sent", "refused"}
        assert it.telemetry.health() == {"sent": 2, "refused": 0}
    (chat, attributes, resource), (said, _, _) = sorted(collector.spans, key=lambda row: row[0].name)
    assert chat.name == "chat scripted/m" and resource["service.name"] == "verbal"
    assert attributes["gen_ai.response.id"] == made.id and "gen_ai.input.messages" not in attributes
    assert attributes["verbal.project"] == "local" and chat.kind == chat.SPAN_KIND_CLIENT
    assert said.name == "evaluate user" and said.parent_span_id == chat.span_id and said.trace_id == chat.trace_id
    (event,) = said.events
    assert event.name == "gen_ai.evaluation.result" and _plain(event.attributes) == {
        "gen_ai.evaluation.name": "user", "gen_ai.response.id": made.id, "gen_ai.evaluation.score.value": 0.5,
        "gen_ai.evaluation.score.label": "so-so", "gen_ai.evaluation.explanation": "so-so: short",
        "verbal.source": "user", "verbal.oracle": False,
    }  # fmt: skip
    async with collecting() as collector:
        with Store(tmp_path / "v.db") as store:
            assert await asyncio.to_thread(export_spans, store, "gateway-local", f"{collector.url}/v1/traces") == 1
    assert collector.spans[0][0].span_id == chat.span_id and len(collector.spans[0][0].events) == 1


async def test_a_collector_that_refuses_or_is_away_is_told_once_and_breaks_nothing(caplog, tmp_path):
    async with collecting() as collector:
        collector.status = 400
        telemetry = Telemetry(collector.url)
        telemetry.attempt(attempt(), META)
        await asyncio.to_thread(telemetry.close)
        assert telemetry.health() == {"sent": 0, "refused": 1}
        with store_with(tmp_path, attempt()) as store, pytest.raises(ConfigError, match="takes no spans"):
            await asyncio.to_thread(export_spans, store, "gateway-shop", collector.url)
    assert sum("takes no spans" in r.message for r in caplog.records) == 1


def store_with(folder, *attempts):
    store = Store(folder / "v.db")
    store.start_run("gateway-shop", {"name": "gateway"})
    for one in attempts:
        store.put_attempt(one)
    return store


def test_spans_are_off_unless_an_endpoint_is_named(monkeypatch):
    assert open_telemetry() is None
    monkeypatch.setenv(ENDPOINT, "collector:4318")
    with pytest.raises(ConfigError, match="is no address"):
        open_telemetry()
    with pytest.raises(ConfigError, match="is no address"):
        open_telemetry("file:///etc/passwd")


def test_the_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtra, match=r"verbal\[otel\]"):
        open_telemetry("http://127.0.0.1:4318")


def test_a_run_that_is_not_there_has_no_spans(tmp_path):
    with store_with(tmp_path) as store:
        assert list(spans_of(store, "gateway-shop")) == []
        with pytest.raises(UnknownName):
            list(spans_of(store, "none"))


async def test_spans_wait_in_batches():
    async with collecting() as collector:
        telemetry = Telemetry(collector.url, content=True)
        for i in range(299):
            telemetry.attempt(attempt(id=f"chatcmpl-{i}"), META)
        half = "half a pair \ud83d"
        telemetry.attempt(attempt(id=half, error=half, model=half, task=half), {**META, "asked": half})
        await asyncio.to_thread(telemetry.close)
        await until(lambda: len(collector.spans) == 300)
    assert len({span.span_id for span, *_ in collector.spans}) == 300
    assert "colours?" in collector.spans[0][1]["gen_ai.input.messages"]
