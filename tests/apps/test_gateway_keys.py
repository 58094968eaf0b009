"""Who may come: keys of the store, their limits, what the run's own key may, and a gate whose store fails."""

from __future__ import annotations

import aiohttp
import openai
import pytest
from gateway_world import ASK
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.gateway.exchange import Caller, Exchange
from verbal.apps.gateway.keys import Keys
from verbal.apps.gateway.opened import opened
from verbal.apps.gateway.refusal import Refusal
from verbal.apps.gateway.routes import Route
from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError
from verbal.models import Price
from verbal.store import Store
from verbal.types import Message, Usage

DOLLAR = Price(prompt=0.0, completion=1e6)
"""One US dollar for each token of the answer."""
MAY_2026 = 1_777_939_200.0


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "v.db") as made:
        yield made


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"reply": "hello"}')
    return f"scripted:{path}"


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now=MAY_2026):
        self.now = now

    def __call__(self):
        return self.now


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def exchange(caller, tokens=5, route="default", text="hi"):
    return Exchange(
        caller=caller, protocol="chat", route=route, model="m", sampling=Sampling(max_tokens=tokens),
        messages=(Message(role="user", content=text),),
    )  # fmt: skip


def answered(made, prompt, completion, cost=0.0):
    made.status = 200
    usage = Usage(calls=1, prompt_tokens=prompt, completion_tokens=completion, cost=cost)
    made.reply = Reply(text="x", usage=usage)
    return made


def refused(call, *arguments):
    with pytest.raises(Refusal) as found:
        call(*arguments)
    return found.value


def test_a_key_is_known_by_both_headers_and_tells_its_project(store):
    key = store.add_key("shop", {"routes": ["a"]})
    gate = Keys(store)
    for headers in (bearer(key), {"x-api-key": key}, {"Authorization": f"bearer  {key}"}):
        found = gate.admit(headers)
        assert (found.project, found.routes) == ("shop", ("a",)) and key not in repr(found)


def test_no_key_a_wrong_one_a_revoked_one_and_an_expired_one_are_refused_in_words(store):
    clock = Clock()
    over, gone = store.add_key("shop", days=1), store.add_key("shop")
    rows = store.api_keys()
    clock.now = rows[0]["made"] + 90_000
    store.revoke_key(next(k["id"] for k in rows if k["expires"] is None))
    gate = Keys(store, clock=clock)
    said = {"no key came": {}, "not known": bearer("sk-verbal-guess"), "expired": bearer(over), "revoked": bearer(gone)}
    for words, headers in said.items():
        error = refused(gate.admit, headers)
        assert error.status == 401 and words in str(error) and over not in str(error) and gone not in str(error)
    assert refused(gate.admit, {"Authorization": "Basic abc"}).status == 401


async def test_a_revoked_key_and_a_new_one_are_noticed_at_the_next_look(store):
    key = store.add_key("shop")
    gate = Keys(store)
    gate.admit(bearer(key))
    store.revoke_key(store.api_keys()[0]["id"])
    new = store.add_key("shop")
    assert refused(gate.admit, bearer(new)).status == 401
    await gate.look()
    assert gate.admit(bearer(new)).project == "shop" and refused(gate.admit, bearer(key)).status == 401


def test_a_minute_holds_so_many_requests_and_fills_evenly(store):
    clock, key = Clock(), store.add_key("shop", {"rpm": 6})
    gate = Keys(store, clock=clock)
    for _ in range(6):
        gate.admit(bearer(key))
    error = refused(gate.admit, bearer(key))
    assert error.status == 429 and error.retry_after == pytest.approx(10.0) and "6 requests a minute" in str(error)
    clock.now += 10.0
    gate.admit(bearer(key))
    assert refused(gate.admit, bearer(key)).status == 429


def test_a_route_that_is_not_the_keys_is_refused(store):
    key = store.add_key("shop", {"routes": ["a", "b"]})
    gate = Keys(store)
    caller = gate.admit(bearer(key))
    gate.allow(exchange(caller, route="b"), None)
    by_name = exchange(caller, route="*")
    by_name.model = "a"
    gate.allow(by_name, None)
    error = refused(gate.allow, exchange(caller, route="c"), None)
    assert error.status == 403 and "it may use: a, b" in str(error)


def test_requests_at_once_cannot_exceed_a_limit_together(store):
    key = store.add_key("shop", {"max_cost": 12.0, "per": "day"})
    clock = Clock()
    gate = Keys(store, clock=clock)
    caller = gate.admit(bearer(key))
    first, second = exchange(caller), exchange(caller)
    gate.allow(first, DOLLAR)
    gate.allow(second, DOLLAR)
    error = refused(gate.allow, exchange(caller), DOLLAR)
    assert error.status == 429 and "10 set aside" in str(error) and error.retry_after == 86400
    first.id = "chatcmpl-of-the-server-behind"
    gate.charge(answered(first, 3, 1, cost=1.0))
    gate.allow(exchange(caller), DOLLAR)
    clock.now += 86400
    gate.allow(exchange(caller, tokens=2), DOLLAR)


def test_a_limit_on_cost_needs_a_price_and_one_on_tokens_does_not(store):
    costs, tokens = store.add_key("shop", {"max_cost": 1.0}), store.add_key("shop", {"max_tokens": 100})
    gate = Keys(store)
    error = refused(gate.allow, exchange(gate.admit(bearer(costs))), None)
    assert error.status == 403 and error.code == "price_unknown" and "--max-tokens" in str(error)
    caller = gate.admit(bearer(tokens))
    gate.allow(exchange(caller), None)
    assert refused(gate.allow, exchange(caller, tokens=90), None).code == "limit_reached"
    free = Price(prompt=0.0, completion=0.0)
    gate.allow(exchange(gate.admit(bearer(costs)), tokens=10**6), free)


