"""What tests and the bench of the gateway share: a script, clients, checkpoints that differ a little, an adoption."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import struct
from pathlib import Path

import aiohttp
import numpy as np
import openai

from verbal.models.embedded.model import SHIPPED
from verbal.parts import load_function
from verbal.prompt import load_prompt
from verbal.store import Store
from verbal.versions import adopt, make_policy

PROBE = load_prompt("gateway/probe").fill()
TOKEN = "a-long-random-text-0123456789"
ASK = [{"role": "user", "content": "colours?"}]
SCRIPT = [
    {"match": "colours", "reply": ["red green blue", "cyan"]},
    {"match": "broken", "error": "model"},
    {"match": "busy", "error": "overloaded", "retry_after": 7},
    {"match": "once", "reply": "second try", "error": "transient", "times": 1},
    {"match": "cut", "reply": "half", "finish": "length"},
    {"match": "weather", "reply": "", "tool_calls": [{"id": "c1", "name": "look", "arguments": '{"at": "Graz"}'}]},
    {"reply": "hello"},
]


def sdk(gateway, **options):
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=options.pop("api_key", "none"), **options)


async def ask_plainly(gateway, body, **options):
    """Status and body of a plain request."""
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.url}/v1/chat/completions", data=data, **options) as answer,
    ):
        return answer.status, await answer.json()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def perturb(folder: Path, scale: float) -> None:
    """Multiplies the last norm of the weights in a folder (BF16) by a factor."""
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    size = struct.unpack("<Q", raw[:8])[0]
    first, last = json.loads(raw[8 : 8 + size])["model.norm.weight"]["data_offsets"]
    part = slice(8 + size + first, 8 + size + last)
    values = (np.frombuffer(raw[part], np.uint16).astype(np.uint32) << 16).view(np.float32) * np.float32(scale)
    raw[part] = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    path.write_bytes(bytes(raw))


def make_checkpoint(store: Store, name: str, folder: Path, scale: float) -> None:
    """Registers the shipped weights, changed a little, as trained ones."""
    shutil.copytree(SHIPPED, folder)
    perturb(folder, scale)
    describe, write, register = (load_function("trainers", "checkpoint", n) for n in ("describe", "write", "register"))
    write(folder, describe([], method="sft", kind="embedded", base="embedded", seed=0))
    register(store, name, folder)


def promote(store: Store, model: str, memory: str = "") -> int:
    """Adopts a model as if the gate had accepted it; gives the number of the version."""
    newest = store.newest_version()
    spec = {
        "version": newest, "incumbent": make_policy(store, "embedded").plain(),
        "candidate": make_policy(store, model, memory).plain(),
    }  # fmt: skip
    number = adopt(store, f"gate-{newest + 1}", spec, {"verdict": "accept"})
    assert number is not None
    return number
