"""One model is exchanged for another under load: no request fails, each answer is of exactly one checkpoint."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from pathlib import Path

import aiohttp
import numpy as np
import openai
import pytest
from aiohttp import web
from gateway_upstream import Provider
from gateway_world import PROBE, make_checkpoint, perturb, promote, until

from verbal.apps.gateway.served import find_source
from verbal.apps.gateway.server import Gateway
from verbal.contracts import Sampling
from verbal.errors import ConfigError, DataError, StoreError, TrainError
from verbal.models import open_model
from verbal.models.embedded.model import SHIPPED
from verbal.parts import load_function, make_part
from verbal.store import Store
from verbal.types import MemoryOp, Message, Reflection
from verbal.versions import rollback

MESSAGES = [{"role": "user", "content": PROBE}]
SCALE = {"one": 1.02, "two": 0.97}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "v.db") as made:
        for name, scale in SCALE.items():
            make_checkpoint(made, name, tmp_path / name, scale)
        yield made


@pytest.fixture
async def gateway(store):
    promote(store, "checkpoint:one")
    # Tests look by themselves, so that nothing depends on a clock.
    async with Gateway("promoted", store, every=3600) as made:
        yield made


async def expected(store: Store, name: str) -> tuple[float, ...]:
    """What a checkpoint's log-probabilities of the answer are, without a server."""
    model = open_model(find_source(f"checkpoint:{name}", store).opens)
    asked = [Message(role="user", content=PROBE)]
    (reply,) = await model.generate(asked, 1, Sampling(temperature=0.0, logprobs=True))
    return tuple(reply.logprobs)


async def ask(gateway: Gateway) -> dict:
    body = {"model": "promoted", "messages": MESSAGES, "temperature": 0, "logprobs": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.url}/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return {**await answer.json(), "version": answer.headers["x-verbal-version"]}


async def health(gateway: Gateway) -> dict:
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/health") as answer:
        return await answer.json()


async def test_swap_under_load_fails_nobody_and_mixes_nothing(store):
    want = {f"checkpoint:{name}": await expected(store, name) for name in SCALE}
    assert max(abs(a - b) for a, b in zip(*want.values(), strict=True)) > 1e-3, "the two can be told apart"
    promote(store, "checkpoint:one")
    answers, failed, stop = [], [], asyncio.Event()
    async with Gateway("promoted", store, every=0.01) as gateway:

        async def whole(client):
            made = await client.chat.completions.with_raw_response.create(
                model="promoted", messages=MESSAGES, temperature=0, logprobs=True
            )
            body = made.parse()
            shown = [t.logprob for t in body.choices[0].logprobs.content]
            answers.append((body.model, body.system_fingerprint, int(made.headers["x-verbal-version"]), shown))

        async def streamed(client):
            stream = await client.chat.completions.create(
                model="promoted", messages=MESSAGES, temperature=0, logprobs=True, stream=True
            )
            chunks = [c async for c in stream]
            assert len({(c.model, c.system_fingerprint) for c in chunks}) == 1
            shown = [t.logprob for t in chunks[-1].choices[0].logprobs.content]
            answers.append((chunks[0].model, chunks[0].system_fingerprint, None, shown))

        async def client_of(number):
            async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
                while not stop.is_set():
                    try:
                        await (streamed if number % 3 == 2 else whole)(client)
                    except Exception as error:
                        failed.append(repr(error))

        async def more(number):
            enough = len(answers) + number
            await until(lambda: len(answers) > enough)

        clients = [asyncio.create_task(client_of(n)) for n in range(6)]
        known = {1: "embedded/pocket", 2: "checkpoint:one"}
        for move in range(4):
            if move % 2 == 0:
                known[await asyncio.to_thread(promote, store, "checkpoint:two")] = "checkpoint:two"
            else:
                known[(await asyncio.to_thread(rollback, store))["number"]] = "checkpoint:one"
            await until(lambda: gateway.switch.current.source.version == max(known))
            await more(6)
        stop.set()
        await asyncio.gather(*clients)
        await until(lambda: not gateway.switch.retiring)
        state = await health(gateway)
    assert failed == []
    assert state["swaps"] == 4 and state["failure"] is None and state["answered"] == len(answers)
    assert len(answers) > 24 and {a[0] for a in answers} == set(want)
    assert len({(model, print_) for model, print_, _, _ in answers}) == 2
    for model, _, version, shown in answers:
        assert shown == pytest.approx(want[model], abs=1e-5)
        assert version is None or known[version] == model