async def test_uses_outlive_the_process_and_servers_share_a_limit(store):
    key = store.add_key("shop", {"max_tokens": 100, "per": "month"})
    clock = Clock()
    async with Keys(store, clock=clock, every=60) as gate, Keys(store, clock=clock, every=60) as beside:
        made = exchange(gate.admit(bearer(key)))
        gate.allow(made, None)
        gate.charge(answered(made, 60, 20))
        await gate.look()
        await beside.look()
        assert refused(beside.allow, exchange(beside.admit(bearer(key)), tokens=20), None).code == "limit_reached"
    again = Keys(store, clock=clock)
    assert refused(again.allow, exchange(again.admit(bearer(key)), tokens=20), None).code == "limit_reached"
    clock.now += 31 * 86400
    again.allow(exchange(again.admit(bearer(key)), tokens=20), None)


def test_a_stream_that_was_cut_counts_with_an_estimate(store):
    key = store.add_key("shop", {"max_tokens": 1000})
    gate = Keys(store)
    made = exchange(gate.admit(bearer(key)), text="a" * 250)
    gate.allow(made, None)
    made.status, made.reply = 499, Reply(text="b" * 250, finish="error")
    gate.charge(made)
    (used,) = gate._used.values()
    assert (used.calls, used.tokens) == (1, 62 + 4 + 62)  # four characters each, four around a message


async def test_a_store_that_fails_changes_nothing(store, tmp_path):
    key = store.add_key("shop", {"max_tokens": 100})
    broken = Store(tmp_path / "v.db")
    gate = Keys(broken)
    broken.close()
    made = exchange(gate.admit(bearer(key)))
    gate.allow(made, None)
    gate.charge(answered(made, 1, 1))
    await gate.look()
    assert gate.admit(bearer(key)).project == "shop"


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    with Store(tmp_path_factory.mktemp("k") / "v.db") as store:
        yield store, store.add_key("shop", {"max_tokens": 200})


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1), st.booleans()), max_size=30))
def test_no_order_of_requests_exceeds_a_limit(limited, asked):
    store, key = limited
    gate = Keys(store)
    caller, waiting, used = gate.admit(bearer(key)), [], 0
    for tokens, share, ends in asked:
        made = exchange(caller, tokens=tokens)
        try:
            gate.allow(made, None)
        except Refusal:
            continue
        waiting.append((made, round(tokens * share)))
        if ends:
            done, completion = waiting.pop(0)
            gate.charge(answered(done, 8, completion))
            used += 8 + completion
        held = sum(e.sampling.max_tokens for e, _ in waiting)
        assert used + held <= 200


# behind HTTP --------------------------------------------------------------------------------------------------------


async def test_without_keys_one_is_made_for_the_run_and_no_other_comes(script, tmp_path):
    async with opened(script, tmp_path / "v.db") as it, it.gateway as gateway:
        assert it.key.startswith("sk-verbal-")
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=it.key) as client:
            made = await client.chat.completions.create(model="scripted/m", messages=ASK)
            assert made.choices[0].message.content == "hello"
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk-other", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError, match="not known"):
                await client.models.list()
    with Store(tmp_path / "v.db") as store:
        assert store.api_keys() == [] and [r["id"] for r in store.runs()] == ["gateway-local"]
    assert it.key.encode() not in (tmp_path / "v.db").read_bytes()


async def test_keys_of_the_store_are_asked_and_held_to_their_routes(script, tmp_path):
    with Store(tmp_path / "v.db") as store:
        key = store.add_key("shop", {"routes": ["a"]})
    routes = [Route(name="a", upstream=script), Route(name="b", upstream=script)]
    async with opened("", tmp_path / "v.db", routes=routes) as it, it.gateway as gateway:
        assert it.key == ""
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            assert (await client.chat.completions.create(model="a", messages=ASK)).choices
            with pytest.raises(openai.PermissionDeniedError, match="may not use 'b'"):
                await client.chat.completions.create(model="b", messages=ASK)
    with Store(tmp_path / "v.db") as store:
        assert [(a.run, a.answer) for a in store.attempts()] == [("gateway-shop", "hello")]


async def test_open_needs_no_key_here_and_lets_no_page_of_another_place_in(script, tmp_path):
    async with (
        opened(script, tmp_path / "v.db", open=True, keep=False) as it,
        it.gateway as gateway,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{gateway.url}/v1/models") as answer:
            assert answer.status == 200 and "Access-Control-Allow-Origin" not in answer.headers
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            async with session.get(f"{gateway.url}/v1/models", headers=headers) as answer:
                assert answer.status == 403
        async with session.get(f"{gateway.url}/v1/models", headers=bearer("none")) as answer:
            assert answer.status == 200
    assert not (tmp_path / "v.db").exists()


async def test_open_at_another_address_and_a_short_token_are_wrong_use(script, tmp_path):
    with pytest.raises(ConfigError, match="could be used by anybody"):
        async with opened(script, tmp_path / "v.db", open=True, host="0.0.0.0"):
            pass
    with pytest.raises(ConfigError, match="16 are needed"):
        async with opened(script, tmp_path / "v.db", token="short"):
            pass


def test_who_needs_no_key_is_of_the_project_local():
    assert Keys(open=True).admit({"Host": "localhost"}) == Caller()
