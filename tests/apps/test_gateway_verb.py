"""`verbal serve` as real processes: what it prints, how it ends, and a stand-in for the command `vllm`."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager

import openai
import pytest

from verbal.apps.gateway.server import Gateway
from verbal.apps.gateway.vllm import VllmModel
from verbal.cli import main
from verbal.contracts import Sampling
from verbal.errors import ConfigError, MissingExtra, ModelError
from verbal.parts import load_function
from verbal.store import Store
from verbal.types import Attempt, Feedback, Message
from verbal.versions import adopt, make_policy

ASK = [{"role": "user", "content": "hello?"}]

# The smallest server that takes the arguments of `vllm serve` and speaks its protocol; it tells what it was given.
VLLM = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

command, folder, *rest = sys.argv[1:]
options = dict(zip(rest[::2], rest[1::2]))
assert command == "serve" and options["--host"] == "127.0.0.1"
if "broken" in folder:
    sys.exit("torch.OutOfMemoryError: CUDA out of memory")
name = options["--served-model-name"]

class Handler(BaseHTTPRequestHandler):
    def say(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.say({{"data": [{{"id": name}}]}})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert body["model"] == name
        text = json.dumps(options)
        self.say({{"choices": [{{"index": 0, "message": {{"content": text}}, "finish_reason": "stop"}}],
                  "usage": {{"prompt_tokens": 3, "completion_tokens": 4}}}})
    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(options["--port"])), Handler).serve_forever()
"""

# It is interrupted while it is loaded.
LARGE = """
import asyncio, os, pathlib, signal

class Large:
    name = "test/large"
    async def check(self):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)
    async def aclose(self):
        pathlib.Path(__file__).with_name("closed").touch()
"""


