"""Feedback by the id of a response: kept, replaced, credited once to what was offered, refused where it must be."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from gateway_world import until
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.gateway.capture import StoreCapture
from verbal.apps.gateway.exchange import Caller, Exchange
from verbal.apps.gateway.feedback import FeedbackDoor, Said, read_feedback
from verbal.apps.gateway.memories import Memories
from verbal.apps.gateway.opened import opened
from verbal.apps.gateway.refusal import Refusal
from verbal.contracts import Reply, Sampling
from verbal.memory.log import LogState
from verbal.parts import make_part
from verbal.store import Store
from verbal.types import MemoryOp, Message, Reflection

SHOP = Caller(project="shop")


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "v.db") as made:
        yield made


@pytest.fixture
async def door(store):
    """The door over a memory `m` with two lessons, and a capture that waits for nothing."""
    memory = make_part("memory", "exact", store=store, name="m")
    add = [MemoryOp(op="ADD", item=Reflection(id="", text=t), author="user") for t in ("say hello", "be brief")]
    await memory.apply(add)
    memory.close()
    memories = Memories(store)
    made = FeedbackDoor(memories)
    async with StoreCapture(store) as capture:
        made.capture = capture
        yield made
    memories.close()


def exchange(project="shop", **fields):
    made = Exchange(
        caller=Caller(project=project), protocol="chat", route="r", model="m", sampling=Sampling(), memory="m",
        messages=(Message(role="user", content="hi"),), shown=(Reflection(id="r1", text="say hello"),),
        offered={"r1": 0.9, "r2": 0.5}, reply=Reply(text="hello"), status=200,
    )  # fmt: skip
    for name, value in fields.items():
        setattr(made, name, value)
    return made


async def kept(door, **fields):
    """An exchange that is in the store."""
    made = exchange(**fields)
    door.capture.put(made)
    await until(lambda: not door.capture.waits(made.id, made.caller.project))
    return made.id


def trials(store, item):
    """What outcomes say of an item: (shown, chance, outcome)."""
    state = LogState()
    for _, op in store.ops("m"):
        state.apply(op)
    return [(t.shown, t.chance, t.outcome) for t in state.trials.get(item, ())]


async def test_an_outcome_counts_for_each_lesson_that_was_offered_at_its_chance(door, store):
    id = await kept(door)
    told = await door.give(SHOP, Said(id=id, score=1.0, text="right"))
    assert told["credited"] == ["r1", "r2"] and told["memory"] == "m" and not told["replaced"]
    assert trials(store, "r1") == [(True, 0.9, 1.0)] and trials(store, "r2") == [(False, 0.5, 1.0)]
    (said,) = store.feedback([id])[id]
    assert (said.critic, said.value, said.text, said.source) == ("user", 1.0, "right", "user")


async def test_who_says_the_same_again_is_not_counted_twice_and_who_changes_their_mind_takes_it_back(door, store):
    id = await kept(door)
    for score in (1.0, 1.0, 0.0):
        told = await door.give(SHOP, Said(id=id, score=score))
    assert told["replaced"] and told["outcome"] == 0.0
    assert trials(store, "r1") == [(True, 0.9, 0.0)]
    assert [f.value for f in store.feedback([id])[id]] == [0.0]
    again = await door.give(SHOP, Said(id=id, score=1.0))
    assert again["credited"] == ["r1", "r2"]
    assert [o for *_, o in trials(store, "r1")] == [1.0]
    assert store.step(id, "feedback:2") is not None and store.step(id, "feedback:3") is None


async def test_judgements_of_several_names_are_one_outcome(door, store):
    id = await kept(door)
    await door.give(SHOP, Said(id=id, score=1.0, name="tone"))
    told = await door.give(SHOP, Said(id=id, score=0.0, name="facts"))
    assert told["outcome"] == 0.5 and not told["replaced"]
    assert [o for *_, o in trials(store, "r1")] == [0.5]
    assert [f.critic for f in store.feedback([id])[id]] == ["user:facts", "user:tone"]


async def test_words_alone_count_for_nothing_and_take_a_score_back(door, store):
    id = await kept(door)
    told = await door.give(SHOP, Said(id=id, label="meh", text="my key is sk-proj-4fQz81LmXw02PqRt77Yb"))
    assert told["score"] is None and told["credited"] == [] and trials(store, "r1") == []
    (said,) = store.feedback([id])[id]
    assert said.text.startswith("meh: my key is [") and said.reason
    await door.give(SHOP, Said(id=id, score=1.0))
    told = await door.give(SHOP, Said(id=id, text="not sure after all"))
    assert told["outcome"] is None and trials(store, "r1") == []


@pytest.mark.parametrize(("label", "score"), [("good", 1.0), ("Thumbs_Down", 0.0), ("purple", None)])
async def test_a_label_may_be_a_score(door, label, score):
    id = await kept(door)
    assert (await door.give(SHOP, Said(id=id, label=label)))["score"] == score


async def test_nothing_is_credited_where_nothing_was_offered_or_the_memory_stands_still(door, store):
    for fields in ({"offered": {}}, {"memory": "", "shown": (), "offered": {}}):
        id = await kept(door, **fields)
        assert (await door.give(SHOP, Said(id=id, score=1.0)))["credited"] == []
    assert trials(store, "r1") == []


async def test_an_unknown_id_and_one_of_another_project_are_the_same_404(door):
    id = await kept(door)
    for caller, wanted in ((SHOP, "chatcmpl-none"), (Caller(project="lab"), id)):
        with pytest.raises(Refusal) as found:
            await door.give(caller, Said(id=wanted, score=1.0))
        assert found.value.status == 404
        assert (id in str(found.value)) is (caller is SHOP or wanted == id)
    with pytest.raises(Refusal, match="the latest are"):
        await door.give(SHOP, Said(id="chatcmpl-none", score=1.0))


async def test_what_is_still_in_the_queue_is_waited_for(door):
    made = exchange()
    door.capture.put(made)
    assert (await door.give(SHOP, Said(id=made.id, score=1.0)))["outcome"] == 1.0


async def test_feedback_at_once_is_one_after_the_other(door, store):
    id = await kept(door)
    await asyncio.gather(*(door.give(SHOP, Said(id=id, score=float(i % 2))) for i in range(6)))
    (said,) = store.feedback([id])[id]
    assert [o for *_, o in trials(store, "r1")] == [said.value]


# bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "a JSON object"),
        (b'{"id": "x"}', "nothing is said"),
        (b'{"score": 1}', "id is missing"),
        (b'{"id": "x", "score": 2}', "from 0 to 1"),
        (b'{"id": "x", "score": NaN}', "from 0 to 1"),
        (b'{"id": "x", "score": 1' + b"0" * 400 + b"}", "from 0 to 1"),
        (b'{"id": "x", "score": "high"}', "from 0 to 1"),
        (b'{"id": 7, "score": 1}', "id is a text"),
        (b'{"id": "x", "scor": 1}', "unknown field 'scor'; known: id, score"),
        (b'{"id": "x", "score": 1, "name": "../x"}', "name is up to"),
        (json.dumps({"id": "x", "text": "y" * 5000}).encode(), "at most 4,000"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(body, said):
    with pytest.raises(Refusal) as found:
        read_feedback(body)
    assert found.value.status == 400 and said in str(found.value)


FIELDS = st.sampled_from(["id", "score", "label", "text", "name", "x"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=5)


@given(st.recursive(LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(FIELDS, x, max_size=4)))
def test_any_body_is_read_or_refused(body):
    try:
        said = read_feedback(json.dumps(body).encode())
    except Refusal as refused:
        assert refused.status == 400
    else:
        assert said.id and (said.score is None or 0 <= said.score <= 1)


async def test_feedback_over_http_goes_through_the_gate(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"reply": "hello"}')
    with Store(tmp_path / "v.db") as store:
        shop, lab = store.add_key("shop"), store.add_key("lab")
    async with (
        opened(f"scripted:{tmp_path}/m.jsonl", tmp_path / "v.db") as it,
        it.gateway as gateway,
        aiohttp.ClientSession() as session,
    ):

        async def post(path, body, key):
            headers = {"x-api-key": key} if key else {}
            async with session.post(f"{gateway.url}/v1/{path}", json=body, headers=headers) as answer:
                return answer.status, await answer.json()

        ask = {"model": "scripted/m", "messages": [{"role": "user", "content": "hi"}]}
        _, made = await post("chat/completions", ask, shop)
        good = {"id": made["id"], "score": True, "label": "good"}
        assert [(await post("feedback", good, key))[0] for key in (shop, lab, "", "sk-wrong")] == [200, 404, 401, 401]
        assert (await post("feedback", {"id": made["id"], "rating": 5}, shop))[0] == 400
        message = {"model": "scripted/m", "max_tokens": 9, "messages": ask["messages"]}
        _, made = await post("messages", message, shop)
        assert (await post("feedback", {"id": made["id"], "score": 0}, shop))[1]["score"] == 0.0
    with Store(tmp_path / "v.db") as store:
        assert [f.value for a in store.attempts() for f in store.feedback([a.id])[a.id]] == [1.0, 0.0]
