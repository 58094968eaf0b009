"""Supervised distillation on tiny models, offline, in one process (the import of TRL is paid once)."""

import json
import math
import os

import pytest

from verbal.contracts import Example, Method
from verbal.errors import ConfigError, DataError, MissingExtra, TrainError, UnknownName
from verbal.parts import make_part
from verbal.store import Store
from verbal.trainers import checkpoint
from verbal.trainers.sft import SFT

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at its import, which is still to come
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

WORDS = [
    "how", "many", "are", "there", "count", "sum", "of", "red", "blue", "green", "cats", "dogs", "birds", "select",
    "from", "where", "is",
]  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' <eos> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random Llama of some thousand weights with a word-level tokenizer and a chat template, as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["<pad>", "<eos>", "<unk>", "<user>", "<assistant>", *WORDS]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def make_rows(n=12):
    colours, animals = ("red", "blue", "green"), ("cats", "dogs", "birds")
    rows = []
    for i in range(n):
        colour, animal = colours[i % 3], animals[i // 3 % 3]
        prompt = [{"role": "user", "content": f"how many {colour} {animal} are there"}]
        completion = [{"role": "assistant", "content": f"select count from {animal} where is {colour}"}]
        rows.append(Example(columns={"prompt": prompt, "completion": completion}, attempts=(f"a{i}",)))
    return rows


def answer(folder, question):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    out = model.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def weights(folder):
    from safetensors.torch import load_file

    return load_file(os.path.join(folder, "model.safetensors"))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_it_is_a_method_that_parts_find():
    method = make_part("trainers", "sft", epochs=1.0)
    assert isinstance(method, Method) and method.name == "sft"
    with pytest.raises(ConfigError, match="epoch"):
        make_part("trainers", "sft", epoch=1.0)
    for option in ({"epochs": math.nan}, {"batch": 0}, {"learning_rate": -1.0}, {"rehearsal": -0.5}, {"blend": 0.0}):
        with pytest.raises(ConfigError):
            SFT(**option)


def test_a_huggingface_model_learns_its_rows(tiny, tmp_path, capfd):
    seen = []
    method = SFT(epochs=40, batch=4, learning_rate=5e-3, device="cpu")
    figures = method.train(
        make_rows(), tiny, str(tmp_path / "out"), seed=3, on_progress=lambda *step: seen.append(step)
    )
    assert capfd.readouterr() == ("", "")
    assert (figures["steps"], figures["rows"], figures["too_long"]) == (120, 12, 0)
    assert figures["loss_first"] > 2 > 0.1 > figures["loss_last"]
    assert figures["tokens"] == 40 * 12 * 17
    assert [s[:2] for s in seen] == [(i, 120) for i in range(1, 121)]
    assert seen[0][2]["loss"] == figures["loss_first"] == figures["curve"][0]["loss"]
    assert seen[-1][2]["tokens_per_second"] > 0 and len(figures["curve"]) == 120
    assert answer(tmp_path / "out", "how many blue dogs are there") == "select count from dogs where is blue"
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".jinja") == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "verbal.json",
    ]  # fmt: skip


