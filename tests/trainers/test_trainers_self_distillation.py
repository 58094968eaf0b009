"""SDFT and SDPO through TRL's experimental trainers, on a tiny model."""

import dataclasses
import math
import os

import pytest

from verbal.contracts import Example, Method
from verbal.errors import ConfigError, TrainError
from verbal.parts import make_part
from verbal.trainers.examples import Row
from verbal.trainers.sdft import SDFT
from verbal.trainers.sdpo import SDPO
from verbal.trainers.sft import SFT

from .attempt_stores import fenced, filled, make_attempt, make_task
from .group_runs import chat_model, recipe
from .test_trainers_c3po import answers
from .test_trainers_pairs import said, same, user, weights

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at its import, which may be still to come
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

PLACES = {"anchor": "3", "basket": "7", "candle": "1", "dagger": "9"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("tiny"))


def told():
    """Questions, right answers, and words that say the answer."""
    return [
        Example(
            columns={"prompt": user(f"code of {w}?"), "completion": said(d), "privileged_context": f"code is {d}"},
            attempts=(f"a-{w}",),
        )
        for w, d in PLACES.items()
    ]


def tasks(app_recipe):
    from verbal.testing import TinyApp

    found = [t for t in TinyApp(app_recipe.app.options["codes"]).tasks("train")]
    return [
        Row(
            columns={"prompt": [{"role": m.role, "content": m.content} for m in t.messages]}, attempts=(), task=t.id,
            origin="task", critic="", value=None, oracle=False,
        )
        for t in found
    ]  # fmt: skip


SMALL = {"device": "cpu", "max_tokens": 4, "max_length": 90}


def test_sdft_puts_what_the_words_say_into_the_weights(tiny, tmp_path, capfd):
    """Weights that repeat the words, and say one and the same without them, answer each question afterwards."""
    repeats = [
        Example(columns={"prompt": user(f"code of {w}?\n\ncode is {i}"), "completion": said(str(i))}, attempts=("s",))
        for w in PLACES
        for i in range(10)
    ]
    start = str(tmp_path / "start")
    SFT(epochs=40, batch=8, learning_rate=5e-3, device="cpu").train(repeats, tiny, start)
    method = SDFT(steps=30, tasks=4, group=4, topk=8, learning_rate=3e-3, **SMALL)
    assert isinstance(method, Method) and make_part("trainers", "sdft", alpha=1.0).alpha == 1
    seen = []
    papers = method.train(told(), start, str(tmp_path / "out"), seed=1, on_progress=lambda *s: seen.append(s))
    assert capfd.readouterr() == ("", "")
    assert papers["loss_first"] > 10 * papers["loss_last"] > 0 and papers["experimental"] == "trl.experimental.sdft"
    assert [s[0] for s in seen] == list(range(1, 31)) == [p["step"] for p in papers["curve"]]
    asked = [f"code of {w}?" for w in PLACES]
    before, after = answers(start, asked), answers(tmp_path / "out", asked)
    assert sum(before[q] == d for q, d in zip(asked, PLACES.values(), strict=True)) <= 2
    assert sum(after[q] == d for q, d in zip(asked, PLACES.values(), strict=True)) >= 3


def test_the_teacher_reads_the_words_after_the_prompt_or_a_demonstration(tiny):
    from verbal.trainers import self_distillation as runs
    from verbal.trainers.weights import open_weights

    asked = {}
    for source in ("words", "demonstrations"):
        method = SDFT(source=source, steps=1, tasks=2, **SMALL)
        opened = open_weights(tiny)
        rows, left_out = runs._rows(method, opened, told())
        trainer = runs._trainer(
            method, opened, rows, runs.Path(tiny) / "resume", None, seed=0, half=False, on_progress=None
        )  # fmt: skip
        row = rows[0]
        (asked[source],) = trainer.teacher_context_builder.select_generation_prompts(
            [row["prompt"]], [row["privileged_context"]]
        )
        assert left_out == {}
    assert asked["words"] == user("code of anchor?\n\ncode is 3")
    text = asked["demonstrations"][-1]["content"]
    assert text.startswith("code of anchor?\n\nThis is an example of a good answer:\n\n3\n\n")


@pytest.mark.parametrize("teacher", ["base", "ema"])
def test_sdft_resumes_to_the_same_weights_its_teacher_included(tiny, tmp_path, teacher):
    method = SDFT(
        steps=5, tasks=2, teacher=teacher, teacher_rate=0.3, learning_rate=5e-3, save_steps=2, topk=8, **SMALL
    )  # fmt: skip
    whole = method.train(told(), tiny, str(tmp_path / "one"), seed=2)

    def stop(done, total, figures):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(told(), tiny, str(tmp_path / "cut"), seed=2, on_progress=stop)
    papers = method.train(told(), tiny, str(tmp_path / "cut"), seed=2, resume=True)
    assert papers["curve"] == whole["curve"]
    assert same(weights(tmp_path / "one"), weights(tmp_path / "cut"))


