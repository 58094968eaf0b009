"""Vectors from a server, a real one on loopback: what comes back, how it is asked, what goes wrong, what it costs."""

from __future__ import annotations

import base64
import logging
import math
import pickle
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from embedding_server import Answer, EmbeddingServer, rows, says, vector_of
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.errors import ConfigError, ContextLengthError, ModelError, RefusedError, TransientError, VerbalError
from verbal.memory import endpoint as endpoint_module
from verbal.memory.embedders import make_embedder
from verbal.memory.endpoint import EndpointEmbedder, find_price
from verbal.models import Retry
from verbal.types import Usage

FAST = Retry(attempts=4, first=0.001, deadline=60.0)
SECRET = "s3cret-key-that-must-not-leak"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


def opened(server: EmbeddingServer, **options: Any) -> EndpointEmbedder:
    return EndpointEmbedder("tiny", server.url, **({"retry": FAST, "timeout": 20.0} | options))


def unit(values: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in values))
    return [v / length for v in values]


# what comes back --------------------------------------------------------------------------------------------------


def test_vectors_come_in_the_order_of_the_texts_and_have_length_one(server: EmbeddingServer) -> None:
    embedder = opened(server)
    texts = ["orders", "a VIP is tier 3", "Größe \U0001f600", "x" * 100_000, "lone \ud800 half", "nul \0"]
    vectors = embedder.embed(texts)
    sent = server.seen[0]["input"]
    assert sent == [*texts[:4], "lone ? half", "nul \0"] and server.paths == ["/v1/embeddings"]
    assert set(server.seen[0]) == {"model", "input"}, "only what is set is sent"
    for text, vector in zip(sent, vectors, strict=True):
        assert vector == pytest.approx(unit(vector_of(text, 8)), abs=1e-6)
        assert sum(v * v for v in vector) == pytest.approx(1.0, abs=1e-6)
        assert struct.unpack("<8f", struct.pack("<8f", *vector)) == vector, "a table of float32 loses nothing"
    assert vectors == [v for t in texts for v in embedder.embed([t])], "alone or together is the same"


def test_base64_says_the_same(server: EmbeddingServer) -> None:
    floats, packed = opened(server), opened(server, encoding="base64")
    assert packed.embed(["late order"])[0] == pytest.approx(floats.embed(["late order"])[0], abs=1e-6)
    assert [b.get("encoding_format") for b in server.seen] == ["base64", None]


def test_texts_without_words_are_not_sent(server: EmbeddingServer) -> None:
    embedder = opened(server)
    assert embedder.embed([]) == [] and server.seen == []
    first, second, third = embedder.embed(["", "vip", " \n"])
    assert first == third == (1.0, *[0.0] * 7) != second
    assert [b["input"] for b in server.seen] == [["vip"]]
    assert len(opened(server).embed([""])[0]) == 8, "the dimension is asked for when there is nothing else to ask"


def test_a_vector_of_zeros_is_near_nothing(server: EmbeddingServer) -> None:
    server.plan.append(rows([0.0, 0.0, 0.0], [3, 0, -4], [1e300, 1e300, 0.0], [5e-324, 0.0, 0.0]))
    zeros, plain, large, tiny = opened(server).embed(["a", "b", "c", "d"])
    assert zeros == (1.0, 0.0, 0.0) == tiny
    assert plain == pytest.approx((0.6, 0.0, -0.8)) and large == pytest.approx((math.sqrt(0.5), math.sqrt(0.5), 0.0))


@settings(max_examples=30)
@given(texts=st.lists(st.text(max_size=30), max_size=12))
def test_any_texts_give_one_unit_vector_each(texts: list[str]) -> None:
    vectors = _shared(texts)
    assert [len(v) for v in vectors] == [8] * len(texts)
    assert all(sum(x * x for x in v) == pytest.approx(1.0, abs=1e-6) for v in vectors)
    assert vectors == [_shared([t])[0] for t in texts]


def _shared(texts: list[str]) -> list[tuple[float, ...]]:
    with EmbeddingServer() as server:
        return opened(server).embed(texts)


# how it is asked --------------------------------------------------------------------------------------------------