def test_the_loss_is_on_the_completion_only(tiny):
    """The contract with TRL: what it makes of our columns (a change here must be seen, not felt)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from verbal.trainers import fit

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    rows = [dict(r.columns) for r in make_rows(2)]
    trainer = fit._Trainer(
        model=AutoModelForCausalLM.from_pretrained(tiny),
        args=fit._config(fit.Run(device="cpu", batch=2), fit.Path(tiny) / "resume", False),
        train_dataset=fit.datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    row = trainer.train_dataset[0]
    trained = [t for t, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert tokenizer.decode(trained) == rows[0]["completion"][0]["content"] + " <eos>"
    batch = trainer.data_collator([trainer.train_dataset[0]])
    assert batch["labels"].tolist()[0] == row["labels"]


def test_same_seed_same_weights_and_a_stopped_run_resumes_to_the_same(tiny, tmp_path):
    method = SFT(epochs=4, batch=4, learning_rate=5e-3, device="cpu", save_steps=5)
    for name in ("one", "two"):
        method.train(make_rows(), tiny, str(tmp_path / name), seed=5)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))

    def stop(done, total, loss):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(make_rows(), tiny, str(tmp_path / "cut"), seed=5, on_progress=stop)
    with pytest.raises(DataError, match="no finished weights"):
        checkpoint.read(tmp_path / "cut")
    with pytest.raises(TrainError, match="other rows or options"):
        method.train(make_rows(6), tiny, str(tmp_path / "cut"), seed=5, resume=True)
    seen = []
    method.train(
        make_rows(), tiny, str(tmp_path / "cut"), seed=5, resume=True, on_progress=lambda *s: seen.append(s[0])
    )
    assert seen[0] == 6
    assert same(weights(tmp_path / "one"), weights(tmp_path / "cut"))
    method.train(make_rows(), tiny, str(tmp_path / "two"), seed=6)
    assert not same(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_lora_is_merged_and_accumulation_counts(tiny, tmp_path):
    method = SFT(epochs=2, batch=4, micro_batch=2, lora_rank=4, learning_rate=1e-2, device="cpu")
    papers = method.train(make_rows(), tiny, str(tmp_path / "out"))
    assert papers["steps"] == 6
    before, after = weights(tiny), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed and all("proj" in k for k in changed)
    with pytest.raises(TrainError, match="does not divide"):
        SFT(batch=4, micro_batch=3).train(make_rows(), tiny, str(tmp_path / "bad"))


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_it(tiny, tmp_path, monkeypatch, broken):
    from transformers import AutoModelForCausalLM

    from verbal.trainers import huggingface

    opened = huggingface.opened

    def poisoned(*asked):
        weights, tokenizer = opened(*asked)
        head = weights.get_output_embeddings().weight
        if broken == "loss":
            head.data[:] = math.nan
        else:
            head.register_hook(lambda grad: grad * math.inf)
        return weights, tokenizer

    monkeypatch.setattr(huggingface, "opened", poisoned)
    with pytest.raises(TrainError, match=f"the {broken} became"):
        SFT(device="cpu").train(make_rows(), tiny, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "verbal.json").exists()
    assert AutoModelForCausalLM is not None


def test_what_is_refused_before_training(tiny, tmp_path):
    method = SFT(device="cpu", max_length=4)
    with pytest.raises(TrainError, match="no rows"):
        method.train([], tiny, str(tmp_path / "out"))
    wrong = Example(columns={"prompt": [], "chosen": []}, attempts=("a1",))
    with pytest.raises(TrainError, match="row 0 has the columns"):
        method.train([wrong], tiny, str(tmp_path / "out"))
    with pytest.raises(TrainError, match="cannot be loaded"):
        method.train(make_rows(), str(tmp_path / "nowhere"), str(tmp_path / "out"))
    with pytest.raises(TrainError, match="all 12 rows are longer than 4 tokens"):
        method.train(make_rows(), tiny, str(tmp_path / "out2"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(TrainError, match="in use"):
        method.train(make_rows(), tiny, str(tmp_path / "mine"))
    with pytest.raises(TrainError, match="is a file"):
        method.train(make_rows(), tiny, str(tmp_path / "mine" / "thesis.tex"))


def test_a_tokenizer_without_chat_template_is_refused(tiny, tmp_path):
    import shutil

    shutil.copytree(tiny, tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    with pytest.raises(TrainError, match="no chat template"):
        SFT(device="cpu").train(make_rows(), str(tmp_path / "plain"), str(tmp_path / "out"))


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    import sys

    for name in [n for n in sys.modules if n.startswith("verbal.trainers.") and n.endswith((".fit", ".huggingface"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "trl.trainer.sft_config", None)
    with pytest.raises(MissingExtra, match=r"verbal\[train\]"):
        SFT().train(make_rows(), "anything", str(tmp_path / "out"))


def test_checkpoints_are_registered_with_papers_and_checked(tiny, tmp_path):
    papers = SFT(epochs=1, device="cpu").train(make_rows(), tiny, str(tmp_path / "out"), seed=9)
    assert papers == json.loads((tmp_path / "out" / "verbal.json").read_text())
    assert (papers["kind"], papers["method"], papers["seed"], papers["base"]) == ("huggingface", "sft", 9, tiny)
    assert papers["attempts"] == sorted(f"a{i}" for i in range(12)) and "torch" in papers["versions"]
    with Store(tmp_path / "verbal.db") as store:
        with pytest.raises(ConfigError, match="cannot name"):
            checkpoint.register(store, "a/b", tmp_path / "out")
        checkpoint.register(store, "first", tmp_path / "out")
        found = checkpoint.resolve(store, "checkpoint:first")
        assert found["model"] == found["path"] == str(tmp_path / "out")
        assert found["info"]["steps"] == 1
        with pytest.raises(UnknownName, match="did you mean 'first'"):
            checkpoint.resolve(store, "frist")
        SFT(epochs=2, device="cpu").train(make_rows(), tiny, str(tmp_path / "out"), seed=9)
        with pytest.raises(TrainError, match="newer weights"):
            checkpoint.resolve(store, "first")
        with (tmp_path / "out" / "model.safetensors").open("ab") as file:
            file.write(b"x")
        with pytest.raises(DataError, match=r"differs: model\.safetensors"):
            checkpoint.resolve(store, "first")
