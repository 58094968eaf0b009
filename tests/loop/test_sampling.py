"""A group is sampled until enough answers run: PaVeRL-SQL's acceptance checks, and the pipelines end to end."""

from __future__ import annotations

import dataclasses
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from verbal.contracts import Reply
from verbal.errors import BudgetError, ConfigError
from verbal.estimate import estimate
from verbal.models.scripted import ScriptedModel
from verbal.parts import make_part
from verbal.recipe import load_recipe
from verbal.run import learn, open_workshop
from verbal.store import Store
from verbal.types import Attempt, Message, Usage

RIGHT, WRONG, EMPTY = "SELECT COUNT(*) FROM bird", "SELECT MAX(n) FROM bird", "SELECT n FROM bird WHERE n > 9"
BROKEN = "SELECT nothing FROM nowhere"
Solver = Callable[[int, int], str]
"""(place among the replies of one call, its seed) -> the reply."""


def sql(query: str) -> str:
    return f"```sql\n{query}\n```"


class World:
    """A model that plays every role by rules, and counts what it was asked for."""

    name = "test/world"

    def __init__(self, solver: Solver, judge: Callable[[str], str] | None = None) -> None:
        self.solver, self.judge = solver, judge or self.fair
        self.drawn: list[int] = []
        """Replies of each call of the solver."""
        self.judged = 0
        self.logprobs: tuple[float, ...] | None = None
        self.spent: int | None = None
        """Calls of the solver after which the budget ends."""

    async def generate(self, messages: Sequence[Message], n: int, sampling: Any) -> list[Reply]:
        text = messages[0].content
        if text.startswith("# Role: solver"):
            if self.spent is not None and len(self.drawn) >= self.spent:
                raise BudgetError("spent")
            self.drawn.append(n)
            replies = [self.solver(i, sampling.seed or 0) for i in range(n)]
        else:
            self.judged += 1
            replies = [self.judge(text)] * n
        given = self.logprobs if sampling.logprobs else None
        usage = [Usage(calls=1, prompt_tokens=9), *[Usage()] * (n - 1)]
        return [Reply(text=r, logprobs=given, usage=u) for r, u in zip(replies, usage, strict=True)]

    async def check(self) -> str:
        return self.name

    async def aclose(self) -> None:
        pass

    def fair(self, text: str) -> str:
        listed = re.findall(r"^SQL\d+: (.+)$", text.split("## Candidates")[-1], re.MULTILINE)
        if text.startswith("# Role: tester"):
            return "TEST: The answer must count."
        passed = [RIGHT in query for query in listed]
        if text.startswith("# Role: examiner"):
            return "\n".join(f"SQL{i}: {'passed' if p else 'failed'}" for i, p in enumerate(passed))
        return "\n".join(f"SQL{i}: {0.9 if p else 0.2}" for i, p in enumerate(passed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "birds.sqlite")) as db:
        db.executescript(
            "CREATE TABLE bird (name TEXT, n INTEGER); INSERT INTO bird VALUES ('a', 1), ('b', 5), ('c', 2)"
        )
        db.commit()
    (tmp_path / "questions.jsonl").write_text(
        f'{{"id": "q", "question": "How many birds are there?", "sql": "{RIGHT}", "split": "train"}}\n', "utf-8"
    )
    return tmp_path


@asynccontextmanager
async def opened(folder: Path, model: Any, recipe: str, *changes: str, run: str = "r", file: str = "v.db"):
    plan = load_recipe(recipe, ["memory.name=''", "model.price_in=0", "model.price_out=0", *changes])
    app = make_part(
        "apps", "text2sql", db=str(folder / "birds.sqlite"), questions=str(folder / "questions.jsonl"), workers=1
    )
    try:
        with Store(folder / file) as store:
            async with open_workshop(plan, store, run=run, model=model, app=app) as shop:
                yield shop, store
    finally:
        await app.aclose()


