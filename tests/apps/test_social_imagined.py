"""Imagined conversations: what is dropped, when rows may be trained on, and rows of utterances."""

from __future__ import annotations

import json

import pytest

from verbal.apps.social import Social, Transcript
from verbal.apps.social.imagined import BALANCE, Imagined, Imaginings, imagine, imagine_people, knows_too_much
from verbal.apps.social.rows import refined_rows, write_rows
from verbal.apps.social.scenarios import scenario_of
from verbal.errors import DataError, RefusedError
from verbal.models import open_model
from verbal.testing import ScriptedModel

APP = Social()
ONE = scenario_of(APP.tasks("train")[0])


def imagines(messages, index, seed):
    """Writes a conversation as the prompt asks, a skilled one that works and others that do not; labels outcomes."""
    text = messages[0].content
    if "# Role: judge" in text:
        return f"Clear.\nOUTCOME: {'reached' if 'THEM: Yes, gladly.' in text else 'not reached'}"
    mark = f"{seed} {text.count('listens')}"
    end = (
        "Yes, gladly."
        if "skilled: listens" in text
        else "No."
        if "clumsy" in text
        else ("Yes, gladly.", "No.")[seed % 2]
    )
    return f"ME: How are you, number {mark}?\nTHEM: Fine.\nME: Then please.\nTHEM: {end}\nOUTCOME: reached"


async def test_a_whole_imagining_is_balanced_labelled_and_gives_rows(tmp_path) -> None:
    people = await imagine_people(APP, open_model("rules:social"), 6, seed=4)
    assert len(people) >= 5 and len({p.id for p in people}) == len(people)
    made = await imagine(APP, ScriptedModel(imagines), people, each=2)
    assert made.problems() == [] and BALANCE[0] <= made.share_reached <= BALANCE[1]
    assert sum(t.reward for t in made.best()) / len(made.best()) > sum(t.reward for t in made.talks) / len(made.talks)
    kto, sft = made.rows(APP, "kto"), made.rows(APP, "sft")
    assert len(kto) == 2 * len(made.talks) and {r["label"] for r in kto} == {True, False}
    assert len(sft) == 2 * len(made.best()) and "label" not in sft[0]
    assert [m["role"] for m in kto[1]["prompt"]] == ["user", "assistant", "user"]
    assert kto[1]["completion"] == [{"role": "assistant", "content": "Then please."}]
    hidden = [t.scenario.secret for t in made.talks]
    assert not [r for r in kto for s in hidden if s in json.dumps(r)]
    from verbal.trainers.exported import rows_from_export

    write_rows(tmp_path / "rows", kto)
    read = rows_from_export(tmp_path / "rows", cache=tmp_path / "cache")
    assert len(read) == len(kto) and read[0].columns["label"] in (True, False)


async def test_what_may_not_be_trained_on_is_dropped_and_counted() -> None:
    replies = iter(
        [
            f"ME: I know that {ONE.secret}.\nTHEM: How?\nOUTCOME: reached",
            "A story without lines.",
            RefusedError("no"),
            "ME: Same words.\nTHEM: Yes.\nOUTCOME: reached",
            "ME: Same words.\nTHEM: No.\nOUTCOME: reached",
            "\n".join(["ME: a", "THEM: b"] * 7),
        ]
    )

    def reply(messages, index, seed):
        if "# Role: judge" in messages[0].content:
            return "unclear"
        found = next(replies)
        if isinstance(found, Exception):
            raise found
        return found

    made = await imagine(APP, ScriptedModel(reply), [ONE], each=2)
    assert made.talks == [] and dict(made.dropped) == {
        "knows the hidden fact before it was told": 1, "no conversation": 3, "a repeat": 1,
        "no outcome can be read": 1,
    }  # fmt: skip
    assert made.best() == [] and made.share_repeated == 1.0
    with pytest.raises(DataError, match="may not be trained on"):
        made.rows(APP)


async def test_held_out_people_are_not_imagined_with() -> None:
    with pytest.raises(DataError, match="held out"):
        await imagine(APP, ScriptedModel(["x"]), [scenario_of(APP.tasks("dev")[0])])


def test_a_refined_turn_is_preferred_to_what_is_worse() -> None:
    task = APP.tasks("train")[0]
    said = [("ME", "What holds you back?"), ("THEM", "Time.")]
    candidates = ["What holds you back?", "It was measured in three towns.", "Nice day over here.", "It is fine."]
    rows = refined_rows(task, said, candidates)
    assert {r["chosen"][0]["content"] for r in rows} == {candidates[1]} and rows[0]["value"] == 4.0
    assert [r["rejected"][0]["content"] for r in rows] == [candidates[0], candidates[2], candidates[3]]
    assert [m["role"] for m in rows[0]["prompt"]] == ["user", "assistant", "user"]
    human = refined_rows(task, said, candidates, human="My aunt gave it a year of thought.")
    assert len(human) == 4 and human[0]["value"] == 10.0
    assert refined_rows(task, said, candidates[2:]) == [], "equal candidates say nothing"


@pytest.mark.parametrize(("good", "fine"), [(2, False), (3, True), (7, True), (8, False)])
def test_outcomes_must_be_balanced(good, fine) -> None:
    talk = Transcript((("ME", "a"), ("THEM", "b")))
    made = Imaginings([Imagined(ONE, "skilled", talk, i < good) for i in range(10)])
    assert (made.problems() == []) is fine
    made.dropped["a repeat"] = 1
    assert any("repeats" in p for p in made.problems())


def test_a_fact_that_was_told_may_be_spoken_of() -> None:
    told = Transcript((("ME", "And?"), ("THEM", f"Well, {ONE.secret}."), ("ME", f"So {ONE.secret}?")))
    assert not knows_too_much(told, ONE.secret) and not knows_too_much(told, "")
