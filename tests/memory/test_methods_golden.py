"""The methods as recipes: each resolves, learns, and does what its paper says (golden values, checks of our notes)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import verbal.testing
from verbal.errors import ConfigError
from verbal.evaluate import evaluate_arm
from verbal.lessons import read_lessons
from verbal.memory.ace import AceCurator
from verbal.memory.append import AppendCurator
from verbal.memory.llm_curator import LLMCurator
from verbal.memory.log import LogState
from verbal.models.scripted import ScriptedModel
from verbal.parts import make_part
from verbal.prompt import load_prompt
from verbal.recipe import load_recipe
from verbal.run import Workshop, learn, open_memory, open_workshop
from verbal.store import Store
from verbal.testing import TinyApp, temporary_store, tiny_reply
from verbal.types import MemoryOp, Message, Reflection

WITH_MEMORY = ("expel", "tf_grpo", "ace", "reasoningbank", "matts", "memrl")
METHODS = ("reflexion", "self_refine", *WITH_MEMORY)
NO_QUARANTINE = {"quarantine": False, "trials": 0}


def recipe(name: str, *more: str) -> Any:
    """A method's recipe over the tiny app, whose critic reads gold."""
    critics = [f"critics.names=['{verbal.testing.__file__}:TinyCritic']"]
    return load_recipe(
        name, [*critics, f"critics.verdict='{verbal.testing.__file__}:TinyCritic'", "memory.name='exact'", *more]
    )


class Player:
    """Plays every role of the tiny app. It knows the codes at odd sample places only, or when a hint says them."""

    def __init__(self, codes: dict[str, str], knows: bool = True) -> None:
        self.codes, self.knows = codes, knows
        self.asked: list[tuple[str, str]] = []
        self.model = ScriptedModel(self.reply)

    def reply(self, messages: Sequence[Message], index: int, seed: int | None) -> str:
        text = messages[-1].content
        role = re.findall(r"# Role: (\w+)", messages[0].content)[0]
        self.asked.append((role, text))
        word = next((w for w in self.codes if w in text.partition("## Question\n")[2]), "")
        if role == "reflector":
            right = text.partition("## Right\n")[2].partition("\n")[0]
            number = re.search(r"\d+", right)
            return (
                f"WHEN: the code of {word} is asked\nHINT: the code of {word} is {number[0]}"
                if number
                else "HINT: none"
            )
        if role == "curator":
            return self.curated(text)
        if role == "solver" and self.knows and index % 2:
            return f"The code is {self.codes[word]}."
        return tiny_reply(messages, index, seed)

    def curated(self, text: str) -> str:
        said = re.findall(r"the code of \w+ is \d+", text.partition("## Lessons")[2])
        if "Vote on the rules" in text:
            return "\n".join(f"ADD: {t}." for t in said) or "NONE"
        if "## Playbook" in text:
            return json.dumps({"operations": [{"type": "ADD", "section": "sai", "content": t} for t in said]})
        return json.dumps({"operations": [{"lesson": i, "op": "ADD", "text": t} for i, t in enumerate(said, 1)]})

    def count(self, role: str) -> int:
        return sum(r == role for r, _ in self.asked)


async def learned(name: str, store: Store, player: Player, *more: str) -> tuple[Workshop, TinyApp]:
    app = TinyApp(player.codes)
    async with open_workshop(recipe(name, *more), store, run="r", model=player.model, app=app) as shop:
        await learn(shop, app.tasks("train"), run="r")
    return shop, app


CODES = {"anchor": "417", "basket": "523", "candle": "618", "dagger": "731"}