def test_a_lora_teacher_that_moves_is_not_resumed(tiny, tmp_path):
    method = SDFT(steps=3, tasks=2, teacher="ema", lora_rank=2, save_steps=1, learning_rate=1e-2, topk=8, **SMALL)

    def stop(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(told(), tiny, str(tmp_path / "cut"), on_progress=stop)
    with pytest.raises(TrainError, match="kept in no checkpoint"):
        method.train(told(), tiny, str(tmp_path / "cut"), resume=True)
    papers = method.train(told(), tiny, str(tmp_path / "cut"))
    changed = {k for k, v in weights(tmp_path / "cut").items() if not torch.equal(v, weights(tiny)[k])}
    assert papers["steps"] == 3 and changed and all("proj" in k for k in changed)


def test_sdpo_distils_attempts_of_the_loop_and_reads_siblings_and_words(tiny, tmp_path, monkeypatch):
    """Right answers, words about wrong ones, both or nothing: which rows are distilled is told by what can be read."""
    from verbal.trainers import self_distillation as runs

    read = []
    attempts = runs._attempts

    async def watched(*args):
        found = await attempts(*args)
        read.extend((one.value, words) for one, words in found)
        return found

    monkeypatch.setattr(runs, "_attempts", watched)
    plan = recipe(codes=PLACES)
    method = SDPO(steps=3, tasks=4, group=8, learning_rate=3e-3, **SMALL)
    papers = method.train(tasks(plan), tiny, str(tmp_path / "out"), recipe=plan)
    assert papers["experimental"] == "trl.experimental.sdpo" and papers["generated"] > 0 and papers["rows"] == 4
    assert len(read) == 3 * 32 and {value for value, _ in read} == {0.0, 1.0}
    assert all(words == "" for value, words in read if value == 1.0)
    assert all(math.isfinite(p["loss"]) for p in papers["curve"])
    assert not same(weights(tiny), weights(tmp_path / "out"))
    assert (tmp_path / "out" / "rollouts.db").is_file()


def test_sdpo_reads_no_words_that_give_the_answer_away(tiny, tmp_path):
    import asyncio

    from verbal.trainers import self_distillation as runs

    from .group_runs import rollouts

    def reply(messages, index, seed):
        text = messages[-1].content
        if "# Role: reflector" in text:
            return "the code is 3" if "anchor" in text else "look it up again"
        return "5"

    args = type("Args", (), {"include_environment_feedback": True, "success_reward_threshold": 1.0})
    with rollouts(tmp_path, reply) as made:
        found = made.run(runs._attempts(made, ["train-anchor", "train-basket"], 2, 0, args))
    assert [words for _, words in found] == ["", "", "look it up again", "look it up again"]
    assert {one.value for one, _ in found} == {0.0}
    assert asyncio.iscoroutinefunction(runs._attempts)


def test_rows_of_a_store(tmp_path):
    task = make_task()
    pairs = [(make_attempt(task, 0, "SELECT 1"), 0.0), (make_attempt(task, 1, "SELECT 2", hints={"h": "two is"}), 1.0)]
    with filled(tmp_path, [task], pairs) as store:
        (row,) = SDFT().examples(store)
        assert row.columns["privileged_context"] == "two is" and SDFT().words_of(row) == "two is"
        (row,) = SDFT(source="demonstrations").examples(store)
        assert SDFT(source="demonstrations").words_of(row) == fenced("SELECT 2")
        (row,) = SDPO().examples(store)
        assert row.task == "t1"


@pytest.mark.parametrize("kind", [SDFT, SDPO])
def test_the_embedded_model_is_refused_with_the_reason(kind, tmp_path):
    with pytest.raises(TrainError, match="other slots stand for the same names") as error:
        kind().train(told(), "embedded", str(tmp_path / "out"))
    assert "sft" in error.value.todo and not (tmp_path / "out").exists()


def test_what_is_refused(tiny, tmp_path):
    with pytest.raises(TrainError, match="sdft has no rows"):
        SDFT().train([], tiny, str(tmp_path / "out"))
    bare = [Example(columns={k: v for k, v in r.columns.items() if k != "privileged_context"}, attempts=("a",))
            for r in told()]  # fmt: skip
    with pytest.raises(TrainError, match="needs privileged_context"):
        SDFT().train(bare, tiny, str(tmp_path / "out"))
    with pytest.raises(TrainError, match=r"none of 4 rows is left for sdft: a prompt of more than 1 tokens \(4\)"):
        SDFT(max_tokens=4, max_length=5, device="cpu").train(told(), tiny, str(tmp_path / "out"))
    wrong = [
        (SDFT, {"alpha": 2}), (SDFT, {"mode": "sampled_token"}), (SDFT, {"template": "{prompt}"}), (SDFT, {"steps": 0}),
        (SDFT, {"tasks": 3, "group": 2, "micro_batch": 4}), (SDPO, {"group": 1}), (SDPO, {"policy": 1.0}),
        (SDPO, {"siblings": False, "words": "never"}),
    ]  # fmt: skip
    for kind, options in wrong:
        with pytest.raises(ConfigError):
            kind(**options)
    assert dataclasses.is_dataclass(SDPO)
