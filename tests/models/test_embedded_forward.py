"""The numpy forward pass against transformers, sampling, and the model behind its contract (random small weights)."""

import asyncio
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from verbal.contracts import Model, Sampling
from verbal.errors import ConfigError, ModelError
from verbal.models import open_model
from verbal.models.embedded import EmbeddedModel
from verbal.models.embedded.codec import Encoded, allowed, decode_answer, encode
from verbal.models.embedded.decode import Decoder
from verbal.models.embedded.fields import Fields
from verbal.models.embedded.forward import Network, choose, log_softmax, read_safetensors
from verbal.models.embedded.read import read_prompt
from verbal.models.embedded.vocabulary import INDEX, VOCABULARY
from verbal.types import Message

PROMPT = """# Role: {role}
## Schema
CREATE TABLE customer (
  customer_id INTEGER PRIMARY KEY, -- 1 to 20
  status TEXT, -- one of 'A', 'C'
  age INTEGER, -- 1 to 90
  name TEXT -- such as 'Ann', 'Bob'
);
## Values
none
## Hints
none
## Tried
{tried}
## SQL
```sql
SELECT COUNT(*) FROM customer
```
## Result
1 row, 1 column: (20)
## Right SQL
```sql
SELECT COUNT(*) FROM customer WHERE age > 30
```
## Candidates
SQL0: SELECT COUNT(*) FROM customer
SQL1: SELECT broken
## Level
2
## Question
How many customers are older than 30?
## Answer
"""


