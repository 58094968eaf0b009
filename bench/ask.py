"""What the assistant takes beside its model, and how often it asks back without need: bench/results/ask.json.

    .venv/bin/python bench/ask.py [--data DIR] [--questions N]

Latency: `Assistant.ask` in an open session, with a scripted model that answers at once, recorded replies off, every
question a new one; on Chinook when DIR holds extra/chinook.sqlite, else on the demo shop. The time inside the model's
call is taken off. Bound: what cannot be left out, in the same process and alternating with it: the solver's prompt
built once and the five candidate queries run by `sqlite3` on an open connection, their rows compared (`bound_p50_ms`).
Beside it the processor time of this process (`ask_cpu_p50_ms`, for busy machines), one such query alone, and the
command `verbal ask` from a cold start, wall time of the process.

Clarity: the embedded model on every n-th question of Spider dev (DIR/spider) and on some that no database answers.
False ask: it asked back although the first reading was right. Needed ask: another of its readings was right. False
abstention: it abstained although a candidate was right. Spider-Syn's questions, whose words the schema has not, are
told beside. Skipped without data.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verbal.apps.text2sql.assistant import Assistant
from verbal.apps.text2sql.clarify import same_result
from verbal.apps.text2sql.demo import demo_database
from verbal.contracts import Reply
from verbal.models.scripted import ScriptedModel
from verbal.recipe import load_recipe
from verbal.types import Message

RESULTS = Path(__file__).resolve().parent / "results"
CHINOOK = [
    ("How many customers are from {0}?", "SELECT COUNT(*) FROM Customer WHERE Country = '{0}'"),
    ("Total of the invoices from {0} by city",
     "SELECT BillingCity, SUM(Total) FROM Invoice WHERE BillingCountry = '{0}' GROUP BY BillingCity ORDER BY 2 DESC"),
    ("Which artists did customers from {0} buy?",
     "SELECT DISTINCT ar.Name FROM Artist ar JOIN Album al ON al.ArtistId = ar.ArtistId JOIN Track t "
     "ON t.AlbumId = al.AlbumId JOIN InvoiceLine il ON il.TrackId = t.TrackId JOIN Invoice i "
     "ON i.InvoiceId = il.InvoiceId WHERE i.BillingCountry = '{0}' ORDER BY ar.Name"),
    ("Names of the customers from {0}", "SELECT FirstName, LastName FROM Customer WHERE Country = '{0}'"),
    ("Tracks that are longer than {1} milliseconds", "SELECT Name, Milliseconds FROM Track WHERE Milliseconds > {1}"),
]  # fmt: skip
SHOP = [
    ("How many customers are from {0}?", "SELECT COUNT(*) FROM customer WHERE city = '{0}'"),
    ("Average points of customers from {0} by segment",
     "SELECT segment, AVG(points) FROM customer WHERE city = '{0}' GROUP BY segment"),
    ("Orders of customers from {0} by carrier",
     "SELECT c.name, COUNT(*) FROM orders o JOIN carrier c ON c.carrier_id = o.carrier_id JOIN customer u "
     "ON u.customer_id = o.customer_id WHERE u.city = '{0}' GROUP BY c.name"),
    ("Products that cost more than {1}", "SELECT name, price FROM product WHERE price > {1} / 1000"),
]  # fmt: skip
PLACES = ("Brazil", "France", "Canada", "Germany", "USA", "Portugal", "Norway", "India", "Berlin", "Porto", "Lyon")
NOWHERE = (
    "What is the colour of the moon?", "Who won the football match yesterday?", "Tell me a joke",
    "How do I bake bread?",
    "What will the weather be like tomorrow in Ulaanbaatar?", "asdf qwer zxcv", "Why is the sky blue?",
    "Write me a poem about rivers", "What is the meaning of life?", "Quel temps fait-il demain ?", "Wie spät ist es?",
    "Please reboot the server", "How tall is Mount Kilimanjaro?", "Translate hello into Japanese",
    "Is quantum gravity real?", "今天天气怎么样？",
)  # fmt: skip
"""Questions that none of the databases answers."""


class Timed(ScriptedModel):
    """A scripted model that knows how long it took."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__(lambda messages, index, seed: "")
        self.answers, self.inside, self.name = answers, 0.0, "scripted/timed"

    async def generate(self, messages: Sequence[Message], n: int, sampling: Any) -> list[Reply]:
        """The query for the question of the prompt."""
        began = time.perf_counter()
        asked = messages[-1].content.partition("## Question\n")[2].partition("\n")[0]
        replies = [Reply(text=f"```sql\n{self.answers[asked]}\n```", model=self.name) for _ in range(n)]
        self.inside += time.perf_counter() - began
        return replies


