"""DPO and KTO on tiny models, offline, in one process."""

import json
import math
import os

import pytest

from verbal.contracts import Example, Method
from verbal.errors import ConfigError, DataError, TrainError
from verbal.parts import make_part
from verbal.trainers import checkpoint
from verbal.trainers.dpo import DPO
from verbal.trainers.kto import KTO, weights_of

from .attempt_stores import filled, make_attempt, make_task
from .group_runs import chat_model

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at its import, which may be still to come
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

WORDS = ("anchor", "basket", "candle", "dagger")
SHOP = """# Role: solver
## Schema
CREATE TABLE cat (
  cat_id INTEGER PRIMARY KEY,
  name TEXT,
  age INTEGER
);

## Values
none

## Hints
none

## Tried
none

## Question
{question}

## Answer
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def slots(tmp_path_factory):
    """An embedded model of random weights, small enough for tests."""
    from verbal.models.embedded import hf

    folder = tmp_path_factory.mktemp("slots")
    hf.save(hf.fresh(hidden=32, layers=2, heads=2, inner=64, seed=0), folder)
    return f"embedded:{folder}"


def user(text):
    return [{"role": "user", "content": text}]


def said(text):
    return [{"role": "assistant", "content": text}]


def pairs():
    """Right: the number of the word's place; wrong: nine less that."""
    return [
        Example(
            columns={"prompt": user(f"code of {w}?"), "chosen": said(f"{i} {i}"), "rejected": said(f"{9 - i}")},
            attempts=(f"a{i}", f"b{i}"),
        )
        for i, w in enumerate(WORDS)
    ]


def thumbs():
    return [
        Example(columns={"prompt": row.columns["prompt"], "completion": row.columns[k], "label": k == "chosen"},
                attempts=row.attempts)
        for row in pairs() for k in ("chosen", "rejected")
    ]  # fmt: skip


def weights(folder):
    from safetensors.torch import load_file

    return load_file(os.path.join(folder, "model.safetensors"))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def logp(folder, row, key):
    """What a model gives to an answer, nats, by a plain forward pass."""
    from verbal.trainers.weights import open_weights

    opened = open_weights(str(folder))
    prompt = opened.prompt_ids(row.columns["prompt"])
    answer = opened.answer_ids(row.columns["prompt"], row.columns[key][-1]["content"])
    with torch.no_grad():
        logits = opened.network(torch.tensor([prompt + answer])).logits[0]
    at = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return sum(float(logits[i].log_softmax(-1)[t]) for i, t in zip(at, answer, strict=True))


CASES = {"dpo": (DPO, pairs), "kto": (KTO, thumbs)}


@pytest.mark.parametrize("name", CASES)
def test_right_answers_become_likelier_than_wrong_ones(name, tiny, tmp_path, capfd):
    kind, rows = CASES[name]
    method = kind(steps=30, batch=4, learning_rate=5e-3, beta=0.5, device="cpu")
    assert isinstance(method, Method) and isinstance(make_part("trainers", name, beta=0.2), kind)
    seen = []
    papers = method.train(rows(), tiny, str(tmp_path / "out"), seed=3, on_progress=lambda *step: seen.append(step))
    assert capfd.readouterr() == ("", "")
    before, after = (
        sum(logp(f, r, "chosen") - logp(f, r, "rejected") for r in pairs()) for f in (tiny, tmp_path / "out")
    )
    assert after > before + 8
    assert [s[:2] for s in seen] == [(i, 30) for i in range(1, 31)]
    assert {"loss", "reward_margin", "entropy", "tokens_per_second"} <= seen[-1][2].keys()
    assert ("kl" in seen[-1][2]) == (name == "kto")
    first = seen[0][2]["loss"]
    assert first == pytest.approx(math.log(2) if name == "dpo" else 0.5, abs=1e-5)
    assert papers["loss_first"] == first > papers["loss_last"] and papers["reward_margin_last"] > 1
    assert [p["step"] for p in papers["curve"]] == list(range(1, 31))
    assert (papers["rows"], papers["left_out"], papers["steps"]) == (len(rows()), {}, 30)
    assert papers == json.loads((tmp_path / "out" / "verbal.json").read_text())
    assert not (tmp_path / "out" / "resume").exists()


@pytest.mark.parametrize("name", CASES)
def test_same_seed_same_weights_and_a_stopped_run_resumes_to_the_same(name, tiny, tmp_path):
    kind, rows = CASES[name]
    method = kind(steps=8, batch=4, micro_batch=2, learning_rate=5e-3, device="cpu", save_steps=3)
    whole = method.train(rows(), tiny, str(tmp_path / "one"), seed=5)

    def stop(done, total, figures):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(rows(), tiny, str(tmp_path / "cut"), seed=5, on_progress=stop)
    with pytest.raises(DataError, match="no finished weights"):
        checkpoint.read(tmp_path / "cut")
    with pytest.raises(TrainError, match="other rows or options"):
        method.train(rows()[:-1], tiny, str(tmp_path / "cut"), seed=5, resume=True)
    seen = []
    papers = method.train(
        rows(), tiny, str(tmp_path / "cut"), seed=5, resume=True, on_progress=lambda *s: seen.append(s[0])
    )
    assert seen[0] == 4
    assert same(weights(tmp_path / "one"), weights(tmp_path / "cut"))
    assert papers["curve"] == whole["curve"]
    method.train(rows(), tiny, str(tmp_path / "other"), seed=6)
    assert not same(weights(tmp_path / "one"), weights(tmp_path / "other"))