async def test_a_request_under_way_ends_on_the_old_model_which_is_closed_afterwards(store, gateway, monkeypatch):
    old = gateway.switch.current
    begun, go = asyncio.Event(), asyncio.Event()
    generate = old.model.generate

    async def held(messages, n, sampling):
        begun.set()
        await go.wait()
        assert old.model._decoder is not None, "closed while it was in use"
        return await generate(messages, n, sampling)

    monkeypatch.setattr(old.model, "generate", held)
    first = asyncio.create_task(ask(gateway))
    await begun.wait()
    promote(store, "checkpoint:two")
    assert await gateway.switch.look()
    assert (await ask(gateway))["model"] == "checkpoint:two"
    state = await health(gateway)
    assert (state["model"], state["version"], state["retiring"], state["under_way"]) == ("checkpoint:two", 3, 1, 1)
    go.set()
    answered = await first
    assert (answered["model"], answered["version"]) == ("checkpoint:one", "2")
    await until(lambda: not gateway.switch.retiring)
    assert old.model._decoder is None


async def test_the_old_model_answers_while_the_new_one_is_loaded(store, gateway, monkeypatch):
    started, go = asyncio.Event(), asyncio.Event()

    class Waits(type(gateway.switch.current.model)):
        async def check(self):
            started.set()
            await go.wait()
            return await super().check()

    monkeypatch.setattr("verbal.apps.gateway.served.open_model", lambda spec: Waits(spec.removeprefix("embedded:")))
    promote(store, "checkpoint:two")
    looking = asyncio.create_task(gateway.switch.look())
    await started.wait()
    assert (await ask(gateway))["model"] == "checkpoint:one" and (await health(gateway))["loading"]
    go.set()
    assert await looking
    assert (await ask(gateway))["model"] == "checkpoint:two" and not (await health(gateway))["loading"]


def spoil(folder: Path) -> None:
    perturb(folder, 1.5)


def vanish(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(("harm", "said"), [(spoil, "not what was adopted"), (vanish, "not what was adopted")])
async def test_a_new_model_that_is_not_the_trained_one_is_refused_and_the_old_one_stays(
    store, gateway, tmp_path, caplog, harm, said
):
    kept = shutil.copytree(tmp_path / "two", tmp_path / "kept")
    promote(store, "checkpoint:two")
    harm(tmp_path / "two")
    assert not await gateway.switch.look()
    assert (await ask(gateway))["model"] == "checkpoint:one"
    state = await health(gateway)
    assert state["status"] == "degraded" and state["failure"]["version"] == 3 and said in state["failure"]["what"]
    assert "roll back" in state["failure"]["todo"]
    assert not await gateway.switch.look() and caplog.text.count("version 3 cannot serve") == 1
    # The files come back: after a while it is tried again.
    shutil.rmtree(tmp_path / "two", ignore_errors=True)
    shutil.move(kept, tmp_path / "two")
    assert not await gateway.switch.look()
    gateway.switch._clock = lambda: 1e12
    assert await gateway.switch.look()
    assert (await health(gateway))["status"] == "ok" and (await ask(gateway))["version"] == "3"


async def test_after_a_failure_a_rollback_is_followed_at_once(store, gateway, tmp_path):
    promote(store, "checkpoint:two")
    vanish(tmp_path / "two")
    assert not await gateway.switch.look() and gateway.switch.failure
    rollback(store)
    model = gateway.switch.current.model
    assert not await gateway.switch.look() and gateway.switch.failure is None
    assert gateway.switch.current.model is model and (await ask(gateway))["version"] == "4"


async def test_weights_that_are_no_numbers_or_cannot_be_read_are_refused(store, gateway, tmp_path):
    for name, harm in (
        ("nan", lambda f: perturb(f, float("nan"))),
        ("cut", lambda f: (f / "model.safetensors").write_bytes(b"short")),
    ):
        folder = shutil.copytree(SHIPPED, tmp_path / name)
        harm(folder)
        write, register = (load_function("trainers", "checkpoint", n) for n in ("write", "register"))
        write(folder, {"kind": "embedded"})
        register(store, name, folder)
        promote(store, f"checkpoint:{name}")
        with np.errstate(all="ignore"):
            assert not await gateway.switch.look()
        assert (await ask(gateway))["model"] == "checkpoint:one"
        assert (await health(gateway))["failure"]["version"] == store.newest_version()


async def test_files_that_change_while_they_are_read_are_refused(store, gateway, tmp_path, monkeypatch):
    class Changes(type(gateway.switch.current.model)):
        async def check(self):
            said = await super().check()
            spoil(tmp_path / "two")
            return said

    monkeypatch.setattr("verbal.apps.gateway.served.open_model", lambda spec: Changes(spec.removeprefix("embedded:")))
    promote(store, "checkpoint:two")
    assert not await gateway.switch.look()
    assert "not the ones that were trained" in gateway.switch.failure["what"]


async def test_a_store_that_cannot_be_read_for_a_while_stops_nothing(store, gateway, monkeypatch, caplog):
    def broken():
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(store, "newest_version", broken)
        for _ in range(3):
            assert not await gateway.switch.look()
    assert caplog.text.count("the disk is gone") == 1
    assert (await health(gateway))["failure"]["version"] is None and (await ask(gateway))["model"] == "checkpoint:one"
    promote(store, "checkpoint:two")
    assert await gateway.switch.look() and (await health(gateway))["failure"] is None


async def test_an_adopted_memory_is_not_put_into_prompts_and_health_says_so(store, gateway, caplog):
    memory = make_part("memory", "exact", store=store, name="lessons")
    await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text="names differ in case"))])
    memory.close()
    promote(store, "checkpoint:one", "lessons")
    with caplog.at_level(logging.INFO, "verbal.gateway"):
        assert not await gateway.switch.look()
    assert "the same model, checkpoint:one, goes on" in caplog.text
    state = await health(gateway)
    at = store.memories()["lessons"]
    assert state["version"] == 3 and state["not_served"] == [
        f"memory lessons at version {at}: lessons are not put into prompts here"
    ]
    assert (await ask(gateway))["version"] == "3"


