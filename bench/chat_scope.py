"""How far a lesson of the chat agent reaches: taught in words, then asked for inside, near and outside its scope.

The whole agent is used: a person says the feedback, the rules read it (no model reads it), and each request is a
conversation of its own. Three ways to show what was taught:

* always: in every prompt (the in-context baseline of the source, S_out 0.503 there with a real model);
* search: what the house's search finds;
* fit: what the agent shows, which is the search with the test of `apps/chat/fit.py`.

Two writers stand in for models: `obedient` follows whatever it is shown (the worst case), `careful` follows a lesson
only where half of the words of its `when` occur in the request. Two sets: `own` (data/chat_feedback.jsonl, 12 pieces
written for this bench; what failed there was looked at, and the test made better) and `feedback` (data/feedback.jsonl,
32 pieces of bench/scope.py, which were held out). In a third, or half, of the pieces the requests avoid the words of
the feedback.

S_in is the share of answers inside that follow the lesson, S_out the share near and outside that do;
S = (S_in + 1 - S_out) / 2. Feedback that the rules do not read as a lesson (it is not counted in `understood`), or that
names no situation, gets the situation of its row, as if the person had said "only for ...". `gate_opens_for_requests`:
ordinary requests for which a model would be asked whether they are feedback, an extra call.

    python bench/chat_scope.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verbal.apps.chat import ChatAgent, working
from verbal.apps.chat.fit import Fitting
from verbal.apps.chat.outcomes import teach
from verbal.apps.chat.turn import Understanding
from verbal.apps.chat.understanding import may_teach
from verbal.evaluate import interval
from verbal.models.scripted import ScriptedModel
from verbal.parts import load_function
from verbal.store import Store
from verbal.types import Message, Reflection

HERE = Path(__file__).parent
KINDS = ("inside", "near", "outside")
ARMS = ("always", "search", "fit")
SETS = {"own": "chat_feedback.jsonl", "feedback": "feedback.jsonl"}


class Everything(Fitting):
    """All that was taught, whatever is asked."""

    async def search(self, query: str, k: int, **given: Any) -> list[Reflection]:
        """The items of a standing."""
        return [r for r in self.memory.items().values() if r.status == given["status"]]


class Found(Fitting):
    """What the house's search finds, and what holds always."""

    async def search(self, query: str, k: int, **given: Any) -> list[Reflection]:
        """Without the test of the situation."""
        found = await self.memory.search(query, k, **given)
        rest = [r for r in self.memory.items().values() if r.status == given["status"] and not r.when]
        return [*found, *(r for r in rest if r not in found)]


def writer(careful: bool) -> ScriptedModel:
    """A model that names the lessons that it follows."""
    informative = load_function("memory", "words", "informative")

    def reply(messages: Sequence[Message], index: int, seed: int | None) -> str:
        if "# Role: feedback" in messages[-1].content:
            return "the rules have to read it"
        shown = [json.loads(line) for line in messages[0].content.splitlines() if line.startswith('{"id"')]
        asked = set(informative(messages[-1].content))
        if careful:
            when = {h["id"]: set(informative(h.get("when", ""))) for h in shown}
            shown = [h for h in shown if 2 * len(when[h["id"]] & asked) >= len(when[h["id"]])]
        return f"Done.\nUSED: {', '.join(h['id'] for h in shown) or 'none'}"

    return ScriptedModel(reply)


@contextmanager
def arm(name: str) -> Iterator[None]:
    """Serves lessons in one of the three ways."""
    shipped = working.Fitting
    working.Fitting = {"always": Everything, "search": Found, "fit": Fitting}[name]  # type: ignore[misc]
    try:
        yield
    finally:
        working.Fitting = shipped  # type: ignore[misc]


async def piece(store: Store, row: dict[str, Any], user: str, careful: bool) -> tuple[dict[str, float], bool]:
    """Shares of answers that follow one lesson, by kind, and whether the rules read the feedback as a lesson."""
    async with ChatAgent(model=writer(careful), store=store, user=user) as agent:
        said = row.get("say") or row["text"]
        await ask(agent, said)
        understood = bool(agent.lessons())
        if not understood:
            read = Understanding(kind="teach", lesson=row.get("text") or said, when=row["when"])
            await teach(agent.store, agent.own, read, "")
        elif not agent.lessons()[0]["when"]:
            await agent.narrow("u1", when=row["when"])
        shares = {}
        for kind in KINDS:
            used = [any(x["used"] for x in (await ask(agent, text)).lessons) for text in row[kind]]
            shares[kind] = sum(used) / len(used)
        return shares, understood


async def ask(agent: ChatAgent, text: str) -> Any:
    """A request, in a conversation of its own."""
    async for event in agent.stream(text):
        done = event.data
    assert agent.last is not None and "turn" in done
    return agent.last


async def measure(name: str) -> dict[str, Any]:
    """Both writers and the three arms on one set."""
    rows = [json.loads(line) for line in (HERE / "data" / SETS[name]).read_text("utf-8").splitlines()]
    found: dict[str, Any] = {"feedbacks": len(rows)}
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "v.db") as store:
        for careful in (False, True):
            told = found["careful" if careful else "obedient"] = {}
            for way in ARMS:
                with arm(way):
                    tried = [await piece(store, r, f"{way}-{careful}-{n}", careful) for n, r in enumerate(rows)]
                told[way] = rates(rows, [shares for shares, _ in tried])
                found["understood"] = sum(read for _, read in tried)
    said = [row.get("say") or row["text"] for row in rows]
    asked = [text for row in rows for kind in KINDS for text in row[kind]]
    found["gate_opens_for_feedback"] = sum(map(may_teach, said))
    found["gate_opens_for_requests"] = [sum(map(may_teach, asked)), len(asked)]
    return found


def rates(rows: Sequence[dict[str, Any]], shares: Sequence[dict[str, float]]) -> dict[str, Any]:
    """S_in, S_out and S with 95 % intervals over lessons, and by wording."""
    inside = [s["inside"] for s in shares]
    out = [(s["near"] + s["outside"]) / 2 for s in shares]
    score = [(i + 1 - o) / 2 for i, o in zip(inside, out, strict=True)]
    made: dict[str, Any] = {"s_in": spread(inside), "s_out": spread(out), "s": spread(score)}
    made |= {kind: spread([s[kind] for s in shares]) for kind in ("near", "outside")}
    for wording in dict.fromkeys(r["wording"] for r in rows):
        own = [n for n, r in enumerate(rows) if r["wording"] == wording]
        made[f"s_in_{wording}"] = round(sum(inside[n] for n in own) / len(own), 4)
        made[f"s_out_{wording}"] = round(sum(out[n] for n in own) / len(own), 4)
    return made


def spread(values: Sequence[float]) -> list[float]:
    """Mean, low, high."""
    span = interval([values])
    return [round(x, 4) for x in (span.mean, span.low, span.high)]


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "chat_scope.json")
    options = parser.parse_args()
    found: dict[str, Any] = {"paper_in_context": {"s_in": 0.677, "s_out": 0.503, "s": 0.587}}
    for name in SETS:
        began = time.perf_counter()
        found[name] = asyncio.run(measure(name))
        found[name]["seconds"] = round(time.perf_counter() - began, 1)
        keys = ("feedbacks", "understood", "gate_opens_for_feedback", "gate_opens_for_requests")
        print(name, {key: found[name][key] for key in keys})
        for writer_name in ("obedient", "careful"):
            for way in ARMS:
                cells = found[name][writer_name][way]
                print(f"  {writer_name:9} {way:7}", {k: v[0] if isinstance(v, list) else v for k, v in cells.items()})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
