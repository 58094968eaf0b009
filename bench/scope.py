"""How far a lesson reaches: answers it changes inside, near and outside its scope, with and without the scope test.

Four ways to serve the lessons: every lesson in every prompt (the in-context baseline of the source), what retrieval
finds, what retrieval finds where each lesson has the boundary that came with it, and what it finds after the scope test
narrowed or refused lessons. Three subjects:

* obedient: a writer whose answer follows every lesson it is shown, wherever it is shown it (the worst case);
* careful: a writer who follows a lesson only where half of the words of its `when` occur in the request;
* embedded: the embedded model on the demo database, its 18 terms as lessons; an answer is the rows of its query.

The writers' lessons, requests and boundaries are bench/data/feedback.jsonl: in half of the pieces the requests avoid
the words of the feedback. The test sees the first four requests of a kind, every number here is of the others. For the
embedded model the test sees train questions, the numbers are of dev questions; nobody proposes boundaries there.

    python bench/scope.py [--skip-embedded]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbal.contracts import Observation
from verbal.evaluate import Interval, difference, interval
from verbal.models.scripted import ScriptedModel
from verbal.parts import load_function, make_part
from verbal.recipe import load_recipe, parse_recipe
from verbal.run import Progress, Workshop, open_workshop
from verbal.scope import KINDS, Requests, Scope, confine, make_requests, try_scope, verdict, write_requests
from verbal.store import Store
from verbal.types import MemoryOp, Message, Reflection, Task

HERE = Path(__file__).parent
FEEDBACK = [json.loads(line) for line in (HERE / "data" / "feedback.jsonl").read_text("utf-8").splitlines()]
TOLD = 4
"""Requests of a kind that the scope test sees."""
ARMS = ("every", "retrieval", "boundary", "test")


@dataclass(frozen=True, slots=True)
class Case:
    """One lesson with what it is tested and measured on."""

    item: Reflection
    boundary: str
    told: Requests | None
    """None: the proposer writes them."""
    held: Requests
    group: str


class Desk:
    """An app of free requests: the answer is whatever the writer says."""

    name = "desk"

    def task(self, question: str, *, id: str, db: str | None = None) -> Task:
        """The task that a request makes."""
        return Task(id=id, kind="desk", messages=(Message(role="user", content=question),), info={"question": question})

    def environment(self) -> Desk:
        """The desk keeps nothing of a request."""
        return self

    async def start(self, task: Task, *, hints: Sequence[Reflection] = (), tried: Sequence[str] = ()) -> list[Message]:
        """The request under the lessons that are shown."""
        lines = [json.dumps({"id": h.id, "when": h.when, "text": h.text}) for h in hints]
        return [Message(role="user", content="\n".join(["# Role: solver", *lines, task.info["question"]]))]

    async def step(self, reply: Any) -> Observation:
        """The reply is the answer."""
        return Observation(text=reply.text, done=True, answer=reply.text)

    async def execute(self, task: Task, answer: str) -> Observation:
        """An answer shows itself."""
        return Observation(text=answer, done=True, answer=answer)

    async def aclose(self) -> None:
        """Nothing to close."""


def writer(careful: bool) -> ScriptedModel:
    """A model that proposes the first requests of a piece of feedback, and answers by the lessons it is shown."""
    informative = load_function("memory", "words", "informative")

    def reply(messages: Sequence[Message], index: int, seed: int | None) -> str:
        text = messages[0].content
        if "# Role: proposer" in text:
            row = next(r for r in FEEDBACK if json.dumps(r["text"], ensure_ascii=False) in text)
            return json.dumps({"boundary": row["boundary"], **{k: row[k][:TOLD] for k in KINDS}})
        *lines, request = text.split("\n")[1:]
        asked, shown = set(informative(request)), [json.loads(line) for line in lines]
        if careful:
            when = {h["id"]: set(informative(h["when"])) for h in shown}
            shown = [h for h in shown if len(when[h["id"]] & asked) >= len(when[h["id"]]) / 2]
        return f"{request} -> done by {sorted(h['id'] for h in shown)}"

    return ScriptedModel(reply)


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-embedded", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "scope.json")
    options = parser.parse_args()
    found: dict[str, Any] = {"feedbacks": len(FEEDBACK), "held_out_of_a_kind": TOLD, "paper_in_context_s_out": 0.503}
    subjects = ["obedient", "careful"] + ["embedded"] * (not options.skip_embedded)
    with tempfile.TemporaryDirectory() as folder:
        for name in subjects:
            began = time.perf_counter()
            with Store(Path(folder) / f"{name}.db") as store:
                found[name] = asyncio.run(measure(store, name))
            found[name]["seconds"] = round(time.perf_counter() - began, 1)
            print(table(name, found[name]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


async def measure(store: Store, name: str) -> dict[str, Any]:
    """The four arms of one subject."""
    async with opened(store, name) as shop:
        cases = terms(shop.app) if name == "embedded" else feedback(shop.app)
        found: dict[str, Any] = {"lessons": len(cases)}
        for arm in ARMS[: 2 if name == "embedded" else 4] + ARMS[3:] * (name == "embedded"):
            found[arm] = await run_arm(shop, cases, arm, f"{name}-{arm}")
    for key, arm in (("without", "retrieval"), ("with", "test")):
        found[f"overgeneralisation_{key}"] = found[arm]["s_out"][0]
        found[f"adherence_{key}"] = found[arm]["s_in"][0]
    lessons = {arm: found[arm].pop("lessons") for arm in ARMS if arm in found}
    found["test_minus_retrieval"] = {
        key: spread(difference([lessons["test"][key]], [lessons["retrieval"][key]]))
        for key in ("s_in", "s_out", "score")
    }
    return found


@asynccontextmanager
async def opened(store: Store, name: str) -> Any:
    """The workshop of a subject, without a memory."""
    if name == "embedded":
        recipe = load_recipe("reflect", ["memory.name=exact", "loop.critique=false"])
        async with open_workshop(recipe, store, run="bench") as shop:
            yield shop
        return
    model = writer(name == "careful")
    recipe = parse_recipe('[critics]\nnames = []\nverdict = ""\n[memory]\nname = "exact"')
    app: Any = Desk()
    yield Workshop(recipe, store, app, lambda role: model, [], None, None, Progress())


def feedback(app: Any) -> list[Case]:
    """A case for each piece of feedback."""
    return [
        Case(
            item=Reflection(id=f"r{n}", text=row["text"], when=row["when"]),
            boundary=row["boundary"],
            told=None,
            held=make_requests(app, {k: row[k][TOLD:] for k in KINDS}),
            group=row["wording"],
        )
        for n, row in enumerate(FEEDBACK, 1)
    ]


def terms(app: Any) -> list[Case]:
    """A case for each term of the demo. Near: questions with another term, or none, about the same thing."""
    from verbal.apps.text2sql.demo import TERMS

    informative = load_function("memory", "words", "informative")
    made = []
    for n, term in enumerate(TERMS.values(), 1):
        thing = {*informative(term.table), *informative(term.subject)} - {*informative(term.phrase)}
        halves = []
        for split, most in (("train", TOLD), ("dev", 2 * TOLD)):
            own, near, outside = [], [], []
            for task in app.tasks(split):
                words = set(informative(task.info["question"]))
                if term.phrase in task.info["terms"]:
                    own.append(task)
                elif thing & words and not set(informative(term.phrase)) & words:
                    near.append(task)
                elif not task.info["terms"]:
                    outside.append(task)
            halves.append(Requests(inside=pick(own, most), near=pick(near, most), outside=pick(outside, most)))
        item = Reflection(id=f"r{n}", text=term.hint)
        made.append(Case(item, "", halves[0], halves[1], term.kind))
    return made


def pick(tasks: Sequence[Task], most: int) -> tuple[Task, ...]:
    """At most so many, from all over the list."""
    step = max(1, len(tasks) // most)
    return tuple(tasks[::step][:most])


async def run_arm(shop: Workshop, cases: Sequence[Case], arm: str, run: str) -> dict[str, Any]:
    """One way to serve the lessons."""
    options: dict[str, Any] = {"policy": "all", "token_cap": None} if arm == "every" else {}
    table = shop.recipe.memory
    shop.recipe = replaced(shop.recipe, k=len(cases) if arm == "every" else 3)
    memory = make_part("memory", "exact", store=shop.store, name=run, **options)
    try:
        items = [c.item.replace(boundary=c.boundary if arm == "boundary" else "") for c in cases]
        await memory.apply([MemoryOp(op="ADD", item=item, author="user") for item in items])
        decided: Counter[str] = Counter()
        for case in cases if arm == "test" else ():
            told = case.told or await write_requests(shop, memory.items()[case.item.id], [], TOLD)
            decided[verdict(*await confine(shop, memory, memory.items()[case.item.id], told, run=f"{run}-told"))] += 1
        tried = [await try_scope(shop, memory, memory.items()[c.item.id], c.held, run=run) for c in cases]
    finally:
        memory.close()
        shop.recipe = replaced(shop.recipe, k=table.k)
    return {**rates(tried), **by_group(cases, tried), **({"decided": dict(decided)} if decided else {})}


def replaced(recipe: Any, **changes: Any) -> Any:
    """The recipe with another memory table."""
    from dataclasses import replace

    return replace(recipe, memory=replace(recipe.memory, **changes))


def rates(tried: Sequence[Scope]) -> dict[str, Any]:
    """Shares of changed answers with 95 % intervals over lessons, and what each lesson came to."""
    wanted: dict[str, Any] = {
        "s_in": ["inside"],
        "s_out": ["near", "outside"],
        "near": ["near"],
        "outside": ["outside"],
    }
    lessons = {name: [s.share(*kinds) for s in tried] for name, kinds in wanted.items()}
    lessons["score"] = [s.score for s in tried]
    asked = {kind: sum(s.asked[kind] for s in tried) for kind in KINDS}
    return {**{key: spread(interval([values])) for key, values in lessons.items()}, "asked": asked, "lessons": lessons}


def spread(span: Interval) -> list[float]:
    """Mean, low, high."""
    return [round(x, 4) for x in (span.mean, span.low, span.high)]


def by_group(cases: Sequence[Case], tried: Sequence[Scope]) -> dict[str, Any]:
    """S_in and S_out of each group of lessons."""
    groups = dict.fromkeys(c.group for c in cases)
    parts = {g: [s for c, s in zip(cases, tried, strict=True) if c.group == g] for g in groups}
    return {"by": {g: {k: rates(part)[k][0] for k in ("s_in", "s_out", "score")} for g, part in parts.items()}}


def table(name: str, found: dict[str, Any]) -> str:
    """The arms of a subject as Markdown, in per cent."""
    lines = [
        f"\n{name}: {found['lessons']} lessons, {found['seconds']} s",
        "| arm | S_in | near | outside | S_out | S |",
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for arm in ARMS:
        if arm in found:
            cells = [found[arm][k] for k in ("s_in", "near", "outside", "s_out", "score")]
            row = " | ".join("{:.1f} [{:.1f}, {:.1f}]".format(*(100 * x for x in cell)) for cell in cells)
            lines.append(f"| {arm} | {row} | {found[arm]['by']} {found[arm].get('decided', '')}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