async def run(folder: Path, model: Any, recipe: str, *changes: str, **more: str) -> tuple[list[Attempt], Attempt, Any]:
    """The attempts of the one question in order, the chosen one, and the feedback on all."""
    async with opened(folder, model, recipe, *changes, **more) as (shop, store):
        await learn(shop, shop.app.tasks(), run=more.get("run", "r"))
        (group,) = store.groups(more.get("run", "r"))
        made = [a for i in group.attempts if (a := store.attempt(i))]
        assert [a.sample for a in made] == list(range(len(made)))
        return made, next(a for a in made if a.id == group.chosen), store.feedback(group.attempts)


def runs(attempts: Sequence[Attempt]) -> int:
    return sum(a.answer not in ("", BROKEN) for a in attempts)


# until K run ----------------------------------------------------------------------------------------------------------


async def test_what_is_missing_is_drawn_until_enough_run(folder: Path) -> None:
    replies = iter(["no query here", sql(BROKEN), sql(WRONG), sql(BROKEN), sql(RIGHT), "", sql(WRONG), sql(RIGHT)])
    model = World(lambda i, seed: next(replies))
    made, chosen, feedback = await run(folder, model, "paverl", "loop.samples=4", "loop.most=40")
    assert model.drawn == [4, 3, 1], "as many as are missing"
    assert runs(made) == 4 and len(made) == 8
    assert chosen.answer == RIGHT
    said = {a.id: next(f for f in feedback[a.id] if f.critic == "group") for a in made}
    assert {said[a.id].value for a in made if a.answer == BROKEN} <= {0.0}
    assert all(said[a.id].value is None and said[a.id].reason for a in made if not a.answer), "never 0"


async def test_calls_are_counted_with_those_that_cannot_be_read(folder: Path) -> None:
    model = World(lambda i, seed: "I do not know.")
    async with opened(folder, model, "paverl", "loop.samples=3", "loop.most=10") as (shop, store):
        expected = await estimate(shop, shop.app.tasks(), passes={"learn": 1})
        await learn(shop, shop.app.tasks(), run="r")
        (group,) = store.groups("r")
        assert len(group.attempts) == 10 == sum(model.drawn), "the cap, with nothing that runs"
        assert model.drawn == [3, 3, 3, 1] and model.judged == 0
        assert store.usage("r")["solver"].calls == 4
        assert expected.calls_low <= 4 <= expected.calls_high
        assert group.chosen in group.attempts and not group.preferences


async def test_one_that_runs_is_chosen_without_a_judge(folder: Path) -> None:
    drawn = iter(range(1000))
    model = World(lambda i, seed: sql(RIGHT if next(drawn) == 5 else BROKEN))
    made, chosen, feedback = await run(folder, model, "paverl", "loop.samples=2", "loop.most=9")
    assert len(made) == 9 and chosen.answer == RIGHT and model.judged == 0
    assert next(f for f in feedback[chosen.id] if f.critic == "group").value is None


async def test_a_call_that_fails_for_good_is_not_repeated(folder: Path) -> None:
    model = ScriptedModel([{"error": "refused"}])
    made, _, feedback = await run(folder, model, "paverl", "loop.samples=3", "loop.most=30")
    assert len(made) == 3 and all(a.error for a in made)
    assert {f.value for fs in feedback.values() for f in fs if f.critic == "group"} == {None}


@pytest.mark.parametrize(("empty", "drawn"), [("true", 4), ("false", 12)])
async def test_an_empty_result_runs_unless_the_paper_is_followed(folder: Path, empty: str, drawn: int) -> None:
    model = World(lambda i, seed: sql(EMPTY))
    made, chosen, _ = await run(
        folder, model, "paverl", "loop.samples=4", "loop.most=12", f"loop.empty={empty}", "model.cache='off'"
    )
    assert len(made) == drawn and chosen.answer == EMPTY


async def test_without_most_a_group_is_drawn_once(folder: Path) -> None:
    model = World(lambda i, seed: sql(BROKEN))
    made, _, feedback = await run(folder, model, "paverl", "loop.samples=4", "loop.most=0")
    assert model.drawn == [4] and len(made) == 4 and model.judged == 0
    assert {f.value for fs in feedback.values() for f in fs if f.critic == "group"} == {0.0}