def test_the_likelihood_term_is_per_token_of_the_right_answer(tiny, tmp_path):
    method = DPO(steps=1, batch=4, likelihood=0.5, device="cpu")
    papers = method.train(pairs(), tiny, str(tmp_path / "out"))
    mean = -sum(logp(tiny, row, "chosen") for row in pairs()) / sum(3 for _ in pairs())
    assert papers["loss_first"] == pytest.approx(math.log(2) + 0.5 * mean, abs=1e-4)


def test_weights_of_labels_make_up_for_their_numbers(tiny, tmp_path):
    assert weights_of(10, 40) == (4.0, 1.0) and weights_of(40, 10) == (1.0, 4.0)
    assert weights_of(10, 40, up=1.0) == (1.0, 0.25) and weights_of(10, 40, 2.0, 3.0) == (2.0, 3.0)
    rows = [row for row in thumbs() if not row.columns["label"]] + thumbs()[:1]
    papers = KTO(steps=1, batch=5, device="cpu").train(rows, tiny, str(tmp_path / "out"))
    assert papers["loss_first"] == pytest.approx(0.5 * (4 * 1.0 + 1 * 4.0) / 5, abs=1e-5)


def test_the_kl_estimate_is_of_answers_to_other_prompts():
    from verbal.trainers.kto import _Turned

    turned = _Turned(lambda rows: [row["KL_completion_ids"] for row in rows])
    assert turned([{"completion_ids": [i]} for i in range(4)]) == [[3], [0], [1], [2]]


def test_a_blend_lies_between_the_weights_before_and_after(tiny, tmp_path):
    options = {"steps": 3, "batch": 4, "learning_rate": 1e-2, "device": "cpu"}
    for blend in (1.0, 0.25):
        DPO(blend=blend, **options).train(pairs(), tiny, str(tmp_path / str(blend)))
    before, after, part = (weights(f) for f in (tiny, tmp_path / "1.0", tmp_path / "0.25"))
    assert all(torch.allclose(part[k], torch.lerp(before[k], after[k], 0.25), atol=1e-6) for k in before)
    assert not same(before, part)


def test_lora_compares_with_the_adapter_off_and_is_merged(tiny, tmp_path):
    method = DPO(steps=12, batch=4, lora_rank=4, learning_rate=2e-2, beta=0.5, device="cpu")
    papers = method.train(pairs(), tiny, str(tmp_path / "out"))
    assert papers["loss_first"] == pytest.approx(math.log(2), abs=1e-5)
    before, after = weights(tiny), weights(tmp_path / "out")
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert before.keys() == after.keys() and changed and all("proj" in k for k in changed)
    assert papers["curve"][0]["reward_margin"] == 0 and papers["curve"][-1]["reward_margin"] > 0.05


@pytest.mark.parametrize("name", CASES)
def test_the_embedded_model_reads_the_rows_as_slots_and_its_policy_answers(name, slots, tmp_path):
    kind, _ = CASES[name]
    right, wrong = "```sql\nSELECT COUNT(*) FROM cat\n```", "```sql\nSELECT MAX(age) FROM cat\n```"
    asked = [SHOP.format(question=q) for q in ("How many cats are there?", "Count the cats.")]
    rows = []
    for q in asked:
        if name == "dpo":
            rows.append({"prompt": user(q), "chosen": said(right), "rejected": said(wrong)})
        else:
            rows += [{"prompt": user(q), "completion": said(t), "label": t == right} for t in (right, wrong)]
    extra = {"prompt": user(asked[0]), "chosen": said("no query"), "rejected": said(wrong), "completion": said("none"),
             "label": True}  # fmt: skip
    rows.append({k: extra[k] for k in rows[0]})
    if name == "dpo":
        rows.append({**rows[0], "rejected": said("```sql\nSELECT count(*) FROM cat\n```")})
    examples = [Example(columns=row, attempts=(f"a{i}",)) for i, row in enumerate(rows)]
    method = kind(steps=12, batch=4, learning_rate=3e-3, device="cpu")
    papers = method.train(examples, slots, str(tmp_path / "out"))
    assert papers["kind"] == "embedded" and papers["rows"] == (2 if name == "dpo" else 4)
    told = {
        "both answers are the same to these weights",
        "the embedded model cannot say 'no query': a completion without a fenced query",
    }
    assert set(papers["left_out"]) == told if name == "dpo" else sum(papers["left_out"].values()) == 1
    assert papers["curve"][-1]["reward_margin"] > papers["curve"][0]["reward_margin"]
    assert checkpoint.read(tmp_path / "out")["method"] == name


