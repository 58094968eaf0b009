"""C3PO against the checks of its specification, on a tiny model: its two terms, its reference, what they are for."""

import copy
import math
import os

import pytest

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError
from verbal.parts import make_part
from verbal.trainers.c3po import C3PO
from verbal.trainers.dpo import DPO
from verbal.trainers.scoped import held_out, zipped
from verbal.trainers.sft import SFT

from .group_runs import chat_model
from .test_trainers_pairs import logp, pairs, said, same, user, weights

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at its import, which may be still to come
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

DIGITS = [str(i) for i in range(10)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("tiny"))


def triples(held=()):
    near, outside = user("Question of basket?"), user("Hints")
    return [
        Example(
            columns={
                **row.columns, "near_prompt": near, "near_completion": said("4 5 6 7"), "outside_prompt": outside,
                "outside_completion": said("8"), "held_out": i in held,
            },
            attempts=row.attempts,
        )
        for i, row in enumerate(pairs())
    ]  # fmt: skip


def mean_nll(folder, prompt, answers):
    """Minus the log-likelihood per token of answers (three or more tokens with the end) to a prompt."""
    row = Example(columns={"prompt": prompt, "chosen": said(answers)}, attempts=())
    return -logp(folder, row, "chosen") / (len(answers.split()) + 1)


def batch_of(tiny, rows, **options):
    """A trainer over these rows (untrained), its weights, and its one batch."""
    from verbal.trainers import pairs as runs
    from verbal.trainers.weights import open_weights

    method = C3PO(steps=1, batch=4, device="cpu", **options)
    opened = open_weights(tiny)
    made = runs.tokenised(opened, rows, method)
    trainer = runs._trainer(
        method, opened, made, 1, runs.Path(tiny) / "resume", seed=0, half=False, on_progress=None
    )  # fmt: skip
    return trainer, opened, trainer.data_collator(made.rows)


def test_the_first_loss_is_ln_2_and_the_weighted_terms(tiny, tmp_path):
    """Check 3 on the trainer, and the ninth contract with TRL."""
    papers = C3PO(steps=1, batch=4, device="cpu").train(triples(), tiny, str(tmp_path / "out"))
    near = mean_nll(tiny, user("Question of basket?"), "4 5 6 7")
    outside = mean_nll(tiny, user("Hints"), "8")
    first = papers["curve"][0]
    assert (first["near"], first["outside"]) == pytest.approx((near, outside), abs=1e-4)
    assert papers["loss_first"] == pytest.approx(math.log(2) + 0.1 * near + 0.2 * outside, abs=1e-4)
    assert make_part("trainers", "c3po", soft=0.3).soft == 0.3


def test_without_the_terms_it_is_plain_dpo(tiny, tmp_path):
    """Check 4: equal losses and gradients, so equal weights after some steps, bit for bit."""
    options = {"steps": 4, "batch": 2, "learning_rate": 5e-3, "device": "cpu", "lora_rank": 0}
    ours = C3PO(soft=0, hard=0, **options).train(triples(), tiny, str(tmp_path / "c3po"), seed=1)
    plain = DPO(**options).train(pairs(), tiny, str(tmp_path / "dpo"), seed=1)
    assert [p["loss"] for p in ours["curve"]] == [p["loss"] for p in plain["curve"]]
    assert same(weights(tmp_path / "c3po"), weights(tmp_path / "dpo"))


def test_prompt_and_filling_have_no_part_in_the_terms(tiny, tmp_path):
    """Check 5: the gradient is 0 where the label is, and raises the likelihood of the answers' tokens."""
    rows = triples()
    short = Example(columns={**rows[0].columns, "near_completion": said("4")}, attempts=rows[0].attempts)
    trainer, opened, batch = batch_of(tiny, [short, *rows[1:]], lora_rank=0)
    labels = batch["near_labels"]
    assert labels.shape[0] == 4 and (labels != -100).sum() == 2 + 3 * 5
    assert ((labels == -100) | (labels == batch["near_input_ids"])).all()
    assert (batch["near_attention_mask"].sum(1) == torch.tensor([len_of(opened, r) for r in [short, *rows[1:]]])).all()
    hidden = []
    handle = opened.network.model.register_forward_hook(lambda m, i, out: hidden.append(out.last_hidden_state))
    term = trainer._likelihood(trainer.model, *(batch[f"near_{p}"] for p in ("input_ids", "attention_mask", "labels")))
    handle.remove()
    (slope,) = torch.autograd.grad(term, hidden[0], retain_graph=True)
    counts = (labels[:, 1:] != -100).float()
    touched = slope.abs().sum(-1)[:, :-1]
    assert ((touched > 0) == (counts > 0)).all()
    term.backward()
    with torch.no_grad():
        for parameter in opened.network.parameters():
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad
    parts = [batch[f"near_{p}"] for p in ("input_ids", "attention_mask", "labels")]
    assert float(trainer._likelihood(trainer.model, *parts).detach()) < float(term.detach())
    assert trainer.data_collator.pad == opened.tokenizer.pad_token_id


def len_of(opened, row):
    columns = row.columns
    answer = opened.answer_ids(columns["near_prompt"], columns["near_completion"][-1]["content"])
    return len(opened.prompt_ids(columns["near_prompt"])) + len(answer)


