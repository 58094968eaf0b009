"""Chroma's own embedding functions: one that is registered here, one that needs a download, ones that need a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from verbal.errors import ConfigError, ModelError, RefusedError, TransientError, UnknownName
from verbal.memory.chroma_embedder import ChromaEmbedder
from verbal.memory.embedders import make_embedder

FILES = (
    "config.json", "model.onnx", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt",
)  # fmt: skip


@pytest.fixture
def letters() -> Iterator[type[Any]]:
    """A function of one's own, registered in Chroma: how often a letter comes."""
    from chromadb import EmbeddingFunction
    from chromadb.utils import embedding_functions

    class Letters(EmbeddingFunction[Any]):
        calls: list[list[str]] = []  # noqa: RUF012
        fails: Exception | None = None

        def __init__(self, alphabet: str = "abc") -> None:
            self.alphabet = alphabet

        def __call__(self, input: Any) -> Any:
            self.calls.append(list(input))
            if self.fails is not None:
                raise self.fails
            counts = [[float(text.count(letter)) for letter in self.alphabet] for text in input]
            return [np.asarray(row, dtype=np.float32) for row in counts]

        def embed_query(self, input: Any) -> Any:
            return self([f"{text}a" for text in input])

        @staticmethod
        def name() -> str:
            return "letters"

        def get_config(self) -> dict[str, Any]:
            return {"alphabet": self.alphabet}

        @staticmethod
        def build_from_config(config: dict[str, Any]) -> Any:
            return Letters(**config)

    embedding_functions.register_embedding_function(Letters)
    yield Letters
    del embedding_functions.known_embedding_functions["letters"]


def test_a_registered_function_gives_unit_vectors(letters: Any) -> None:
    embedder = make_embedder("chroma/letters")
    assert (embedder.name, embedder.dimension) == ("chroma/letters", 3)
    first, second, nothing = embedder.embed(["aaabbbb", "c", "zzz"])
    assert first == pytest.approx((0.6, 0.8, 0.0)) and second == (0.0, 0.0, 1.0) and nothing == (1.0, 0.0, 0.0)
    assert embedder.embed([]) == [] and letters.calls == [["dimension"], ["aaabbbb", "c", "zzz"]]
    assert embedder.embed_query(["b"])[0] == pytest.approx((0.5**0.5, 0.5**0.5, 0.0))  # type: ignore[attr-defined]
    assert make_embedder({"name": "chroma/letters", "alphabet": "ab"}).dimension == 2


def test_wrong_vectors_and_failures_are_model_errors(letters: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = ChromaEmbedder("letters")
    embedder.embed(["a"])
    monkeypatch.setattr(embedder._function, "alphabet", "abcd")
    with pytest.raises(ModelError, match="4 numbers, 3 were expected"):
        embedder.embed(["a"])
    monkeypatch.setattr(letters, "fails", httpx.ConnectError("nobody there"))
    with pytest.raises(TransientError, match="nobody there"):
        embedder.embed(["a"])
    monkeypatch.setenv("SOME_API_KEY", "s3cret-key")
    monkeypatch.setattr(letters, "fails", KeyError("s3cret-key"))
    with pytest.raises(ModelError, match=r"KeyError: '\[SOME_API_KEY\]'"):
        embedder.embed(["a"])
    refused = RuntimeError("no such key")
    refused.status_code = 401  # type: ignore[attr-defined]
    monkeypatch.setattr(letters, "fails", refused)
    with pytest.raises(RefusedError, match="401"):
        embedder.embed(["a"])


def test_names_options_and_keys() -> None:
    with pytest.raises(UnknownName, match="did you mean 'default'"):
        ChromaEmbedder("defalt")
    with pytest.raises(ConfigError, match="'openai' cannot be made"):
        ChromaEmbedder("openai")
    with pytest.raises(ConfigError, match="unexpected keyword"):
        ChromaEmbedder("default", color="red")
    assert ChromaEmbedder("default").price == 0.0 and ChromaEmbedder("default", price=1.5).price == 1.5


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Chroma's model would lie, empty."""
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

    monkeypatch.setattr(ONNXMiniLM_L6_V2, "DOWNLOAD_PATH", tmp_path / "model")
    return tmp_path / "model"


def test_without_a_download_the_default_says_what_to_do(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = make_embedder("chroma/default")
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set") as caught:
        embedder.embed(["vip"])
    assert str(away / "onnx") in caught.value.where and "hashing" in caught.value.todo
    assert not away.exists(), "nothing was tried"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ConfigError, match="not on this machine, and cannot be downloaded: ") as tried:
        _ = embedder.dimension
    assert "HF_HUB_OFFLINE" not in str(tried.value)


def test_files_that_are_no_model_are_no_download(away: Path) -> None:
    (away / "onnx").mkdir(parents=True)
    for name in FILES:
        (away / "onnx" / name).write_text("{}")
    with pytest.raises(ModelError):
        make_embedder("chroma/default").embed(["vip"])