@pytest.mark.parametrize("name", [*METHODS, "gepa"])
def test_every_method_resolves_and_says_what_it_is(name: str) -> None:
    made = load_recipe(name)
    assert made.resolve()
    assert re.search(r"arXiv \d{4}\.\d{5}", made.about)
    text = Path(verbal.__file__).with_name("recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    assert "# " in text, "what differs from the paper stands beside it"
    gold = {"sql_result", "user"} & set(made.critics.names)
    assert ("oracle" in made.about) == bool(gold), "who reads gold says so"
    if made.memory.name:
        assert not made.memory.quarantine and "o quarantine" in text
    if made.loop.guidance:
        body = load_prompt(made.loop.guidance).fill()
        assert "HINT: " in body and not re.search(r"^#", body, re.MULTILINE), "the embedded model reads by headings"


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_every_memory_of_a_method_opens_with_its_policy(name: str, tmp_path: Path) -> None:
    with Store(tmp_path / "v.db") as store:
        open_memory(load_recipe(name, ["memory.name='exact'"]), store, "m", str(tmp_path / "i")).close()


@pytest.mark.parametrize("name", WITH_MEMORY)
async def test_every_method_learns_what_helps_on_questions_it_never_saw(name: str) -> None:
    player = Player(CODES)
    with temporary_store() as store:
        await learned(name, store, player, "loop.epochs=1")
        player.knows = False
        app = TinyApp(CODES)
        async with open_workshop(recipe(name), store, run="e", model=player.model, app=app, memory_name="r") as shop:
            assert shop.memory is not None
            items = [r for r in shop.memory.at(len(shop.memory.history())).values() if r.status == "active"]
            assert {re.sub(r"\.$", "", r.text) for r in items} == {f"the code of {w} is {c}" for w, c in CODES.items()}
            for arm, memory, expected in (("none", None, 0.0), ("memory", shop.memory, 1.0)):
                scores = await evaluate_arm(
                    shop, app.tasks("dev"), run="e", arm=arm, seeds=[1], rounds=1,
                    hints=arm, memories={1: memory} if memory else None,
                )  # fmt: skip
                assert sum(scores.first[0]) / 4 == expected, name


@pytest.mark.parametrize("name", WITH_MEMORY)
async def test_a_replay_of_the_same_run_proposes_the_same_operations(name: str) -> None:
    logs = []
    for _ in range(2):
        with temporary_store() as store:
            await learned(name, store, Player(CODES), "loop.epochs=1")
            logs.append([op.to_dict() for _, op in store.ops("r")])
    assert logs[0] == logs[1] and any(op["op"] == "ADD" for op in logs[0])


# Reflexion and Self-Refine: within one task ---------------------------------------------------------------------------


async def test_reflexion_shows_the_last_three_reflections_and_never_retries_what_is_solved() -> None:
    plans = iter(range(1, 100))

    def reply(messages: Sequence[Message], index: int, seed: int | None) -> str:
        role = re.findall(r"# Role: (\w+)", messages[0].content)[0]
        asked.append((role, messages[0].content))
        if role == "reflector":
            return f"HINT: plan number {next(plans)}"
        return (
            "It is 999." if asked.count(asked[-1]) < 7 and "plan number 6" not in messages[0].content else "It is 417."
        )

    asked: list[tuple[str, str]] = []
    with temporary_store() as store:
        app = TinyApp({"anchor": "417"})
        made = recipe("reflexion", "loop.rounds=9", "memory.name=''")
        async with open_workshop(made, store, run="r", model=ScriptedModel(reply), app=app) as shop:
            summary = await learn(shop, app.tasks("train"), run="r")
    assert summary.solved == 1
    solver = [text for role, text in asked if role == "solver"]
    assert len(solver) == 7, "solved after the sixth reflection, and not tried again"
    assert [re.findall(r"plan number (\d)", text) for text in solver] == [
        [], ["1"], ["1", "2"], ["1", "2", "3"], ["2", "3", "4"], ["3", "4", "5"], ["4", "5", "6"]
    ]  # fmt: skip
    assert sum(role == "reflector" for role, _ in asked) == 6, "a reflection on each failure, none on the success"


async def test_self_refine_reads_critiques_keeps_to_its_attempts_and_keeps_nothing() -> None:
    player = Player({"anchor": "417"}, knows=False)
    with temporary_store() as store:
        shop, _ = await learned("self_refine", store, player, "memory.name=''")
        assert shop.memory is None and store.memories() == {}
    solver = [text for role, text in player.asked if role == "solver"]
    assert len(solver) == 4 and player.count("critic") in (3, 4) and player.count("reflector") == 0
    assert ["the code in the answer is wrong" in text for text in solver] == [False, True, True, True]


# Training-Free GRPO: group update ------------------------------------------------------------------------------------


def rows(*operations: dict[str, Any]) -> str:
    return json.dumps({"operations": operations})


def lessons(n: int) -> list[Reflection]:
    return [Reflection(id=f"new:{i}", text=f"lesson {i}", task=f"t{i}", attempts=(f"a{i}",)) for i in range(1, n + 1)]


async def grpo(reply: str, n: int) -> tuple[LogState, ScriptedModel]:
    state, model = LogState(), ScriptedModel([reply])
    for text in ("When a, b.", "When c, d."):
        state.apply(MemoryOp(op="ADD", item=Reflection(id="", text=text)))
    for op in await LLMCurator(model).propose(lessons(n), list(state.items.values())):
        state.apply(op)
    return state, model


async def test_tf_grpo_deletes_what_is_both_deleted_and_updated() -> None:
    reply = rows({"lesson": 1, "op": "UPDATE", "id": "r1", "text": "x"}, {"lesson": 2, "op": "RETIRE", "id": "r1"})
    state, _ = await grpo(reply, 2)
    assert (state.items["r1"].status, state.items["r1"].text, len(state.items)) == ("retired", "When a, b.", 2)


async def test_tf_grpo_adds_an_update_of_an_unknown_id_and_gives_ids_in_order() -> None:
    update = {"lesson": 1, "op": "UPDATE", "id": "r9", "text": "When e, f."}
    state, _ = await grpo(rows(update, {"lesson": 2, "op": "ADD", "text": "When g, h."}), 2)
    assert list(state.items) == ["r1", "r2", "r3", "r4"]
    assert [r.text for r in state.items.values()][2:] == ["When e, f.", "When g, h."]


async def test_tf_grpo_leaves_the_library_as_it_is_after_three_parse_retries() -> None:
    state, model = await grpo("I would add both.", 2)
    assert [r.text for r in state.items.values()] == ["When a, b.", "When c, d."] and model.calls == 4


async def test_tf_grpo_consolidates_a_batch_in_one_call_and_one_update_of_an_id_counts() -> None:
    same = [{"lesson": i, "op": "UPDATE", "id": "r2", "text": f"When c, d{i}."} for i in (1, 2)]
    state, model = await grpo(rows(*same, {"lesson": 3, "op": "NOOP"}), 3)
    assert (state.items["r2"].text, len(state.items), model.calls) == ("When c, d1.", 2, 1)


async def test_a_model_that_follows_no_free_instructions_leaves_curation_to_words() -> None:
    ops = await LLMCurator(None).propose([lessons(1)[0], lessons(1)[0]], [])
    assert [op.op for op in ops] == ["ADD", "NOOP"]


async def test_only_mixed_groups_teach() -> None:
    """Groups (1, 1, ...), (0, 0, ...) are left out, mixed ones are kept."""
    for knows, expected in ((True, 4), (False, 0)):
        player = Player(CODES, knows=knows)
        with temporary_store() as store:
            await learned("tf_grpo", store, player, "loop.epochs=1")
        assert player.count("reflector") == expected


async def test_a_large_batch_of_tf_grpo_is_condensed_before_its_one_update() -> None:
    asked: list[str] = []

    def reply(messages: Sequence[Message], index: int, seed: int | None) -> str:
        asked.append(messages[0].content)
        said = re.findall(r"lesson \d+", messages[0].content.partition("## Lessons")[2])
        if "Write them again" in messages[0].content:
            return "\n".join(f"HINT: {t}" for t in said[:5])
        return rows(*[{"lesson": i, "op": "ADD", "text": t} for i, t in enumerate(said, 1)])

    table = load_recipe("tf_grpo").memory
    curator = make_part("memory", table.curator, model=ScriptedModel(reply), **table.curator_options)
    ops = await curator.propose(lessons(100), [])
    assert len(asked) == 10 + 5 + 1 and [op.op for op in ops] == ["ADD"] * 25
    assert max(len(re.findall(r"lesson \d+", t.partition("## Lessons")[2])) for t in asked) == 25


async def test_one_call_draws_the_items_of_a_whole_group() -> None:
    player = Player(CODES)
    with temporary_store() as store:
        await learned("matts", store, player)
    assert player.count("reflector") == len(CODES)


async def test_ace_gives_no_number_twice_though_its_newest_bullets_were_merged_away() -> None:
    class Merging(Player):
        def curated(self, text: str) -> str:
            said = re.findall(r"the code of \w+ is \d+", text.partition("## Lessons")[2])
            return f"HINT: {', '.join(said)}" if "Write them again" in text else super().curated(text)

    with temporary_store() as store:
        options = "memory.curator_options={merge_at = 0.1, allowed = ['ADD']}"
        await learned("ace", store, Merging(CODES), "loop.epochs=1", options)
        ops = [op for _, op in store.ops("r")]
    assert [op.reflection for op in ops if op.op == "ADD"] == [f"sai-0000{i}" for i in (1, 2, 3, 4)]
    assert [op.reason for op in ops if op.op == "NOOP" and "taken" in op.reason] == []


# ReasoningBank, Memento, MemRL: append only --------------------------------------------------------------------------


def test_the_items_of_reasoningbank_are_read_with_title_description_and_content() -> None:
    text = "TITLE: Refunds\nWHEN: net sales\nHINT: Subtract them once.\n\nTITLE: Ties\nNOT FOR: top 1\nHINT: Keep them."
    one, two = read_lessons(text)
    assert (one.title, one.when, one.text) == ("Refunds", "net sales", "Subtract them once.")
    assert (two.title, two.boundary, two.text) == ("Ties", "top 1", "Keep them.")


@pytest.mark.parametrize("most", [3, 5])
async def test_at_most_so_many_items_of_one_attempt_and_nothing_merges(most: int) -> None:
    same = [Reflection(id=f"new:{i}", text="the same words", attempts=("a1",)) for i in range(7)]
    other = Reflection(id="new:9", text="the same words", attempts=("a2",))
    known = [Reflection(id="r1", text="the same words")]
    ops = await AppendCurator(most=most).propose([*same, other, Reflection(id="x", text=" ")], known)
    assert [op.op for op in ops] == ["ADD"] * most + ["NOOP"] * (7 - most) + ["ADD", "NOOP"]
    forget = Reflection(id="r1", text="", status="retired")
    assert [(op.op, op.reflection) for op in await AppendCurator().propose([forget], known)] == [("RETIRE", "r1")]


async def test_memrl_files_a_near_task_under_the_older_key_and_starts_at_its_value() -> None:
    old = Reflection(id="r1", text="x", when="How many gold customers live in Berlin?")
    asked = ["how many gold customers live in BERLIN", "Which films are the longest?", "which films are the longest"]
    said = [Reflection(id=f"n{i}", text=f"script {i}", when=w, attempts=(f"a{i}",)) for i, w in enumerate(asked)]
    ops = await AppendCurator(same_task=0.9, value=0.0, kind="case").propose(said, [old])
    items = [op.item for op in ops if op.item]
    assert [r.when for r in items] == [old.when, asked[1], asked[1]]
    assert {(r.value, r.kind) for r in items} == {(0.0, "case")}
    apart = await AppendCurator(same_task=0.0).propose(said, [old])
    assert [op.item.when for op in apart if op.item] == asked and apart[0].item is not None
    assert apart[0].item.value is None


async def test_memrl_values_follow_the_golden_row() -> None:
    """alpha 0.3 from 0: 0.30, 0.51, 0.657; from 0.51 a failure gives 0.057; five failures reach the cut at -0.8."""
    credit = make_part("memory", "credit", rate=0.3)
    for outcomes, values in (
        ([1, 1, 1], [0.3, 0.51, 0.657]),
        ([0, 0], [-0.3, -0.51]),
        ([1, 1, 0], [0.3, 0.51, 0.057]),
        ([0] * 5, [-0.3, -0.51, -0.657, -0.7599, -0.83193]),
    ):
        state, seen = LogState(), []
        for i in (1, 2):
            state.apply(MemoryOp(op="ADD", item=Reflection(id=f"r{i}", text="x", value=0.0)))
        for n, outcome in enumerate(outcomes):
            for op in credit.observe(f"a{n}", {"r1": 0.9}, ["r1"], float(outcome), state):
                state.apply(op)
            seen.append(state.items["r1"].value)
        assert seen == pytest.approx(values)
        assert state.items["r2"].value == 0.0, "the value of what was not used does not change"


async def test_curators_take_no_embedder_that_is_paid_for(tmp_path: Path) -> None:
    """Nobody would count what it costs."""
    file = tmp_path / "paid.py"
    file.write_text("class Paid:\n    name, dimension, price = 'paid', 2, 0.1\n")
    for make in (partial(AppendCurator, same_task=0.9), partial(AceCurator, merge_at=0.9)):
        with pytest.raises(ConfigError, match="paid for"):
            make(embedder=f"{file}:Paid")


async def test_append_options_out_of_range_are_refused() -> None:
    for options in ({"most": 0}, {"same_task": 1.5}, {"kind": "poem"}):
        with pytest.raises(ConfigError):
            AppendCurator(**options)  # type: ignore[arg-type]