@contextmanager
def serving(*arguments, **environment):
    """The verb in a process on a free port; gives the process, its URL and the command it suggests."""
    command = [sys.executable, "-m", "verbal.cli", "serve", "--port", "0", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            head = process.stdout.readline()
            assert "http://" in head, head + process.stderr.read()
            yield process, head, process.stdout.readline()
        finally:
            process.terminate()
            process.communicate()


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """The stand-in on PATH; gives a folder to serve."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(VLLM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_the_verb_says_where_what_and_how_to_try_keeps_what_passes_and_ends_on_ctrl_c(tmp_path):
    path = tmp_path / "v.db"
    with serving("--model", "embedded", "--store", str(path)) as (process, head, example):
        assert "serves embedded/pocket (fp_" in head and "Stop with Ctrl-C" in head
        command = shlex.split(example)
        assert command[0] == "curl"
        body = json.loads(command[command.index("-d") + 1])
        url, key = head.split()[0], command[command.index("-H") + 1].removeprefix("Authorization: Bearer ")
        assert key.startswith("sk-verbal-") and "for this run" in process.stdout.readline()
        assert "kept in" in process.stdout.readline()
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                client.chat.completions.create(**body)
            made = client.with_options(api_key=key).chat.completions.create(**body)
        assert "COUNT(*)" in made.choices[0].message.content
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0 and "stopping" in out and "kept 1 exchanges" in out and err == ""
    assert key.encode() not in path.read_bytes()


def test_the_verb_follows_the_store_and_asks_for_its_token(tmp_path):
    path = tmp_path / "v.db"
    script = tmp_path / "m.jsonl"
    script.write_text('{"reply": "hello"}')
    with Store(path) as store:
        spec = {"version": 0, "incumbent": make_policy(store, "embedded").plain()}
        spec["candidate"] = make_policy(store, f"scripted:{script}").plain()
        adopt(store, "gate-1", spec, {"verdict": "accept"})
    token = "a-long-random-text-0123456789"
    with serving("--store", str(path), VERBAL_SERVE_TOKEN=token) as (process, head, example):
        assert "serves scripted/m" in head and "version 2 of the store" in head
        assert "Bearer $VERBAL_SERVE_TOKEN" in example and token not in head + example
        with openai.OpenAI(base_url=head.split()[0], api_key=token, max_retries=0) as client:
            assert client.chat.completions.create(model="promoted", messages=ASK).choices[0].message.content == "hello"
            with Store(path) as store:
                spec = {"version": 2, "candidate": make_policy(store, "embedded").plain()}
                adopt(store, "gate-2", spec, {"verdict": "accept"})
            loading, line = process.stderr.readline(), process.stderr.readline()
            assert "version 3: loading embedded" in loading, loading
            assert "version 3: embedded/pocket" in line and "answers from now on" in line, line
            assert client.models.list().data[1].id == "embedded/pocket"
            health = head.split()[0].removesuffix("/v1") + "/health"
            while client.get(health, cast_to=dict)["capture"]["kept"] < 1:
                pass
        process.kill()  # what was written stays, whatever happens to the process
    with Store(path) as store:
        assert [a.answer for a in store.attempts("gateway-local")] == ["hello"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--store", "none.db"), "there is no store"),
        (("--model", "checkpoint:x", "--store", "none.db"), "there is no store"),
        (("--model", "embeded"), "not the name of a model"),
        (("--model", "embedded", "--host", "0.0.0.0", "--open"), "could be used by anybody"),
        (("--config", "none.toml"), "cannot read 'none.toml'"),
        (("--model", "embedded", "--otlp", "nowhere"), "is no address"),
        (("--model", "embedded", "--engine", "vllm"), "vLLM serves Hugging Face folders"),
        (("--model", "hf:nowhere", "--engine", "vllm"), "'vllm' is not installed"),
        (("--model", "hf:nowhere"), "no model in 'nowhere'"),
    ],
)
def test_what_cannot_be_served_is_wrong_use(arguments, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["verbal", "serve", "--port", "0", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2 and said in capsys.readouterr().err


# vLLM -----------------------------------------------------------------------------------------------------------------


async def test_vllm_runs_beside_and_ends_with_the_gateway(vllm):
    async with Gateway(f"hf:{vllm}", engine="vllm") as gateway:
        process = gateway.switch.current.model._process
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
            made = await client.chat.completions.create(model="vllm/weights", messages=ASK)
            stream = await client.chat.completions.create(model="vllm/weights", messages=ASK, stream=True)
            told = "".join([c.choices[0].delta.content or "" async for c in stream])
        options = json.loads(made.choices[0].message.content)
        assert json.loads(told) == options and made.usage.total_tokens == 7 and made.system_fingerprint is None
        assert options["--served-model-name"] == "weights" and "--gpu-memory-utilization" not in options
        assert process.returncode is None
    assert process.returncode is not None


async def test_a_checkpoint_under_vllm_is_named_and_takes_no_turns(vllm, tmp_path):
    write, register = (load_function("trainers", "checkpoint", n) for n in ("write", "register"))
    (vllm / "model.safetensors").write_bytes(b"weights")
    write(vllm, {"kind": "huggingface"})
    with Store(tmp_path / "v.db") as store:
        register(store, "big", vllm)
        async with Gateway("checkpoint:big", store, engine="vllm") as gateway:
            served = gateway.switch.current
            assert served.name == "checkpoint:big" and served.fingerprint.startswith("fp_") and not served.here
            async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
                made = await client.chat.completions.create(model="checkpoint:big", messages=ASK)
            assert made.model == "checkpoint:big" and made.system_fingerprint == served.fingerprint


async def test_a_vllm_that_ends_is_told_with_its_last_words(vllm, tmp_path):
    folder = vllm.rename(tmp_path / "broken")
    with pytest.raises(ModelError, match="CUDA out of memory"):
        await Gateway(f"hf:{folder}", engine="vllm").open()


async def test_two_of_them_share_a_card_while_one_takes_over(vllm):
    model = VllmModel(str(vllm), share=0.45)
    with pytest.raises(ModelError, match="not started"):
        await model.generate([], 1, Sampling())
    assert "ready" in await model.check()
    (reply,) = await model.generate([Message(role="user", content="hello?")], 1, Sampling())
    assert json.loads(reply.text)["--gpu-memory-utilization"] == "0.45"
    assert [json.loads(p) async for p in model.stream([Message(role="user", content="x")], Sampling())]
    await model.aclose()


def test_a_missing_command_or_folder_is_told(vllm, tmp_path):
    with pytest.raises(MissingExtra, match="'vllm-of-nowhere' is not installed"):
        VllmModel(str(vllm), command="vllm-of-nowhere")
    with pytest.raises(ConfigError, match="no model in"):
        VllmModel(str(tmp_path / "nothing"))


def test_help_loads_no_server():
    code = "import sys; sys.argv = ['verbal', '--help']\nimport verbal.cli\ntry: verbal.cli.app()\nexcept SystemExit: "
    code += "assert not {'aiohttp', 'verbal.serving', 'verbal.versions'} & set(sys.modules)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "serve" in done.stdout, done.stderr


def test_ctrl_c_while_a_large_model_is_loaded_ends_it(monkeypatch, capsys, tmp_path):
    (tmp_path / "large.py").write_text(LARGE)
    large = f"{tmp_path}/large.py:Large"
    monkeypatch.setattr(
        sys, "argv", ["verbal", "serve", "--port", "0", "--model", large, "--store", f"{tmp_path}/v.db"]
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0 and (tmp_path / "closed").exists() and "http" not in capsys.readouterr().out


def test_the_verb_runs_inside_this_process_too(monkeypatch, capsys, tmp_path):
    """The same path as above where coverage sees it: a signal to ourselves ends it."""
    script = tmp_path / "m.jsonl"
    script.write_text('{"reply": "hello"}')
    opened = Gateway.open

    async def then_stop(self, host, port):
        url = await opened(self, host, port)
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
        return url

    monkeypatch.setattr(Gateway, "open", then_stop)
    keys = ["verbal", "keys", "--store", str(tmp_path / "v.db")]
    assert run(monkeypatch, *keys[:2], "add", "shop", "--routes", "a", "--days", "2", *keys[2:]) == 0
    assert "sk-verbal-" in capsys.readouterr().out
    shadow = f'shadow = "scripted:{script}"\nshare = 1.0'
    routes = f'[routes.a]\nupstream = "scripted:{script}"\nmemory = "m"\n[routes."*"]\nupstream = "embedded"\n{shadow}'
    (tmp_path / "g.toml").write_text(routes)
    config = ("--config", str(tmp_path / "g.toml"), *keys[2:])
    assert run(monkeypatch, "verbal", "serve", "--port", "0", *config) == 0
    out = capsys.readouterr().out
    assert "serves a, *" in out and "Say hello." in out and "Bearer $KEY" in out and '"model": "a"' in out
    assert run(monkeypatch, "verbal", "serve", "--port", "0", "--open", "--model", f"scripted:{script}", "--no-capture",
               *keys[2:]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "Bearer" not in out and "kept" not in out


def test_the_verbs_of_keys_make_list_and_end_them(monkeypatch, capsys, tmp_path):
    store = ("--store", str(tmp_path / "v.db"))
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, "verbal", "keys", "add", "shop", "--rpm", "5", "--max-cost", "2", "--json", *store) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["key"].startswith("sk-verbal-") and made["rules"] == "5 requests a minute; $2.00 a month"
    assert run(monkeypatch, "verbal", "keys", "list", *store) == 0
    listed = capsys.readouterr().out
    assert made["id"] in listed and "good" in listed and made["key"] not in listed
    assert run(monkeypatch, "verbal", "keys", "revoke", made["id"], *store) == 0
    assert run(monkeypatch, "verbal", "keys", "list", "--json", *store) == 0
    out = capsys.readouterr().out
    assert "within two seconds" in out and '"status": "revoked"' in out and "hash" not in out
    for arguments, said in ((("revoke", "key-0"), "unknown key"), (("add", "Shop"), "is no name"),
                            (("add", "shop", "--days", "0"), "good for 0 days")):  # fmt: skip
        assert run(monkeypatch, "verbal", "keys", *arguments, *store) == 2
        assert said in capsys.readouterr().err


def test_the_verb_shadow_sums_up_a_projects_run(monkeypatch, capsys, tmp_path):
    with Store(tmp_path / "v.db") as store:
        store.start_run("gateway-shop", {"name": "gateway"})
        assert run(monkeypatch, "verbal", "shadow", "shop", "--store", str(tmp_path / "v.db")) == 0
        assert "nothing was shadowed yet" in capsys.readouterr().out
        for id, arm, parent in (("a", "main", None), ("a:shadow", "shadow", "a")):
            store.put_attempt(
                Attempt(id=id, run="gateway-shop", task="t", arm=arm, parent=parent, answer="x", model=arm)
            )
        store.put_feedback([Feedback(attempt="a", critic="user", source="user", value=1.0)])
    assert run(monkeypatch, "verbal", "shadow", "shop", "--store", str(tmp_path / "v.db")) == 0
    out = capsys.readouterr().out
    assert "1 pairs, the same answer in 100.0 %" in out and "1.00 where both said the same" in out


def run(monkeypatch, *arguments):
    """The exit status of a command in this process."""
    monkeypatch.setattr(sys, "argv", list(arguments))
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code