def test_many_texts_go_out_in_batches(server: EmbeddingServer) -> None:
    embedder = opened(server)
    texts = [f"text {i}" for i in range(600)]
    vectors = embedder.embed(texts)
    assert [len(b["input"]) for b in server.seen] == [256, 256, 88]
    assert vectors[599] == pytest.approx(unit(vector_of("text 599", 8)), abs=1e-6)
    server.seen.clear()
    embedder.embed(["y" * 90_000, "z" * 90_000, "\u00e9" * 90_000, "w" * 300_000, "v"])
    assert [len(b["input"]) for b in server.seen] == [2, 1, 1, 1], "at most 200,000 bytes, or one text"


def test_the_dimension_is_known_before_the_first_text(server: EmbeddingServer) -> None:
    embedder = opened(server)
    assert embedder.dimension == 8 == embedder.dimension
    assert [b["input"] for b in server.seen] == [["dimension"]], "asked once"
    assert opened(server, dimensions=4).dimension == 4 and len(server.seen) == 1, "told, so not asked"


def test_shorter_vectors_are_asked_for(server: EmbeddingServer) -> None:
    embedder = opened(server, dimensions=4)
    assert len(embedder.embed(["vip"])[0]) == 4 and server.seen[0]["dimensions"] == 4
    assert embedder.name == "endpoint/tiny/4", "vectors of another length are other vectors"
    server.shortens = False
    with pytest.raises(ModelError, match="8 numbers, 4 were expected"):
        embedder.embed(["vip"])


def test_a_text_too_long_is_cut_and_the_others_are_not(
    server: EmbeddingServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.longest = 300
    texts = ["a", "b" * 1000, "c"]
    with caplog.at_level(logging.WARNING, "verbal.memory"):
        vectors = opened(server).embed(texts)
    assert vectors[1] == pytest.approx(unit(vector_of("b" * 250, 8)), abs=1e-6)
    assert vectors[2] == pytest.approx(unit(vector_of("c", 8)), abs=1e-6)
    assert "1000 characters is cut to 500" in caplog.text
    server.longest = 0
    with pytest.raises(ContextLengthError):
        opened(server).embed(["b" * 1000])


def test_a_call_too_large_is_halved(server: EmbeddingServer) -> None:
    server.plan.append(says(413, {"error": "batch size 4 > maximum allowed batch size 2"}))
    assert len(opened(server).embed(["a", "b", "c", "d"])) == 4
    assert [len(b["input"]) for b in server.seen] == [4, 2, 2]


# what goes wrong --------------------------------------------------------------------------------------------------


def test_a_busy_server_is_asked_again_when_it_says(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    server.plan += [says(429, {"error": {"message": "slow down"}}, retry_after="7"), says(503, "busy"), says(500, "")]
    assert len(opened(server).embed(["vip"])) == 1
    assert len(server.seen) == 4 and 7.0 <= waits[0] <= 7.001 and max(waits[1:]) <= 0.004


def test_a_wait_beyond_the_deadline_is_not_begun(server: EmbeddingServer) -> None:
    server.plan.append(says(429, {"error": {"message": "slow down"}}, retry_after="3600"))
    with pytest.raises(TransientError, match="429: slow down") as caught:
        opened(server).embed(["vip"])
    assert caught.value.retry_after == 3600.0 and len(server.seen) == 1


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (says(200, "{nonsense"), "not JSON"),
        (says(200, [1, 2]), "no vectors"),
        (says(200, {"data": [{"object": "embedding"}]}), "no vectors"),
        (says(200, {"data": [{"embedding": "not base64!"}]}), "not base64"),
        (says(200, {"data": [{"embedding": "AAAAAAA="}]}), "not base64"),
        (says(500, "oops"), "500: oops"),
        ((0, b"", {}), "RemoteDisconnected"),
    ],
)
def test_nonsense_is_asked_again_and_then_an_error(server: EmbeddingServer, answer: Answer, what: str) -> None:
    server.plan += [answer] * 4
    with pytest.raises(TransientError, match=what) as caught:
        opened(server).embed(["vip"])
    assert len(server.seen) == 4 and server.url in caught.value.where and caught.value.todo
    server.plan.append(answer)
    assert len(opened(server).embed(["vip"])) == 1, "once is no matter"