def test_a_beginning_that_all_rows_share_is_read_once_to_the_same_result(slots):
    from verbal.trainers.prefix import shared_prefix, sharing
    from verbal.trainers.weights import open_weights

    network = open_weights(slots).network
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 90, (3, 50), generator=generator)
    ids[:, :40] = ids[0, :40]
    ids[:, 40] = torch.tensor([1, 2, 3])
    mask = torch.ones_like(ids)
    mask[1, 45:] = 0
    assert shared_prefix(ids, mask) == 40 and shared_prefix(ids[:1]) == 48
    mask[:, 0] = torch.tensor([1, 0, 1])
    assert shared_prefix(ids, mask) == 0
    mask[:, 0] = 1
    read = []
    handle = network.model.layers[0].register_forward_pre_hook(lambda m, args, kw=None: read.append(args[0].shape))

    def run():
        network.zero_grad()
        made = network(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
        (made[:, :, 7] * mask).sum().backward()
        return made.detach()[mask.bool()], [p.grad.clone() for p in network.parameters() if p.grad is not None]

    plain, slopes = run()
    with sharing(network):
        shared, others = run()
        short = network(input_ids=ids[:, 20:], attention_mask=mask[:, 20:], use_cache=False).logits
    handle.remove()
    assert [tuple(s[:2]) for s in read] == [(3, 50), (1, 40), (3, 10), (3, 30)] and short.shape[:2] == (3, 30)
    assert torch.allclose(plain, shared, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4 * float(a.abs().max())) for a, b in zip(slopes, others, strict=True))
    assert "forward" not in vars(network.model)


def test_what_teaches_nothing_is_refused_before_torch(tiny, tmp_path, monkeypatch):
    from verbal.trainers import pairwise

    monkeypatch.setattr(pairwise, "load", lambda name: pytest.fail("torch was asked for"))
    task = make_task()
    alike = [(make_attempt(task, i, f"SELECT {i}"), 1.0) for i in range(3)]
    with filled(tmp_path / "s", [task], alike) as store:
        with pytest.raises(TrainError, match="no task has both"):
            DPO().examples(store)
        with pytest.raises(TrainError, match="all 3 labels are right"):
            KTO().examples(store)
    out = str(tmp_path / "out")
    with pytest.raises(TrainError, match="dpo has no pairs to train on"):
        DPO().train([], tiny, out)
    with pytest.raises(TrainError, match="dpo needs chosen, rejected"):
        DPO().train(thumbs(), tiny, out)
    with pytest.raises(TrainError, match="all 4 labels are wrong"):
        KTO().train([row for row in thumbs() if not row.columns["label"]], tiny, out)


def test_rows_that_cannot_be_used_are_told(tiny, tmp_path):
    with pytest.raises(TrainError, match=r"none of 4 rows is left for dpo: longer than 5 tokens \(4\)"):
        DPO(max_length=5, device="cpu").train(pairs(), tiny, str(tmp_path / "a"))
    rows = thumbs()
    long = [Example(columns={**r.columns, "completion": said("9 " * 30)}, attempts=r.attempts) for r in rows[1::2]]
    with pytest.raises(TrainError, match=r"all 4 rows that these weights can say are right: longer than 20"):
        KTO(max_length=20, device="cpu").train([*rows[::2], *long], tiny, str(tmp_path / "b"))
    assert not (tmp_path / "b" / "verbal.json").exists()


def test_a_loss_that_is_no_number_stops_it_with_the_batch_kept(tiny, tmp_path, monkeypatch):
    from verbal.trainers import pairs as runs

    opened = runs.open_weights

    def poisoned(model, **options):
        found = opened(model, **options)
        found.network.get_output_embeddings().weight.data[:] = math.nan
        return found

    monkeypatch.setattr(runs, "open_weights", poisoned)
    with pytest.raises(TrainError, match="the loss became nan at step 1 of 3") as error:
        DPO(steps=3, batch=4, device="cpu").train(pairs(), tiny, str(tmp_path / "out"))
    assert "offending_batch.json" in error.value.where
    batch = json.loads((tmp_path / "out" / "offending_batch.json").read_text())
    assert len(batch["rows"]) == 8 and not (tmp_path / "out" / "verbal.json").exists()


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (DPO, {"beta": 0}, "beta is 0"),
        (DPO, {"batch": 4, "micro_batch": 3}, "does not divide"),
        (DPO, {"epochs": 1, "steps": 2}, "both given"),
        (DPO, {"smoothing": 0.5}, "smoothing"),
        (DPO, {"likelihood": -1}, "likelihood"),
        (DPO, {"lora_rank": -1}, "lora_rank"),
        (DPO, {"blend": 0.0}, "blend"),
        (DPO, {"blend": 0.5, "lora_rank": 4}, "blend"),
        (KTO, {"desirable_weight": 0}, "desirable_weight"),
        (KTO, {"batch": 4, "micro_batch": 1}, "one row in memory"),
    ],
)
def test_options_that_cannot_be(kind, options, told):
    with pytest.raises(ConfigError, match=told):
        kind(**options)