def ask(role: str = "solver", tried: str = "none") -> list[Message]:
    return [Message(role="user", content=PROMPT.format(role=role, tried=tried))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights, written without torch; biased so that answers end."""
    where = tmp_path_factory.mktemp("weights")
    rng = np.random.default_rng(0)
    hidden, inner, layers = 32, 48, 2
    shapes = {"model.embed_tokens.weight": (len(VOCABULARY), hidden), "model.norm.weight": (hidden,)}
    for n in range(layers):
        at = f"model.layers.{n}."
        shapes |= {f"{at}self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
        shapes |= {f"{at}mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"{at}{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, shape in shapes.items():
        values = (np.ones(shape) if len(shape) == 1 else rng.normal(0, 0.3, shape)).astype(np.float32)
        data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    (where / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    config = {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "vocab_size": len(VOCABULARY), "tie_word_embeddings": True, "rope_theta": 10000.0, "hidden_act": "silu",
    }  # fmt: skip
    (where / "config.json").write_text(json.dumps(config))
    return where


def prompt(role: str = "solver") -> Encoded:
    return encode(read_prompt([("user", ask(role)[0].content)]))


def test_reading_in_parts_gives_the_same_scores(folder: Path) -> None:
    network = Network(folder)
    ids = [int(i) for i in np.random.default_rng(1).integers(0, len(VOCABULARY), 60)]
    whole, _ = network.read(ids)
    _, cache = network.read(ids[:20])
    parts, cache = network.read(ids[20:50], cache)
    tails = network.grow(cache, 3, 10)
    for token in ids[50:]:
        stepped = network.step(np.array([token] * 3), tails)
    assert np.allclose(stepped, whole[None], atol=1e-4) and stepped.shape == (3, len(VOCABULARY))
    assert not np.allclose(parts, whole, atol=1e-4)
    with pytest.raises(ValueError, match="513 tokens"):
        network.read([5] * 513)


def test_the_pass_equals_transformers_and_saved_weights_load_in_both(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from verbal.models.embedded import hf

    hf.save(hf.fresh(64, 2, 4, 96, seed=3), tmp_path)
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    encoded = prompt()
    text = " ".join(encoded.tokens)
    assert tokenizer(text).input_ids == encoded.ids and tokenizer.decode(encoded.ids) == text
    with torch.no_grad():
        wanted = model(torch.tensor([encoded.ids])).logits[0, -1].numpy()
    scores, _ = Network(tmp_path).read(encoded.ids)
    assert np.allclose(scores, wanted, atol=1e-4)
    model.save_pretrained(tmp_path / "again")
    assert np.allclose(Network(tmp_path / "again").read(encoded.ids)[0], wanted, atol=1e-4)
    assert hf.load(tmp_path).dtype == torch.float32


def test_grouped_heads_and_an_output_of_its_own_equal_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    ids = list(range(3, 33))
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0, -1].numpy()
    network = Network(tmp_path)
    _, cache = network.read(ids[:-1])
    assert np.allclose(network.step(np.array(ids[-1:]), network.grow(cache, 1, 1))[0], wanted, atol=1e-4)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"x" * 40):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            read_safetensors(tmp_path / "bad")


def test_choosing_follows_temperature_and_top_p() -> None:
    scores = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    rng = np.random.default_rng(0)
    assert choose(scores, 0.0, 1.0, rng) == 0
    drawn = [choose(scores, 1.0, 1.0, rng) for _ in range(4000)]
    assert np.allclose(np.bincount(drawn, minlength=4) / 4000, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    assert {choose(scores, 1.0, 0.7, rng) for _ in range(200)} == {0, 1}
    assert np.allclose(np.exp(log_softmax(scores)).sum(), 1)


def test_samples_repeat_with_their_seed_and_stay_inside_the_mask(folder: Path) -> None:
    decoder, encoded = Decoder(Network(folder)), prompt()
    first = decoder.samples(encoded, 6, 1.0, 0.95, seed=4, max_tokens=24)
    assert [one.tokens for one in first] == [one.tokens for one in decoder.samples(encoded, 6, 1.0, 0.95, 4, 24)]
    assert first[1].tokens == decoder.samples(encoded, 2, 1.0, 0.95, 4, 24)[1].tokens
    assert len({one.tokens for one in first}) > 1
    for sample in first:
        assert set(sample.tokens) <= allowed(encoded)
        assert len(sample.logprobs) == len(sample.tokens) == len(sample.ids)
        ids = [*encoded.ids, *sample.ids]
        scores, _ = decoder.network.read(ids[:-1])
        assert np.isclose(log_softmax(scores)[ids[-1]], sample.logprobs[-1], atol=1e-3)


class _Talker(Network):
    """A network that prefers one answer, then another, whatever it reads."""

    def __init__(self, folder: Path, *answers: str) -> None:
        super().__init__(folder)
        self.wanted = [[INDEX[word] for word in answer.split()] for answer in answers]
        self.said: list[list[int]] = []

    def read(self, ids, past=None):  # type: ignore[no-untyped-def]
        _, cache = super().read(ids, past)
        self.said = []
        return self._scores([]), cache

    def step(self, tokens, tails):  # type: ignore[no-untyped-def]
        self.said = self.said or [[] for _ in tokens]
        self.said = [[*said, int(token)] for said, token in zip(self.said, tokens, strict=False)]
        return np.stack([self._scores(said) for said in self.said])

    def _scores(self, said: list[int]) -> np.ndarray:
        scores = np.full(len(VOCABULARY), -30.0, np.float32)
        for rank, wanted in enumerate(self.wanted):
            if wanted[: len(said)] == said and len(wanted) > len(said):
                scores[wanted[len(said)]] = max(scores[wanted[len(said)]], 5.0 - rank)
        return scores


ALL, OLD = "select count * from b0 <eos>", "select count * from b0 where a0 > v0 <eos>"


def test_queries_that_were_tried_are_not_given_again(folder: Path) -> None:
    encoded = prompt()
    decoder = Decoder(_Talker(folder, ALL, OLD))
    first = decoder.answers(encoded)[0].answer
    assert first is not None and first.sql == "SELECT COUNT(*) FROM customer"
    second = decoder.answers(encoded, avoid={first.sql})[0].answer
    assert second is not None and second.sql == "SELECT COUNT(*) FROM customer WHERE age > 30"
    none = decoder.answers(encoded, avoid={first.sql, second.sql})[0]
    assert none.answer is None and "tried before" in none.problem


def test_malformed_answers_are_replaced(folder: Path) -> None:
    decoder = Decoder(_Talker(folder, "select from <eos>", OLD))
    answer = decoder.answers(prompt())[0].answer
    assert answer is not None and answer.sql.endswith("age > 30")


def test_the_model_keeps_its_contract(folder: Path) -> None:
    model = EmbeddedModel(str(folder))
    assert isinstance(model, Model) and model.name == f"embedded/{folder.name}"
    model._decoder = Decoder(_Talker(folder, ALL, OLD))

    async def talk() -> None:
        replies = await model.generate(ask(), 2, Sampling(seed=1, logprobs=True))
        assert [reply.text for reply in replies] == ["```sql\nSELECT COUNT(*) FROM customer\n```"] * 2
        assert replies[0].usage.prompt_tokens > 20 and replies[1].usage.prompt_tokens == 0
        assert (
            replies[0].usage.completion_tokens == 6 == len(replies[0].token_ids or ()) == len(replies[0].logprobs or ())
        )
        tried = await model.generate(ask(tried="```sql\nselect count(*)\nfrom Customer;\n```"), 1, Sampling())
        assert "WHERE age > 30" in tried[0].text
        assert [piece async for piece in model.stream(ask(), Sampling())] == [replies[0].text]
        judged = await model.generate(ask("judge"), 2, Sampling())
        assert [line[:6] for line in judged[0].text.splitlines()] == ["SQL0: ", "SQL1: "] and len(judged) == 2
        assert "0.2 million parameters" not in await model.check()
        with pytest.raises(ModelError, match="# Role"):
            await model.generate([Message(role="user", content="Hello")], 1, Sampling())
        with pytest.raises(ModelError, match="tools"):
            await model.generate(ask(), 1, Sampling(tools=({"name": "run"},)))
        await model.aclose()

    asyncio.run(talk())


@pytest.mark.parametrize("role", ["solver", "critic", "reflector", "proposer"])
def test_an_untrained_model_still_replies_in_form_or_says_that_it_cannot(folder: Path, role: str) -> None:
    reply = asyncio.run(EmbeddedModel(str(folder)).generate(ask(role), 3, Sampling(temperature=1.0, seed=3)))
    for one in reply:
        assert one.text.startswith(("```sql", "VERDICT: ", "HINT: ", "QUESTION: ", "No answer: "))


def test_missing_or_foreign_weights_are_a_clear_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        asyncio.run(open_model(f"embedded:{tmp_path}").check())
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ConfigError, match="llama expected"):
        asyncio.run(open_model(f"embedded:{other}").check())


def test_the_right_share_is_a_probability(folder: Path) -> None:
    decoder = Decoder(Network(folder))
    fields = read_prompt([("user", ask("critic")[0].content)])
    assert 0 < decoder.right(encode(fields)) < 1
    assert decode_answer(encode(fields), ["right", "<eos>"]).verdict == "right"
    assert isinstance(fields, Fields)