NAN = b'{"data": [{"embedding": [0.5, NaN]}]}'
HUGE = b'{"data": [{"embedding": [0.5, 1e999]}]}'


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (says(200, NAN), "number 1 of vector 0 is nan"),
        (says(200, HUGE), "number 1 of vector 0 is inf"),
        (rows([0.5, None]), "no list of numbers"),
        (rows(["0.5"]), "no list of numbers"),
        (rows([[0.5, 0.5], [0.5, 0.5]]), "no list of numbers"),
        (rows([[0.5], [0.5, 0.5]]), "no list of numbers"),
        (rows([]), "no list of numbers"),
        (rows([10**400]), "no list of numbers"),
        (rows({"a": 1}), "no list of numbers"),
        (rows(base64.b64encode(struct.pack("<2f", 1.0, math.nan)).decode()), "is nan"),
        (rows([1.0], [1.0]), "2 vectors for 1 texts"),
        (rows(), "0 vectors for 1 texts"),
        (says(200, {"data": [{"embedding": [1.0], "index": 7}]}), "not 0 to 0"),
        (says(200, {"data": [{"embedding": [1.0], "index": "0"}]}), "not 0 to 0"),
        (says(200, {"error": {"message": "no such task"}}), "the server reports: no such task"),
        (says(200, "<html>welcome</html>"), "a page"),
        (says(302, "", location="http://127.0.0.1:1/"), "elsewhere"),
        (says(404, {"error": {"message": "no model 'tiny'"}}), "no model 'tiny'"),
        (says(400, {"detail": "input must be text"}), "input must be text"),
    ],
)
def test_what_cannot_be_right_is_an_error_at_once(server: EmbeddingServer, answer: Answer, what: str) -> None:
    server.plan.append(answer)
    with pytest.raises(ModelError, match=what) as caught:
        opened(server).embed(["vip"])
    assert len(server.seen) == 1 and server.url in caught.value.where and caught.value.todo
    assert not isinstance(caught.value, TransientError)


def test_which_vector_is_whose_must_be_known(server: EmbeddingServer) -> None:
    server.plan.append(says(200, {"data": [{"embedding": [1.0], "index": 0}] * 2}))
    with pytest.raises(ModelError, match=r"\[0, 0\], not 0 to 1"):
        opened(server).embed(["a", "b"])


def test_one_embedder_keeps_one_dimension(server: EmbeddingServer) -> None:
    embedder = opened(server)
    embedder.embed(["vip"])
    server.dimension = 9
    with pytest.raises(ModelError, match="9 numbers, 8 were expected"):
        embedder.embed(["vip"])
    server.plan.append(rows([1.0, 2.0], [1.0]))
    with pytest.raises(ModelError, match="1 numbers, 2 were expected"):
        opened(server).embed(["a", "b"])


def test_a_server_that_is_not_there(server: EmbeddingServer) -> None:
    with pytest.raises(TransientError, match="connection failed: ConnectionRefusedError"):
        EndpointEmbedder("tiny", "http://127.0.0.1:1/v1", retry=FAST).embed(["vip"])


def test_a_server_that_does_not_answer_in_time(server: EmbeddingServer) -> None:
    free = threading.Event()

    def slow(body: dict[str, Any]) -> Answer:
        free.wait(30)
        return server.answer(body)

    server.plan.append(slow)
    embedder = opened(server, timeout=0.2, retry=Retry(attempts=1))
    with pytest.raises(TransientError, match=r"no answer within 0\.2 s") as caught:
        embedder.embed(["vip"])
    free.set()
    assert caught.value.abandoned and embedder.take_usage().prompt_tokens == 3, "it may be billed: a byte a token"


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000", "ftp://host/v1", "http:///v1", "http://user:hidden@host/v1", "http://host/v1?key=hidden",
        "http://host:99999/v1", "http://h\u00f6st/v1", "http://host/v 1", "http://host/v1#hidden",
    ],
)  # fmt: skip
def test_a_bad_address_is_a_config_error_that_shows_no_secret(url: str) -> None:
    for make in (lambda: EndpointEmbedder("m", url), lambda: make_embedder(f"endpoint/m@{url}")):
        with pytest.raises(ConfigError) as caught:
            make()
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"dimensions": 0}, {"dimensions": 1.5}, {"price": -1}, {"price": math.nan}, {"timeout": 0}, {"encoding": "int8"}],
)
def test_a_bad_option_is_a_config_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EndpointEmbedder("m", "http://127.0.0.1:1/v1", **options)


# the key ----------------------------------------------------------------------------------------------------------


