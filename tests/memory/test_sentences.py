"""sentence-transformers: a tiny model made here, with random weights; skipped where the package is not installed."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from verbal.errors import ConfigError, MissingExtra
from verbal.memory.embedders import make_embedder

installed = importlib.util.find_spec("sentence_transformers") is not None
needs = pytest.mark.skipif(not installed, reason="sentence-transformers is not installed: pip install 'verbal[embed]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the library's own making

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "vip", "tier", "late", "order", "find", ":", "##s"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads 16 tokens and gives 12 numbers; questions are asked with `find: ` before them."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    path = tmp_path_factory.mktemp("models")
    (path / "bert").mkdir()
    (path / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    size = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **size)).save_pretrained(path / "bert")
    BertTokenizerFast(vocab=str(path / "vocab.txt"), model_max_length=16).save_pretrained(path / "bert")
    words = Transformer(str(path / "bert"), max_seq_length=16)
    model = SentenceTransformer(modules=[words, Pooling(12)], prompts={"query": "find: ", "document": ""}, device="cpu")
    model.save(str(path / "tiny"))
    return path / "tiny"


@pytest.mark.skipif(installed, reason="sentence-transformers is installed")
def test_without_the_package_the_extra_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'verbal\[embed\]'"):
        make_embedder("sentences/all-MiniLM-L6-v2")


@needs
def test_a_folder_gives_unit_vectors(folder: Path) -> None:
    embedder: Any = make_embedder(f"sentences/{folder}", device="cpu", batch=2)
    assert embedder.blocking and embedder.dimension == 12 and embedder.embed([]) == []
    texts = ["vip tier", "late orders", "", "vip " * 25_000, "Größe \U0001f600 \ud800"]
    vectors = embedder.embed(texts)
    assert [len(v) for v in vectors] == [12] * 5 and len({v[0] for v in vectors}) == 5
    assert all(sum(x * x for x in v) == pytest.approx(1.0, abs=1e-6) for v in vectors)
    for text, vector in zip(texts, vectors, strict=True):
        assert embedder.embed([text])[0] == pytest.approx(vector, abs=1e-5), "alone or in a batch"
    assert embedder.embed_query(["vip"])[0] == pytest.approx(embedder.embed(["find: vip"])[0], abs=1e-5)
    assert embedder.embed_query(["vip"])[0] != pytest.approx(embedder.embed(["vip"])[0], abs=1e-3)


@needs
def test_vectors_can_be_cut(folder: Path) -> None:
    embedder = make_embedder(f"sentences/{folder}", device="cpu", dimensions=4)
    whole = make_embedder(f"sentences/{folder}", device="cpu").embed(["vip"])[0]
    (cut,) = embedder.embed(["vip"])
    assert embedder.name.endswith("/4") and embedder.dimension == 4
    length = sum(x * x for x in whole[:4]) ** 0.5
    assert cut == pytest.approx([x / length for x in whole[:4]], abs=1e-5)


@needs
def test_the_name_tells_the_files(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    names = [make_embedder(f"sentences/{f}").name for f in (folder, tmp_path / "tiny")]
    assert names[0] == names[1] and names[0].startswith("sentences/tiny-"), "the same files, the same name"
    (tmp_path / "tiny" / "README.md").write_text("what people read")
    assert make_embedder(f"sentences/{tmp_path / 'tiny'}").name == names[0]
    with (tmp_path / "tiny" / "config.json").open("a") as file:
        file.write(" ")
    assert make_embedder(f"sentences/{tmp_path / 'tiny'}").name != names[0]


@needs
def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        make_embedder(f"sentences/{tmp_path}/none")
    with pytest.raises(ConfigError, match="batch 0"):
        make_embedder("sentences/all-MiniLM-L6-v2", batch=0)
    named = make_embedder("sentences/no-such-user/no-such-model")
    assert named.name == "sentences/no-such-user/no-such-model"
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        named.embed(["vip"])
    assert "HF_HUB_OFFLINE is set" in caught.value.todo
    (tmp_path / "modules.json").write_text("{nonsense")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        _ = make_embedder(f"sentences/{tmp_path}").dimension
