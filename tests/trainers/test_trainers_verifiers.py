"""Our taskset in verifiers: skipped where it is not installed (its pins of openai and mcp are not ours)."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from pathlib import Path

import pytest

from verbal.apps.social import Social
from verbal.errors import MissingExtra, TrainError
from verbal.trainers import verifiers_env

THERE = importlib.util.find_spec("verifiers") is not None
installed = pytest.mark.skipif(not THERE, reason="verifiers is not installed")
runs = pytest.mark.skipif(not THERE or shutil.which("uv") is None, reason="verifiers and uv are not installed")


@pytest.mark.skipif(THERE, reason="verifiers is installed")
def test_without_verifiers_it_says_what_to_install() -> None:
    with pytest.raises(MissingExtra, match="'verifiers' is not installed"):
        verifiers_env.load_environment()
    with pytest.raises(AttributeError):
        verifiers_env.__getattr__("VerbalPoet")


@installed
def test_the_taskset_gives_our_tasks_without_what_is_hidden(tmp_path: Path) -> None:
    env = verifiers_env.load_environment("social", split="dev", store=str(tmp_path / "v.db"))
    tasks = list(env.taskset)
    assert [t.data.id for t in tasks] == [t.id for t in Social().tasks("dev")]
    for task, ours in zip(tasks, Social().tasks("dev"), strict=True):
        wire = task.data.model_dump_json()
        assert ours.info["goal"] in wire and ours.info["hidden"]["secret"] not in wire
    assert [t.data.id for t in env.taskset.take(2)] == [t.data.id for t in tasks[:2]]
    with pytest.raises(TrainError, match="sealed"):
        verifiers_env.load_environment(split="test")


@runs
async def test_an_episode_is_played_against_a_served_model_and_scored(tmp_path: Path, monkeypatch) -> None:
    import verifiers.v1 as vf  # type: ignore[import-not-found]
    from aiohttp import web

    from verbal.apps.social.speaker import by_rules
    from verbal.store import Store
    from verbal.types import Message

    asked = []
    lesson = "first reason, question; never story"

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        messages = [Message(role=m["role"], content=str(m["content"])) for m in body["messages"]]
        asked.append(messages)
        told = messages[0].content.replace("## Hints\nnone", f"## Hints\n{lesson}")
        text = by_rules([Message(role="user", content=told), *messages[1:]], 0, 1)
        said = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        made = {"id": f"c{len(asked)}", "object": "chat.completion", "created": int(time.time()), "model": "rules",
                "choices": [said], "usage": usage}  # fmt: skip
        if not body.get("stream"):
            return web.json_response(made)
        piece = {**made, "object": "chat.completion.chunk",
                 "choices": [{"index": 0, "delta": said["message"], "finish_reason": "stop"}]}  # fmt: skip
        lines = f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n"
        return web.Response(text=lines, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setenv("RULES_KEY", "none")
    env = verifiers_env.load_environment("social", split="train", store=str(tmp_path / "v.db"))
    context = vf.ModelContext(
        model="rules",
        client=vf.EvalClientConfig(base_url=f"http://127.0.0.1:{port}/v1", api_key_var="RULES_KEY"),
    )
    try:
        async with env.serving():
            (task,) = list(env.taskset.take(1))
            episode = await env.run_episode(task, context)
    finally:
        await runner.cleanup()
    assert episode.ok, [e.message for e in episode.errors] + [str(t.errors) for t in episode.traces]
    (trace,) = episode.traces
    assert trace.reward == 1.0
    with Store(tmp_path / "v.db") as store:
        (made,) = store.attempts("trl")
        assert made.answer.endswith("(reached)") and len(asked) == sum(s.author == "policy" for s in made.steps)