def test_no_key_is_shown(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("MY_EMBEDDINGS", SECRET)
    embedder = opened(server, key_variable="MY_EMBEDDINGS")
    assert SECRET not in repr(embedder) + str(vars(embedder)) + embedder.name
    echo = {"error": {"message": f"Incorrect API key provided: {SECRET}."}}
    for answer in (says(401, echo), says(400, f"bad header Bearer {SECRET}"), says(500, echo), says(200, echo)):
        server.plan += [answer] * 4
        with caplog.at_level(logging.DEBUG), pytest.raises(VerbalError) as caught:
            embedder.embed(["vip"])
        seen = (
            f"{caught.value!s} {caught.value!r} {caught.value.__cause__!r} {pickle.dumps(caught.value)!r} {caplog.text}"
        )
        assert SECRET not in seen
        server.plan.clear()
    assert {h["authorization"] for h in server.headers} == {f"Bearer {SECRET}"}
    monkeypatch.setenv("MY_EMBEDDINGS", f"{SECRET}\r\nX-Evil: 1")
    with pytest.raises(ConfigError, match="MY_EMBEDDINGS holds a character") as broken:
        embedder.embed(["vip"])
    assert SECRET not in str(broken.value)
    monkeypatch.delenv("MY_EMBEDDINGS")
    with pytest.raises(ConfigError, match="MY_EMBEDDINGS is not set"):
        embedder.embed(["vip"])


def test_which_key_goes_where(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-openai")
    opened(server).embed(["vip"])
    assert "authorization" not in server.headers[-1], "OpenAI's key is not shown to another address"
    monkeypatch.setenv("VERBAL_HTTP_KEY", "key-of-others")
    opened(server).embed(["vip"])
    assert server.headers[-1]["authorization"] == "Bearer key-of-others"
    monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
    make_embedder("endpoint/tiny").embed(["vip"])
    assert server.headers[-1]["authorization"] == "Bearer key-of-openai"


def test_openai_needs_its_key_before_any_call() -> None:
    embedder = make_embedder("endpoint/text-embedding-3-small")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        embedder.embed(["vip"])


def test_a_redirect_takes_no_key_along(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERBAL_HTTP_KEY", SECRET)
    with EmbeddingServer() as other:
        for status in (301, 302, 303, 307, 308):
            server.plan.append(says(status, "", location=f"{other.url}/embeddings"))
            with pytest.raises(ModelError, match="elsewhere"):
                opened(server).embed(["vip"])
        assert other.seen == []


def test_a_refused_key_says_which_variable(server: EmbeddingServer) -> None:
    server.plan.append(says(401, {"error": {"message": "no"}}))
    with pytest.raises(RefusedError, match="check the key in VERBAL_HTTP_KEY"):
        opened(server).embed(["vip"])


# the price --------------------------------------------------------------------------------------------------------


def test_what_it_costs() -> None:
    local = "http://127.0.0.1:1/v1"
    assert EndpointEmbedder("text-embedding-3-small", "https://api.openai.com/v1").price == pytest.approx(0.02)
    assert EndpointEmbedder("mistral-embed", "https://api.mistral.ai/v1").price == pytest.approx(0.1)
    assert EndpointEmbedder("text-embedding-3-small", "https://elsewhere.example/v1").price is None, "never guessed"
    assert EndpointEmbedder("nobody-knows", "https://api.openai.com/v1").price is None
    assert EndpointEmbedder("m", local).price == 0.0 and EndpointEmbedder("m", local, price=2).price == 2
    assert find_price("", "text-embedding-3-small") is None and find_price("openai", "gpt-4o-mini") is None


def test_the_table_of_prices_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_TABLE", "no-such-table.json")
    endpoint_module._prices.cache_clear()
    try:
        assert find_price("openai", "text-embedding-3-small") is None
    finally:
        endpoint_module._prices.cache_clear()


def test_what_calls_used_is_told_once(server: EmbeddingServer) -> None:
    embedder = opened(server, price=2.0)
    assert embedder.dimension == 8
    server.plan.append(says(200, "{nonsense"))
    embedder.embed(["four", "five"])
    used = embedder.take_usage()
    assert (used.calls, used.prompt_tokens) == (3, 3 + 8 + 6), (
        "the look, nonsense at a byte a token, the server's count"
    )
    assert used.cost == pytest.approx(17 * 2.0 / 1e6) and embedder.take_usage() == Usage()
    server.counts = False
    embedder.embed(["four"])
    assert embedder.take_usage().prompt_tokens == 4, "a server that counts nothing: a byte a token"
    unknown = opened(server, price=None)
    unknown.price = None
    unknown.embed(["four"])
    assert unknown.take_usage().cost is None
