"""A trained Hugging Face folder behind the gateway, taking over from another one through the store."""

from __future__ import annotations

import pytest
from gateway_world import ask_plainly

from verbal.apps.gateway.server import Gateway
from verbal.errors import DataError
from verbal.store import Store
from verbal.trainers.checkpoint import register, write
from verbal.versions import adopt, make_policy

from .group_runs import chat_model

ASK = {"model": "promoted", "messages": [{"role": "user", "content": "What is the code of anchor?"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two finished trainings of a tiny chat model."""
    root = tmp_path_factory.mktemp("weights")
    for seed in (0, 1):
        chat_model(root / str(seed), seed=seed)
        write(root / str(seed), {"kind": "huggingface"})
    return root


async def test_a_chat_model_answers_and_is_exchanged(weights, tmp_path):
    with Store(tmp_path / "v.db") as store:
        for seed in (0, 1):
            register(store, f"w{seed}", weights / str(seed))
        spec = {"version": 0, "incumbent": make_policy(store, "checkpoint:w0").plain()}
        spec["candidate"] = spec["incumbent"]
        adopt(store, "gate-1", spec, {"verdict": "accept"})
        async with Gateway("promoted", store, every=3600) as gateway:
            _, first = await ask_plainly(gateway, {**ASK, "logprobs": True, "return_token_ids": True})
            assert first["model"] == "checkpoint:w0" and 1 <= first["usage"]["completion_tokens"] <= 8
            (choice,) = first["choices"]
            assert len(choice["token_ids"]) == len(choice["logprobs"]["content"])
            _, again = await ask_plainly(gateway, ASK)
            assert again["choices"][0]["message"] == choice["message"], "greedy when nothing is said"
            _, warm = await ask_plainly(gateway, {**ASK, "temperature": 2.0, "n": 2})
            _, anew = await ask_plainly(gateway, {**ASK, "temperature": 2.0, "n": 2})
            texts = [c["message"]["content"] for body in (warm, anew) for c in body["choices"]]
            assert len(set(texts)) > 2, "each request draws anew without a seed"
            spec = {"version": 2, "candidate": make_policy(store, "checkpoint:w1").plain()}
            adopt(store, "gate-2", spec, {"verdict": "accept"})
            assert await gateway.switch.look()
            _, second = await ask_plainly(gateway, ASK)
            assert second["model"] == "checkpoint:w1"
            assert second["system_fingerprint"] != first["system_fingerprint"]


async def test_a_folder_whose_weights_were_exchanged_is_not_served(weights, tmp_path):
    with Store(tmp_path / "v.db") as store:
        folder = chat_model(tmp_path / "w", seed=0)
        write(folder, {"kind": "huggingface"})
        register(store, "w", folder)
        (tmp_path / "w" / "model.safetensors").write_bytes((weights / "1" / "model.safetensors").read_bytes())
        with pytest.raises(DataError, match="not the ones that were trained"):
            await Gateway("checkpoint:w", store).open()