async def test_the_same_seed_draws_the_same(folder: Path) -> None:
    def guess(i: int, seed: int) -> str:
        return sql([RIGHT, BROKEN, WRONG, EMPTY][(seed >> i) % 4])

    found = []
    for file, seed in (("a.db", 1), ("b.db", 1), ("c.db", 2)):
        made, chosen, _ = await run(
            folder, World(guess), "paverl", "loop.samples=5", "loop.most=50", f"seed={seed}", file=file
        )
        found.append(([(a.answer, a.seed) for a in made], chosen.sample))
    assert found[0] == found[1] != found[2]
    seeds = [s for _, s in found[0][0]]
    assert len(set(seeds)) > 1, "each wave has a seed of its own"


async def test_a_resumed_run_draws_nothing_again(folder: Path) -> None:
    def guess(i: int, seed: int) -> str:
        return sql(BROKEN if (seed >> i) % 3 else RIGHT)

    whole, _, _ = await run(folder, World(guess), "paverl", "loop.samples=4", "loop.most=60", file="whole.db")
    model = World(guess)
    model.spent = 2
    with pytest.raises(BudgetError):
        await run(folder, model, "paverl", "loop.samples=4", "loop.most=60", "model.cache='off'")
    assert len(model.drawn) == 2
    model.spent = None
    made, _, _ = await run(folder, model, "paverl", "loop.samples=4", "loop.most=60", "model.cache='off'")
    assert [(a.id, a.answer) for a in made] == [(a.id, a.answer) for a in whole]
    assert sum(model.drawn) == len(whole), "attempts that were kept are not drawn again"
    before = len(model.drawn)
    await run(folder, model, "paverl", "loop.samples=4", "loop.most=60", "model.cache='off'")
    assert len(model.drawn) == before


@pytest.mark.parametrize("change", ["loop.most=-1", "loop.wave=-1", "loop.most=3"])
def test_numbers_that_make_no_sense_are_refused(change: str) -> None:
    with pytest.raises(ConfigError, match=r"loop\.(most|wave)"):
        load_recipe("paverl", [change]).resolve()


# in waves -------------------------------------------------------------------------------------------------------------


async def test_drawing_ends_when_the_majority_cannot_change(folder: Path) -> None:
    agreed = World(lambda i, seed: sql(RIGHT))
    made, chosen, _ = await run(folder, agreed, "majority", "loop.wave=2", "loop.samples=7")
    assert agreed.drawn == [2, 2] and len(made) == 4 and chosen.answer == RIGHT
    shipped = World(lambda i, seed: sql(RIGHT))
    await run(folder, shipped, "majority", file="shipped.db")
    assert shipped.drawn == [6], "of 10, 4 more could not change what 6 say"
    split = World(lambda i, seed: sql([RIGHT, WRONG][i]))
    made, _, _ = await run(folder, split, "majority", "loop.wave=2", "loop.samples=6", file="split.db")
    assert split.drawn == [2, 2, 2]
    weighed = World(lambda i, seed: sql(RIGHT))
    await run(folder, weighed, "confidence", "loop.wave=2", "loop.samples=6", file="weighed.db")
    assert weighed.drawn == [2, 2, 2], "a weighed vote is not settled by counting"


# every recipe, from the question to the chosen answer -----------------------------------------------------------------

MIXED: Solver = lambda i, seed: sql([RIGHT, WRONG, RIGHT, BROKEN, EMPTY][i % 5])  # noqa: E731
SELECTORS = ("majority", "confidence", "paverl", "paverl_preview", "tournament", "chess")


@pytest.mark.parametrize("recipe", SELECTORS)
async def test_a_selector_finds_the_right_one_among_five(folder: Path, recipe: str) -> None:
    model = World(MIXED)
    made, chosen, feedback = await run(folder, model, recipe, "loop.samples=5")
    assert chosen.answer == RIGHT
    verdict = load_recipe(recipe).critics.verdict
    values = {a.answer: f.value for a in made for f in feedback[a.id] if f.critic == verdict}
    assert values[BROKEN] == 0.0 and values[RIGHT] == max(v for v in values.values() if v is not None)
    assert not any(f.oracle for fs in feedback.values() for f in fs), "no gold is read"


