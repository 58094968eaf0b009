"""GEPA over the prompts of an app: the search's golden values, its counter, its guards, and what a stop leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql import Text2Sql
from verbal.errors import BudgetError, ConfigError, MissingExtra, TransientError
from verbal.gepa import HEAVY, LIGHT, MEDIUM, Optimised, auto_budget, optimise_prompts
from verbal.instructions import MAX_INSTRUCTION, split_prompt
from verbal.models.scripted import ScriptedModel
from verbal.prompt import load_prompt
from verbal.recipe import load_recipe
from verbal.run import open_workshop
from verbal.store import Store
from verbal.testing import TinyApp
from verbal.types import Message
from verbal.versions import make_policy

CITIES = ["Berlin", "Lyon", "Oslo", "Rome", "Turin", "Vienna", "Athens", "Bergen"]
GOLD = "SELECT COUNT(*) FROM t WHERE city = '{city}'"
RULES = ("Count the rows.", "Quote every city.")
"""A question of an even city is answered rightly where the first rule is in the instruction, others need the second."""


@pytest.fixture
def world(tmp_path: Path) -> dict[str, str]:
    """Options of a Text-to-SQL app over eight questions of one table."""
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, city TEXT)")
        connection.executemany(
            "INSERT INTO t (city) VALUES (?)", [(c,) for i, c in enumerate(CITIES) for _ in range(i + 1)]
        )
        connection.commit()
    rows = [
        {"id": f"q{i}", "question": f"How many people live in {c}?", "split": "train", "sql": GOLD.format(city=c)}
        for i, c in enumerate(CITIES)
    ]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return {"db": str(tmp_path / "shop.sqlite"), "questions": str(questions)}


class Writer:
    """Solver and reflector in one. `write(n, current)` gives the reply to the n-th reflection."""

    def __init__(self, write: Any, knows: tuple[str, ...] = ()) -> None:
        self.write, self.knows = write, knows
        self.reflected: list[str] = []
        self.model = ScriptedModel(self.reply)

    def reply(self, messages: Sequence[Message], index: int, seed: int | None) -> str:
        text = messages[0].content
        if text.startswith("# Role: proposer"):
            self.reflected.append(text)
            current = text.partition("<instruction>\n")[2].partition("\n</instruction>")[0]
            return str(self.write(len(self.reflected), current))
        head, _, rest = text.partition("## Schema")
        city = re.search(r"live in (\w+)\?", rest)
        assert city is not None
        rule = RULES[CITIES.index(city[1]) % 2]
        right = rule in head or rule in self.knows
        return f"```sql\nSELECT {'COUNT(*)' if right else '-1'} FROM t WHERE city = '{city[1]}'\n```"


def adds_rules(n: int, current: str) -> str:
    """The first rule that is missing, then the other."""
    missing = [r for r in RULES if r not in current]
    return "\n".join(["Because.", "```", current, *missing[:1], "```"])


async def search(
    store: Store,
    world: dict[str, str],
    writer: Writer,
    out: Path,
    *sets: str,
    tasks: slice = slice(None),
    **options: Any,
) -> Optimised:
    recipe = load_recipe(
        "gepa", [f"app.options={{db = '{world['db']}', questions = '{world['questions']}', workers = 1}}", *sets]
    )
    async with open_workshop(recipe, store, run="g", model=writer.model) as shop:
        return await optimise_prompts(shop, shop.app.tasks("train")[tasks], run="g", out=out, **options)


async def test_instructions_evolve_and_the_folder_holds_the_best(world, tmp_path: Path) -> None:
    writer = Writer(adds_rules)
    with Store(tmp_path / "v.db") as store:
        found = await search(store, world, writer, tmp_path / "out", budget=60)
        assert (found.seed_score, found.score, found.unscored, found.refused) == (0.0, 1.0, 0, 0)
        assert all(rule in found.texts["solver"] for rule in RULES)
        parents = [parent for parent, _ in found.candidates]
        assert parents[0] is None and all(p is not None and p < i for i, p in enumerate(parents) if i)
        assert found.reflections == len(writer.reflected) > 0
        assert "score 0 of 1" in writer.reflected[0] and "sql_result: " in writer.reflected[0]
        assert store.run("g")["status"] == "done" and store.run("g")["info"]["results"] == found.plain()
        usage = store.usage("g")
        assert usage["reflector"].calls == found.reflections
        policy = make_policy(store, "m", prompts=found.folder)  # what `verbal promote --prompts` puts before the gate
        assert policy.hashes.keys() == {"text2sql/solver.md"}
        # What the store had was not paid for again: one call for a candidate and task.
        assert usage["solver"].calls == len({(a.arm, a.task) for a in store.attempts("g")}) < found.metric_calls
    # The frame is the package's own; only the instruction differs, and the app reads it.
    made, old = load_prompt("text2sql/solver", found.folder), load_prompt("text2sql/solver")
    assert split_prompt(made).frame == split_prompt(old).frame and made.variables == old.variables
    assert split_prompt(made).instruction == found.texts["solver"] and made.body.startswith("# Role: solver\n")
    app = Text2Sql(world["db"], world["questions"], prompts=found.folder)
    assert RULES[0] in app.messages("solver", app.tasks()[0])[0].content
    await app.aclose()


async def test_the_same_seed_finds_the_same(world, tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        with Store(tmp_path / f"{name}.db") as store:
            found = await search(store, world, Writer(adds_rules), tmp_path / name, budget=40)
            results.append(dataclasses.replace(found, folder=""))
    assert results[0] == results[1]


async def test_a_perfect_minibatch_is_not_reflected_on(world, tmp_path: Path) -> None:
    writer = Writer(adds_rules, knows=RULES)
    with Store(tmp_path / "v.db") as store:
        found = await search(store, world, writer, tmp_path / "out", budget=20)
    assert writer.reflected == [] and found.reflections == 0
    assert (found.folder, found.seed_score, len(found.candidates)) == ("", 1.0, 1)
    assert not (tmp_path / "out").exists()


async def test_a_child_of_equal_sum_is_rejected(world, tmp_path: Path) -> None:
    writer = Writer(lambda n, current: f"```\n{current}\nBe polite, {n}.\n```")
    with Store(tmp_path / "v.db") as store:
        found = await search(store, world, writer, tmp_path / "out", budget=30)
    assert found.reflections > 1 and len(found.candidates) == 1 and found.folder == ""


@pytest.mark.parametrize("budget", [5, 11, 17])
async def test_the_counter_of_metric_calls_is_exact(world, tmp_path: Path, budget: int) -> None:
    """V for the seed; of each iteration 3 for the parent, 3 for the child, V more where it is accepted."""
    for write, accepted in ((adds_rules, None), (lambda n, c: f"```\n{c}\nNo. {n}\n```", 0)):
        folder = tmp_path / str(accepted)
        folder.mkdir()
        with Store(folder / "v.db") as store:
            found = await search(store, world, Writer(write), folder / "out", budget=budget)
        kept = len(found.candidates) - 1
        assert accepted is None or kept == accepted
        perfect = (found.metric_calls - 4 - 6 * found.reflections - 4 * kept) // 3
        assert found.metric_calls == 4 + 6 * found.reflections + 4 * kept + 3 * perfect and perfect >= 0
        assert budget <= found.metric_calls < budget + 6 + 4
        assert accepted is None or perfect == 0


@pytest.mark.parametrize(
    "reply",
    [
        "no fence at all", "```\n```", "```\nAnswer with {{secret}}.\n```", f"```\n{'x' * (MAX_INSTRUCTION + 1)}\n```",
        "```\nWhen asked HOW many people  live in berlin?, count.\n```",
        "```\nUse select count(*) from t where CITY = 'Oslo'\n```",
    ],
)  # fmt: skip
async def test_a_text_that_copies_a_task_or_breaks_the_form_is_no_candidate(world, tmp_path: Path, reply: str) -> None:
    with Store(tmp_path / "v.db") as store:
        found = await search(store, world, Writer(lambda n, current: reply), tmp_path / "out", budget=14)
        assert found.refused == found.reflections > 1 and len(found.candidates) == 1
        arms = {a.arm for a in store.attempts("g")}
    assert len(arms) == 1, "nothing but the seed was tried"


async def test_a_refused_reflection_is_no_candidate_and_the_search_goes_on(world, tmp_path: Path) -> None:
    writer = Writer(adds_rules)

    def broken(messages: Sequence[Message], index: int, seed: int | None) -> Any:
        if messages[0].content.startswith("# Role: proposer") and not writer.reflected:
            writer.reflected.append("refused")
            return {"error": "refused"}
        return Writer.reply(writer, messages, index, seed)

    writer.model = ScriptedModel(broken)
    with Store(tmp_path / "v.db") as store:
        found = await search(store, world, writer, tmp_path / "out", budget=60)
    assert found.refused == 1 and found.score == 1.0


async def test_a_budget_stops_the_search_and_it_goes_on_without_paying_twice(world, tmp_path: Path) -> None:
    with Store(tmp_path / "whole.db") as store:
        whole = await search(store, world, Writer(adds_rules), tmp_path / "out", budget=40)
        calls = sum(u.calls for u in store.usage("g").values())
    with Store(tmp_path / "v.db") as store:
        for most in (5, 9, 13):
            with pytest.raises(BudgetError):
                await search(store, world, Writer(adds_rules), tmp_path / "out2", f"limits.max_calls={most}", budget=40)
            assert store.run("g")["status"] == "stopped"
        found = await search(store, world, Writer(adds_rules), tmp_path / "out2", budget=40)
        assert sum(u.calls for u in store.usage("g").values()) == calls
    assert dataclasses.replace(found, folder="") == dataclasses.replace(whole, folder="")


async def test_prompts_of_the_users_own_are_begun_with_and_kept(world, root: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    for role in ("solver", "critic"):
        text = (root / "prompts" / "text2sql" / f"{role}.md").read_text(encoding="utf-8")
        (own / "text2sql").mkdir(parents=True, exist_ok=True)
        (own / "text2sql" / f"{role}.md").write_text(text.replace("SQLite", "polite SQLite"), encoding="utf-8")
    sets = f"app.options={{db = '{world['db']}', questions = '{world['questions']}', workers = 1, prompts = '{own}'}}"
    writer = Writer(adds_rules)
    with Store(tmp_path / "v.db") as store:
        found = await search(store, world, writer, tmp_path / "out", sets, budget=60)
        with pytest.raises(ConfigError, match="holds the prompts it begins with"):
            await search(store, world, writer, own, sets, budget=60)
    assert "polite SQLite" in found.texts["solver"] and RULES[0] in found.texts["solver"]
    kept, given_ = (Path(f) / "text2sql" / "critic.md" for f in (found.folder, own))
    assert kept.read_bytes() == given_.read_bytes()


async def test_a_model_that_is_gone_stops_the_search_and_no_candidate_is_scored_by_it(world, tmp_path: Path) -> None:
    writer, calls = Writer(adds_rules), iter(range(100))

    def gone(messages: Sequence[Message], index: int, seed: int | None) -> Any:
        return Writer.reply(writer, messages, index, seed) if next(calls) < 6 else {"error": "transient"}

    writer.model = ScriptedModel(gone)
    with Store(tmp_path / "v.db") as store:
        with pytest.raises(TransientError):
            await search(store, world, writer, tmp_path / "out", "model.retries=1", budget=40)
        assert store.run("g")["status"] == "stopped"
        found = await search(store, world, Writer(adds_rules), tmp_path / "out", "model.retries=1", budget=40)
    assert found.score == 1.0


async def test_a_cancelled_search_ends_its_thread_and_says_stopped(world, tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def held(messages: Sequence[Message], index: int, seed: int | None) -> str:
        reached.set()
        await asyncio.Event().wait()
        return ""

    writer = Writer(adds_rules)
    writer.model = ScriptedModel(held)
    with Store(tmp_path / "v.db") as store:
        running = asyncio.ensure_future(search(store, world, writer, tmp_path / "out", budget=40))
        await reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert store.run("g")["status"] == "stopped"


async def test_a_fault_of_ours_is_not_swallowed_by_the_search(world, tmp_path: Path, monkeypatch) -> None:
    def broken(app: Text2Sql, folder: str) -> Text2Sql:
        raise RuntimeError("no such app")

    monkeypatch.setattr(Text2Sql, "with_prompts", broken)
    with Store(tmp_path / "v.db") as store:
        with pytest.raises(RuntimeError, match="no such app"):
            await search(store, world, Writer(adds_rules), tmp_path / "out", budget=40)
        assert store.run("g")["status"] == "failed"


async def test_an_app_that_cannot_share_its_workers_is_opened_anew_and_closed(
    world, tmp_path: Path, monkeypatch
) -> None:
    closed: list[Text2Sql] = []
    close = Text2Sql.aclose

    async def counted(app: Text2Sql) -> None:
        closed.append(app)
        await close(app)

    monkeypatch.delattr(Text2Sql, "with_prompts")
    monkeypatch.setattr(Text2Sql, "aclose", counted)
    with Store(tmp_path / "v.db") as store:
        found = await search(store, world, Writer(adds_rules), tmp_path / "out", budget=5)
    assert found.candidates[0] == (None, 0.0) and len(set(map(id, closed))) == len(closed) >= 3


async def test_what_cannot_be_searched_is_told_before_any_call(world, tmp_path: Path, monkeypatch) -> None:
    writer = Writer(adds_rules)
    with Store(tmp_path / "v.db") as store:
        for options, match in (
            ({"tasks": slice(1)}, "0 to validate on"),
            ({"components": ()}, "no role"),
            ({"components": ("no_such",)}, "unknown prompt"),
        ):
            with pytest.raises(ConfigError, match=match):
                await search(store, world, writer, tmp_path / "out", **options)
        writer.model.chats = False  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match="follows no free instructions"):
            await search(store, world, writer, tmp_path / "out")
        writer.model.chats = True  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, "gepa.api", None)
            with pytest.raises(MissingExtra, match=r"verbal\[gepa\]|not installed"):
                await search(store, world, writer, tmp_path / "out")
        assert store.run("g") is None and writer.model.calls == 0
        await search(store, world, writer, tmp_path / "out", budget=5)
        with pytest.raises(ConfigError, match="begun for something else"):
            await search(store, world, writer, tmp_path / "out", budget=6)


async def test_sealed_tasks_are_refused(tmp_path: Path) -> None:
    app = TinyApp()
    shop: Any = SimpleNamespace(recipe=load_recipe("gepa"))
    with pytest.raises(ConfigError, match="sealed"):
        await optimise_prompts(shop, app.tasks("train"), app.tasks("test"), run="g", out=tmp_path)


async def test_validation_tasks_are_not_reflected_on(world, tmp_path: Path) -> None:
    writer = Writer(lambda n, current: f"```\n{current}\nNo. {n}\n```")
    with Store(tmp_path / "v.db") as store:
        await search(store, world, writer, tmp_path / "out", budget=60)
        info = store.run("g")["info"]
    assert info["tasks"] == [f"q{i}" for i in range(8)] and len(info["validation"]) == 4
    shown = {city for text in writer.reflected for city in CITIES if f"live in {city}?" in text}
    assert shown == {CITIES[int(i[1:])] for i in info["tasks"] if i not in info["validation"]}


# the search itself: golden values of the package ----------------------------------------------------------------------


def test_budgets_of_the_presets() -> None:
    assert [auto_budget(1, 50, n) for n in (LIGHT, MEDIUM, HEAVY)] == [580, 940, 1385]
    assert [auto_budget(2, 100, n) for n in (LIGHT, MEDIUM, HEAVY)] == [1330, 1740, 2045]


def test_a_dominated_candidate_is_removed_and_parents_are_drawn_by_their_fronts() -> None:
    from gepa.gepa_utils import find_dominator_programs, select_program_candidate_from_pareto_front

    fronts, means = {0: {0, 1}, 1: {1}, 2: {2}, 3: {1, 2}}, [0.5, 0.7, 0.6]
    assert sorted(find_dominator_programs(fronts, means)) == [1, 2]

    class Lots(random.Random):
        def choice(self, seq: Any) -> Any:
            drawn.extend(seq)
            return seq[0]

    drawn: list[int] = []
    select_program_candidate_from_pareto_front(fronts, means, Lots(0))
    assert (drawn.count(1), drawn.count(2), drawn.count(0)) == (3, 2, 0)  # 0.6 to 0.4


def test_components_take_turns() -> None:
    from gepa.strategies.component_selector import RoundRobinReflectionComponentSelector

    state: Any = SimpleNamespace(
        named_predictor_id_to_update_next_for_program_candidate=[0, 0], list_of_named_predictors=["a", "b", "c"]
    )
    choose = RoundRobinReflectionComponentSelector()
    assert [choose(state, [], [], 0, {})[0] for _ in range(4)] == ["a", "b", "c", "a"]
    assert choose(state, [], [], 1, {}) == ["a"], "each candidate has its own turn"


@given(st.integers(0, 1000), st.lists(st.integers(0, 8), min_size=1, max_size=7))
def test_merge_never_pairs_an_ancestor_with_its_descendant(seed: int, ancestors: list[int]) -> None:
    from gepa.proposer.merge import find_common_ancestor_pair

    parents: list[list[int | None]] = [[None], *([a % (i + 1)] for i, a in enumerate(ancestors))]
    candidates = [{"a": f"a{i}" if i % 2 else "a", "b": "b" if i % 2 else f"b{i}"} for i in range(len(parents))]
    means = [float(i + 1) for i in range(len(parents))]
    found = find_common_ancestor_pair(random.Random(seed), parents, range(len(parents)), ([], []), means, candidates)
    if found is None:
        return

    def line(i: int | None) -> set[int]:
        return set() if i is None else {i} | {x for p in parents[i] for x in line(p)}

    one, other, ancestor = found
    assert one not in line(other) and other not in line(one) and ancestor in line(one) & line(other)