async def test_a_client_may_ask_for_the_checkpoint_by_its_name(store, gateway):
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        assert [m.id async for m in await client.models.list()] == ["promoted", "checkpoint:one"]
        made = await client.chat.completions.create(model="checkpoint:one", messages=MESSAGES)
        assert made.model == "checkpoint:one"
        promote(store, "checkpoint:two")
        await gateway.switch.look()
        with pytest.raises(openai.NotFoundError, match="served: promoted, checkpoint:two"):
            await client.chat.completions.create(model="checkpoint:one", messages=MESSAGES)


async def test_what_cannot_be_served_is_told_at_the_start(store, tmp_path):
    for spec, where, kind, said in (
        ("promoted", store, ConfigError, "nothing is adopted yet"),
        ("promoted", None, ConfigError, "none is given"),
        ("checkpoint:three", store, ConfigError, "three"),
        (f"embedded:{tmp_path}", None, ConfigError, "weights cannot be read"),
    ):
        with pytest.raises(kind, match=said):
            await Gateway(spec, where).open()
    spoil(tmp_path / "one")
    with pytest.raises((DataError, TrainError), match="not the ones that were trained"):
        await Gateway("checkpoint:one", store).open()
    shutil.copytree(tmp_path / "two", tmp_path / "one", dirs_exist_ok=True)  # another training's weights and papers
    with pytest.raises(TrainError, match="newer weights than the registered ones"):
        await Gateway("checkpoint:one", store).open()


async def test_one_server_is_exchanged_for_another_while_a_stream_passes(store):
    go = asyncio.Event()
    async with Provider() as provider:

        async def slowly(request, body):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for piece, end in (("one", None), (" two", "stop")):
                choice = {"index": 0, "delta": {"content": piece}, "finish_reason": end}
                await response.write(f"data: {json.dumps({'model': body['model'], 'choices': [choice]})}\n\n".encode())
                await go.wait()
            return response

        promote(store, f"http/tiny-1@{provider.url}/v1")
        async with Gateway("promoted", store, every=3600) as gateway:
            provider.plan.append(slowly)
            body = {"model": "promoted", "messages": MESSAGES, "stream": True}
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{gateway.url}/v1/chat/completions", json=body) as answer,
            ):
                assert answer.headers["x-verbal-version"] == "2"
                promote(store, f"http/tiny-2@{provider.url}/v1")
                assert await gateway.switch.look() and gateway.switch.retiring == 1
                made = await ask(gateway)
                assert (made["model"], made["version"]) == ("tiny-2", "3")
                go.set()
                text = (await answer.read()).decode()
            assert " two" in text and "tiny-2" not in text and "error" not in text
            await until(lambda: not gateway.switch.retiring)
