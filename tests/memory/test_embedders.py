"""Embedders by name, and what every embedder's vectors are checked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import ConfigError, ModelError, UnknownName
from verbal.memory.embedders import make_embedder, still, unit_vectors
from verbal.memory.endpoint import EndpointEmbedder
from verbal.memory.hashing import HashingEmbedder
from verbal.store import Store

MINE = '''"""A user's embedder."""
class MyEmbedder:
    """Lengths of texts."""
    name, dimension = "mine", 2
    def __init__(self, scale=1.0):
        self.scale = scale
    def embed(self, texts):
        """Vectors."""
        return [(1.0, 0.0) for _ in texts]
class Nothing:
    """No embedder."""
class Nameless:
    """An embedder without a name."""
    def embed(self, texts):
        """Vectors."""
        return []
'''


def test_hashing_by_name() -> None:
    assert make_embedder("hashing").name == "hashing-384" and make_embedder(" hashing ").dimension == 384
    assert make_embedder("hashing/512").embed(["vip"]) == HashingEmbedder(512).embed(["vip"])
    assert make_embedder("hashing", dimension=64).dimension == 64
    assert make_embedder({"name": "hashing", "dimension": 64}).name == "hashing-64"


@pytest.mark.parametrize(
    ("spec", "model", "url"),
    [
        ("endpoint/bge-m3@http://127.0.0.1:1/v1/", "bge-m3", "http://127.0.0.1:1/v1"),
        ("endpoint/org/bge@https://host/api", "org/bge", "https://host/api"),
        ("endpoint/@cf/baai/bge@http://127.0.0.1:1", "@cf/baai/bge", "http://127.0.0.1:1"),
        ("endpoint/@cf/baai/bge", "@cf/baai/bge", "https://api.openai.com/v1"),
        ("endpoint/multimodal@001", "multimodal@001", "https://api.openai.com/v1"),
    ],
)
def test_endpoints_by_name(spec: str, model: str, url: str) -> None:
    embedder = make_embedder(spec)
    assert isinstance(embedder, EndpointEmbedder)
    assert (embedder.model, embedder.url, embedder.name) == (model, url, f"endpoint/{model}")


def test_an_endpoint_takes_options() -> None:
    spec = "endpoint/m@http://127.0.0.1:1/v1"
    assert make_embedder(spec, dimensions=64).dimension == 64
    assert make_embedder({"name": spec, "price": 0.5}).price == 0.5  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="dimension"):
        make_embedder(spec, dimension=64)


def test_an_embedder_is_given_back(tmp_path: Path) -> None:
    own = HashingEmbedder(8)
    assert make_embedder(own) is own
    with pytest.raises(ConfigError, match="already made"):
        make_embedder(own, dimension=9)


def test_a_users_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    assert make_embedder(f"{file}:MyEmbedder", scale=2.0).scale == 2.0  # type: ignore[attr-defined]
    with pytest.raises(UnknownName, match="Nothing has no method embed"):
        make_embedder(f"{file}:Nothing")
    with pytest.raises(ConfigError, match="Nameless has no name"):
        make_embedder(f"{file}:Nameless")
    with pytest.raises(UnknownName, match="did you mean 'MyEmbedder'"):
        make_embedder(f"{file}:MyEmbeder")
    with pytest.raises(ConfigError, match="no file"):
        make_embedder(f"{tmp_path}/none.py:MyEmbedder")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hashng", "did you mean 'hashing'"),
        ("hashng/512", "did you mean 'hashing'"),
        ("sentence/all-MiniLM-L6-v2", "did you mean 'sentences'"),
        ("openai/text-embedding-3-small", "known: chroma, endpoint, hashing, sentences"),
        ("", "known: chroma"),
        ("exact", "no method embed"),
        ("nope@http://user:hidden@host/v1", "unknown embedder 'nope"),
    ],
)
def test_an_unknown_name_lists_the_nearest(spec: str, said: str) -> None:
    with pytest.raises(UnknownName) as caught:
        make_embedder(spec)
    assert said in str(caught.value) and "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        "endpoint", "endpoint/", "sentences/ ", "chroma", "hashing/", "hashing/many", "hashing/-3", "hashing/1",
        "endpoint/m@localhost:8000/v1", "endpoint/m@ftp://host", {"dimension": 3}, {"name": 3},
    ],
)  # fmt: skip
def test_half_a_name_says_how_to_write_it(spec: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make_embedder(spec)
    assert caught.value.todo


@given(spec=st.text(max_size=30) | st.sampled_from(["endpoint/", "chroma/", "hashing/"]).flatmap(
    lambda head: st.text(max_size=12).map(lambda rest: head + rest)))  # fmt: skip
def test_any_name_is_an_embedder_or_a_config_error(spec: str) -> None:
    try:
        made = make_embedder(spec)
    except ConfigError as error:
        assert error.what
    else:
        assert made.name


# the vectors ------------------------------------------------------------------------------------------------------

numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(rows=st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(numbers, min_size=n, max_size=n), max_size=5)))
def test_finite_numbers_become_unit_vectors(rows: list[list[float]]) -> None:
    for row, vector in zip(rows, unit_vectors(rows, len(rows)), strict=True):
        assert math.isclose(sum(x * x for x in vector), 1.0, abs_tol=1e-6)
        if not any(row):
            assert vector == still(len(row))
        else:
            largest = max(abs(x) for x in row)
            scaled = np.asarray(row) / largest
            assert np.dot(scaled, vector) == pytest.approx(np.linalg.norm(scaled), rel=1e-5), "the direction is kept"
        again = unit_vectors([vector], 1)[0]
        assert vector == pytest.approx(again, abs=1e-6)


def test_what_is_not_a_vector_says_where() -> None:
    with pytest.raises(ModelError, match="2 vectors came for 3 texts"):
        unit_vectors([[1.0], [1.0]], 3)
    with pytest.raises(ModelError, match="number 1 of vector 1 is -inf"):
        unit_vectors([[1.0, 1.0], [1.0, -math.inf]], 2)
    with pytest.raises(ModelError, match="vector 1 has 1 numbers, 2 were expected"):
        unit_vectors([[1.0, 1.0], [1.0]], 2)
    with pytest.raises(ModelError, match=r"\(shape \(1,\), bool\)"):
        unit_vectors([[True]], 1)
    assert unit_vectors([np.asarray([3, 4], dtype=np.int8), np.asarray([0, 2], dtype=np.float16)], 2) == [
        pytest.approx((0.6, 0.8)),
        (0.0, 1.0),
    ]


async def test_a_memory_takes_a_made_embedder(tmp_path: Path) -> None:
    from verbal.memory.exact import ExactMemory
    from verbal.types import MemoryOp, Reflection

    with Store(tmp_path / "v.db") as store:
        memory = ExactMemory(store, embedder=make_embedder("hashing/64"))
        await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text="a vip is tier 3"))])
        assert memory.embedder == "hashing-64"
        assert [r.id for r in await memory.search("who is vip", 3)] == ["r1"]