def pairs(kind: Sequence[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """`count` different questions with their queries."""
    found: dict[str, str] = {}
    for i in range(20 * count):
        question, sql = kind[i % len(kind)]
        place, number = PLACES[i // len(kind) % len(PLACES)], 300_000 + 1_000 * i
        found.setdefault(question.format(place, number), sql.format(place, number))
        if len(found) == count:
            break
    return list(found.items())


async def latency(db: Path, kind: Sequence[tuple[str, str]], count: int) -> dict[str, Any]:
    """Milliseconds of `ask`, of its bound, and of one bare query."""
    asked = pairs(kind, count + 5)
    model, ours, bound, bare = Timed(dict(asked)), list[float](), list[float](), list[float]()
    cpu = list[float]()
    recipe = load_recipe("ask", ["model.cache='off'"])
    connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    with tempfile.TemporaryDirectory() as folder:
        async with Assistant(db, model=model, store=f"{folder}/v.db", recipe=recipe) as assistant:
            for i, (question, sql) in enumerate(asked):
                inside, began, worked = model.inside, time.perf_counter(), time.process_time()
                answer = await assistant.ask(question)
                took = time.perf_counter() - began - (model.inside - inside)
                worked = time.process_time() - worked - (model.inside - inside)
                assert answer.answer == sql, (question, answer)
                began = time.perf_counter()
                assistant.app.messages("solver", await assistant.task(question))
                results = [connection.execute(sql).fetchall() for _ in range(5)]
                assert all(sorted(map(repr, r)) == sorted(map(repr, results[0])) for r in results[1:])
                at_least = time.perf_counter() - began
                began = time.perf_counter()
                connection.execute(sql).fetchall()
                alone = time.perf_counter() - began
                if i >= 5:  # the first ones read the schema and start the workers
                    ours.append(1e3 * took)
                    cpu.append(1e3 * worked)
                    bound.append(1e3 * at_least)
                    bare.append(1e3 * alone)
    connection.close()
    p50, floor = statistics.median(ours), statistics.median(bound)
    return {
        "database": db.stem, "questions": len(ours), "ask_p50_ms": round(p50, 2),
        "ask_p95_ms": round(sorted(ours)[int(0.95 * len(ours))], 2), "bound_p50_ms": round(floor, 2),
        "ask_cpu_p50_ms": round(statistics.median(cpu), 2), "ratio_to_bound": round(p50 / floor, 2),
        "bare_query_p50_ms": round(statistics.median(bare), 3), "goal_ms": 30,
    }  # fmt: skip


def cold(db: Path, kind: Sequence[tuple[str, str]], tries: int = 5) -> dict[str, Any]:
    """Seconds of the whole command, from a cold start of its process."""
    ((question, sql),) = pairs(kind, 1)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "m.jsonl"
        script.write_text(json.dumps({"reply": f"```sql\n{sql}\n```"}))
        command = [sys.executable, "-m", "verbal.cli", "ask", str(db), question, "--model", f"scripted:{script}"]
        command += ["--store", f"{folder}/v.db", "--json"]
        took = []
        for _ in range(tries):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            took.append(time.perf_counter() - began)
    return {"cold_cli_p50_s": round(statistics.median(took), 3)}


async def clarity(data: Path, count: int, key: str) -> dict[str, Any]:
    """How often the embedded model's answers are asked back or withheld, and whether that was needed."""
    lines = [json.loads(line) for line in (data / "spider" / "dev.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line.get(key)]
    lines = lines[:: max(1, len(lines) // count)][:count]
    by_db: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        by_db[line["db_id"]].append(line)
    tally, nonsense = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, questions) in enumerate(sorted(by_db.items())):
            db = data / "spider" / "database" / name / f"{name}.sqlite"
            async with Assistant(db, store=f"{folder}/{name}.db") as assistant:
                for line in questions:
                    tally.update(await judged(assistant, line[key], line["query"]))
                for question in NOWHERE[i % 4 :: 4]:
                    nonsense[(await assistant.ask(question)).status] += 1
    answered = tally["answered"] or 1
    return {
        "questions": len(lines), "accuracy_of_answers": round(tally["right"] / answered, 3),
        **{k: tally[k] for k in ("answered", "ambiguous", "abstained", "failed", "false_ask", "needed_ask", "idle_ask",
                                 "false_abstention")},
        "nonsense_asked": sum(nonsense.values()),
        "nonsense_not_answered": round(1 - nonsense["answered"] / max(1, sum(nonsense.values())), 3),
    }  # fmt: skip


async def judged(assistant: Assistant, question: str, gold: str) -> list[str]:
    """What an answer counts as."""
    answer = await assistant.ask(question)
    task = await assistant.task(answer.asked)
    right = await assistant.app.execute(task, gold)

    async def is_right(sql: str) -> bool:
        return bool(sql) and same_result(await assistant.app.execute(task, sql), right)

    found, first = [answer.status], await is_right(answer.answer)
    if answer.status == "answered":
        return [*found, "right"] if first else found
    if answer.status == "ambiguous":
        others = [await is_right(reading.sql) for reading in answer.readings[1:]]
        return [*found, "false_ask" if first else "needed_ask" if any(others) else "idle_ask"]
    run, turn = answer.id.rpartition("-")[::2]
    tried = assistant.shop.store.attempts(f"ask-{run}", arm=f"ask:{turn}")
    return [*found, *(["false_abstention"] if any([await is_right(a.answer) for a in tried]) else [])]


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("VERBAL_DATA"))
    parser.add_argument("--questions", type=int, default=200)
    given = parser.parse_args()
    data = Path(given.data) if given.data else None
    chinook = data / "extra" / "chinook.sqlite" if data else None
    if chinook is not None and chinook.is_file():
        db, kind = chinook, CHINOOK
    else:
        print("chinook: skipped: no data; the demo shop in its place")
        db, kind = demo_database(None), SHOP
    found: dict[str, Any] = {**asyncio.run(latency(db, kind, 40)), **cold(db, kind)}
    if data is not None and (data / "spider" / "dev.jsonl").is_file():
        found["spider_dev"] = asyncio.run(clarity(data, given.questions, "question"))
        found["spider_syn"] = asyncio.run(clarity(data, given.questions, "question_syn"))
    else:
        found["spider_dev"] = "skipped: no data"
        print("spider: skipped: no data")
    (RESULTS / "ask.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