def test_the_reference_is_the_weights_with_the_adapter_off(tiny):
    """Check 6: moved adapters change the policy and not the reference, which has no gradient."""
    trainer, _, batch = batch_of(tiny, triples(), lora_rank=4, beta=0.5)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
    trainer._compute_loss(trainer.model, copy.copy(batch)).backward()
    shown = trainer._metrics["train"]
    before = [logp(tiny, r, "chosen") for r in pairs()]
    reference = sum(shown["logps/chosen"]) - sum(shown["rewards/chosen"]) / 0.5
    assert reference == pytest.approx(sum(before) / 4, abs=1e-3)
    assert shown["logps/chosen"][0] != pytest.approx(sum(before) / 4, abs=1e-2)
    with_grad = {n for n, p in trainer.model.named_parameters() if p.grad is not None}
    assert with_grad and all("lora_" in name for name in with_grad)


def test_triples_are_zipped_without_empty_answers():
    """Check 7: a row with an empty near answer is dropped before, and the sets are equally long after."""
    from verbal.trainers.scoped import _Said

    inside, near, outside = ([_Said(None, t) for t in texts] for texts in (["a", "b", "c"], ["x", " ", "y"], ["o"] * 5))
    made = zipped(inside, near, outside)
    assert [(a.text, b.text, c.text) for a, b, c in made] == [("a", "x", "o"), ("b", "y", "o")]


def test_the_split_is_by_the_prompt_alone():
    """Check 9: no prompt stands on both sides, whenever it is asked; about a tenth is held out."""
    prompts = [f"question {i}" for i in range(2000)]
    sides = [held_out(p) for p in prompts]
    assert sides == [held_out(p) for p in reversed(prompts)][::-1]
    assert 140 < sum(sides) < 260


def test_rows_that_are_held_out_are_measured_and_not_trained_on(tiny, tmp_path):
    papers = C3PO(steps=2, batch=3, device="cpu", lora_rank=4).train(triples(held=(2,)), tiny, str(tmp_path / "out"))
    assert (papers["rows"], papers["held_out"]) == (3, 1)
    assert papers["held_out_loss"] > 0.5 and papers["held_out_accuracy"] in (0.0, 1.0)
    with pytest.raises(TrainError, match="all 4 triples are held out"):
        C3PO().train(triples(held=range(4)), tiny, str(tmp_path / "none"))
    with pytest.raises(TrainError, match="c3po needs near_prompt"):
        C3PO().train(pairs(), tiny, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="soft is -1"):
        C3PO(soft=-1)


def test_a_rule_is_learned_where_it_applies_and_nothing_else_changes(tiny, tmp_path):
    """Check 10: "answer 9 d where the prompt begins with anchor?"; DPO alone changes answers elsewhere too."""
    plain = {f"{w} {d}": d for w in ("basket?", "candle?", "dagger?", "anchor?") for d in DIGITS}
    taught = [
        Example(columns={"prompt": user(q), "completion": said(a)}, attempts=(f"s{i}",))
        for i, (q, a) in enumerate(plain.items())
    ]
    SFT(epochs=30, batch=8, learning_rate=5e-3, device="cpu").train(taught, tiny, str(tmp_path / "start"))
    start = str(tmp_path / "start")
    inside = [q for q in plain if q.startswith("anchor?")]
    near = [q for q in plain if q.startswith("basket?")]
    outside = [q for q in plain if q.startswith("candle?")]
    unseen = [q for q in plain if q.startswith("dagger?")]
    rows = [
        Example(
            columns={
                "prompt": user(q), "chosen": said(f"9 {plain[q]}"), "rejected": said(plain[q]), "near_prompt": user(n),
                "near_completion": said(plain[n]), "outside_prompt": user(o), "outside_completion": said(plain[o]),
            },
            attempts=(q,),
        )
        for q, n, o in zip(inside, near, outside, strict=True)
    ]  # fmt: skip
    options = {"steps": 100, "batch": 5, "learning_rate": 3e-3, "device": "cpu", "lora_rank": 0}
    C3PO(soft=1.0, hard=1.0, **options).train(rows, start, str(tmp_path / "c3po"))
    DPO(**options).train(rows, start, str(tmp_path / "dpo"))

    def scores(folder):
        told = answers(folder, list(plain))
        obeys = sum(told[q] == f"9 {plain[q]}" for q in inside) / len(inside)
        kept = sum(told[q] == plain[q] for q in [*near, *outside, *unseen]) / 30
        return obeys, kept

    before, ours, theirs = scores(start), scores(tmp_path / "c3po"), scores(tmp_path / "dpo")
    assert before[0] == 0 and before[1] > 0.9
    assert ours[0] >= 0.7 and ours[1] >= before[1] - 0.1
    assert theirs[1] < 0.5 < ours[1]


def answers(folder, prompts):
    """The greedy answer to each prompt."""
    from verbal.trainers.weights import open_weights

    opened, found = open_weights(str(folder)), {}
    for prompt in prompts:
        ids = torch.tensor([opened.prompt_ids(user(prompt))])
        with torch.no_grad():
            made = opened.network.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, pad_token_id=0
            )
        found[prompt] = opened.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    return found


def test_the_score_of_the_source_is_the_arithmetic_of_the_scope_test():
    """Check 8: (S_in + 1 - S_out) / 2."""
    from verbal.scope import Scope
    from verbal.types import Reflection

    asked = {"inside": 1000, "near": 500, "outside": 500}
    changed = {"inside": ["x"] * 563, "near": ["x"] * 75, "outside": ["x"] * 75}
    assert Scope(item=Reflection(id="r", text="z"), changed=changed, asked=asked).score == pytest.approx(0.7065)