@pytest.mark.parametrize("recipe", SELECTORS)
@pytest.mark.parametrize(
    ("answers", "right"),
    [([BROKEN], False), ([RIGHT], True), ([RIGHT, BROKEN, BROKEN, BROKEN, BROKEN], True), (["", ""], False)],
    ids=["all fail", "identical", "one runs", "no query"],
)
async def test_groups_without_a_choice(folder: Path, recipe: str, answers: list[str], right: bool) -> None:
    model = World(lambda i, seed: sql(answers[i % len(answers)]))
    _, chosen, feedback = await run(folder, model, recipe, "loop.samples=5", "loop.most=0")
    assert (chosen.answer == RIGHT) == right
    assert all((f.value is None) == bool(f.reason) for fs in feedback.values() for f in fs)


@pytest.mark.parametrize("recipe", ["paverl", "paverl_preview", "tournament", "chess"])
async def test_a_judge_that_never_keeps_the_form_leaves_it_to_the_majority(folder: Path, recipe: str) -> None:
    model = World(MIXED, judge=lambda text: "All of them are lovely.")
    _, chosen, feedback = await run(folder, model, recipe, "loop.samples=5", "loop.most=0")
    verdict = load_recipe(recipe).critics.verdict
    said = [f for fs in feedback.values() for f in fs if f.critic == verdict]
    assert chosen.answer == RIGHT and model.judged > 0
    assert any("in" in f.text and "calls" in f.text for f in said), "calls without a mark are told"


async def test_a_preview_is_what_each_answer_gave(folder: Path) -> None:
    asked: list[str] = []
    model = World(MIXED)

    def listen(text: str) -> str:
        asked.append(text)
        return model.fair(text)

    model.judge = listen
    await run(folder, model, "paverl_preview", "loop.samples=5")
    assert "  result: 1 row, 1 column: (3)\n  given by: 3 of 5 answers" in asked[0] and "0 rows, 1 column" in asked[0]
    asked.clear()
    await run(folder, model, "paverl", "loop.samples=5", file="plain.db")
    assert "  result:" not in asked[0]


async def test_confidence_weighs_only_what_the_backend_gave(folder: Path) -> None:
    model = World(MIXED)
    _, _, feedback = await run(folder, model, "confidence", "loop.samples=5")
    texts = [f.text for fs in feedback.values() for f in fs if f.critic == "vote" and f.value]
    assert texts and all("gave no log-probabilities" in t for t in texts)
    model = World(MIXED)
    model.logprobs = (-0.5, -0.25)
    made, chosen, feedback = await run(folder, model, "confidence", "loop.samples=5", file="given.db")
    texts = [f.text for fs in feedback.values() for f in fs if f.critic == "vote" and f.value]
    assert chosen.answer == RIGHT and texts and all("confidence" in t for t in texts)
    assert made[0].steps[0].logprobs == (-0.5, -0.25)


async def test_reflect_on_execution_without_gold(folder: Path) -> None:
    """The first query fails, critique and lesson follow, the retry sees what was tried; nobody reads gold."""
    prompts: list[str] = []

    def play(messages: Sequence[Message], index: int, seed: int | None) -> str:
        text = messages[0].content
        prompts.append(text)
        role = re.match(r"# Role: (\w+)", text)
        assert role is not None
        if role[1] == "solver":
            return sql(RIGHT if BROKEN in text else BROKEN)
        return "VERDICT: wrong\nCLAUSES: from" if role[1] == "critic" else "HINT: birds are in the table bird"

    async with opened(folder, ScriptedModel(play), "sql_reflect") as (shop, store):
        await learn(shop, shop.app.tasks(), run="r")
        first, second = store.attempts("r")
        (group,) = store.groups("r")
        feedback = store.feedback([first.id, second.id])
    assert (first.answer, second.answer, group.chosen) == (BROKEN, RIGHT, second.id)
    assert {f.critic for fs in feedback.values() for f in fs} == {"self_check", "critique"}
    assert any("error: no such table" in text for text in prompts if text.startswith("# Role: critic"))
    retry = [text for text in prompts if text.startswith("# Role: solver")][-1]
    assert "birds are in the table bird" in retry and BROKEN in retry
    recipe = load_recipe("sql_reflect")
    assert (
        recipe.memory.name
        and recipe.memory.quarantine
        and dataclasses.asdict(recipe)["critics"]["names"] == ("self_check",)
    )
