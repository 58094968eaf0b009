"""The audit of a memory on an import of 10,000 noisy items whose faults are known: precision and recall of each kind.

The mixture follows what people found who read a production memory by hand (mem0, issue 4573: 10,134 entries, 97.8 %
junk): prompts said again, one hallucination many times over, logs and heartbeats, invented profiles, small talk,
passing state, and a few lessons. Here three in ten items are clean, half of these made to look like junk (a lesson
about a column `password`, a definition of `today`), so that precision can fail. The sentences (bench/data/audit.json)
are by the same hands as the patterns: the bench says how fast the audit is and what it confuses, and its recall is an
upper bound. What comes from elsewhere stands beside it: 81 hostile lessons (bench/data/hostile.jsonl), and with --data
questions that people wrote (Spider): each is clean by itself, and two that ask for the same query are paraphrases.

    python bench/audit.py [--items 10000] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import string
import time
from collections import Counter
from pathlib import Path
from typing import Any

from verbal.parts import load_function
from verbal.types import Attempt, Message, Reflection, Step

HERE = Path(__file__).parent
SHARES = {
    "clean": 0.15, "near_miss": 0.15, "restated": 0.15, "duplicate": 0.1, "near": 0.06, "loop": 0.06, "transient": 0.08,
    "profile": 0.06, "greeting": 0.05, "empty": 0.04, "secret": 0.02, "injection": 0.02, "contradiction": 0.03,
    "single_use": 0.02, "unicode": 0.01,
}  # fmt: skip
SENTENCES: dict[str, Any] = json.loads((HERE / "data" / "audit.json").read_text("utf-8"))
WORDS = {name: text.split() for name, text in SENTENCES["words"].items()}
SYSTEM = ". ".join(SENTENCES["system"]) + "."
HOSTILE = [json.loads(line) for line in (HERE / "data" / "hostile.jsonl").read_text("utf-8").splitlines()]
ORDERS = [row["text"] for row in HOSTILE if row["kind"] in ("orders", "roles", "tools", "writes", "leaks")]
LETTERS = string.ascii_letters + string.digits


class World:
    """Draws items; every word is drawn from one generator, so that a seed gives one world."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.attempts: dict[str, Attempt] = {}
        self.made: list[Reflection] = []
        self.labels: dict[str, set[str]] = {}
        self.free: list[Reflection] = []
        """Clean items that nothing refers to yet."""
        self.terms: set[str] = set()

    def add(self, text: str, *kinds: str, **fields: Any) -> Reflection:
        """Files an item with its faults."""
        item = Reflection(id=f"r{len(self.made) + 1}", text=text, version=len(self.made) + 1, **fields)
        self.made.append(item)
        self.labels[item.id] = set(kinds)
        return item

    def attempt(self, shown: Reflection | None = None, system: str = SYSTEM) -> str:
        """An attempt whose prompt showed an item."""
        key = f"run/{len(self.attempts)}"
        hint = f'<hint id="{shown.id}">{shown.text}</hint>' if shown else "none"
        prompt = (Message(role="system", content=system), Message(role="user", content=f"## Hints\n{hint}"))
        step = Step(author="policy", text="SELECT 1", prompt=prompt, shown=(shown.id,) if shown else ())
        self.attempts[key] = Attempt(id=key, run="run", task=f"task-{key}", steps=(step,))
        return key

    def pick(self, words: list[str]) -> str:
        """One of them."""
        return self.rng.choice(words)

    def word(self) -> str:
        """A made-up word, so that two lessons seldom share all of theirs."""
        return "".join(self.pick(list("bdfgklmnprstvz")) + self.pick(list("aeiou")) for _ in range(3))

    def sentence(self, kind: str, **given: str) -> str:
        """A sentence of a kind with words drawn anew."""
        rng, w = self.rng, self.word()
        a, b = rng.sample(WORDS["tables"], 2)
        v1, v2 = rng.sample(WORDS["verbs"], 2)
        t1, t2 = rng.sample(WORDS["things"], 2)
        d1, d2 = rng.sample(WORDS["adverbs"], 2)
        keys = {f"k{n}": "".join(rng.choices(LETTERS, k=n)) for n in (6, 12, 32, 36, 40)}
        return self.pick(SENTENCES[kind]).format(
            a=a, b=b, w=w, v1=v1, v2=v2, t1=t1, t2=t2, d1=d1, d2=d2, **keys,
            n=self.pick(WORDS["nouns"]), adj=self.pick(WORDS["adjectives"]), col=self.pick(WORDS["columns"]),
            name=self.pick(WORDS["names"]), value=self.word()[:4].upper(), title=w.title(), upper=w.upper(),
            two=rng.randrange(2, 99), five=rng.randrange(1000, 99999),
            hash="".join(rng.choices("0123456789abcdef", k=40)),
            stamp=f"2026-0{rng.randrange(1, 9)}-1{rng.randrange(10)} {rng.randrange(10, 24)}:{rng.randrange(10, 60)}",
            aws="AKIA" + "".join(rng.choices(string.ascii_uppercase + "234567", k=16)), order=self.pick(ORDERS),
            system=self.pick(SENTENCES["system"]), tail=self.pick(["", " for the export", " on the staging host"]),
            **given,
        )  # fmt: skip

    def reworded(self, text: str) -> str:
        """The same lesson said a little differently."""
        told = text.replace(", so ", " and so ").replace(", since", " because").replace(" and keep", ", keep")
        return self.pick(SENTENCES["reworded"]).format(text=told)

    def opposite(self, text: str) -> str | None:
        """The opposite of a lesson, or None when it has none."""
        for verb in (" means ", " is defined as "):
            if verb in text:
                table, number = self.pick(WORDS["tables"]), self.rng.randrange(100, 999)
                return f"{text.partition(verb)[0]} means {table}.{self.word()} > {number}"
        if "descending" in text:
            return text.replace("descending", "ascending")
        return f"never {text}" if text.startswith(("join", "count")) else None


def world(count: int, seed: int) -> World:
    """A memory of about `count` items with known faults."""
    w = World(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(share * count))]
    w.rng.shuffle(kinds)
    kinds.sort(key=lambda kind: kind not in ("clean", "near_miss"))  # what is copied must be there before
    for kind in kinds:
        if kind == "clean":
            w.free.append(w.add(w.sentence(kind), attempts=(w.attempt(),), task=f"q{len(w.made)}"))
        elif kind == "near_miss":
            w.add(w.sentence(kind), attempts=(w.attempt(),), task=f"q{len(w.made)}")
        elif kind in SENTENCES and kind != "single_use":
            fields = {"attempts": (w.attempt(),)} if kind in ("restated", "empty", "injection") else {}
            w.add(w.sentence(kind), kind, **fields)
        else:
            _related(w, kind)
    return w


def _related(w: World, kind: str) -> None:
    """An item whose fault is what it has to do with another, or with its source."""
    base = w.rng.choice(w.free)
    if kind == "duplicate":
        # A third of them are one sentence that went round and round.
        base = w.free[0] if w.rng.random() < 0.33 else base
        w.add(w.pick([base.text, base.text.capitalize(), base.text + "."]), kind)
    elif kind == "near":
        w.add(w.reworded(base.text), kind)
    elif kind == "loop":
        w.add(w.reworded(base.text), kind, "near", attempts=(w.attempt(base),))
    elif kind == "contradiction":
        text = None
        while text is None:
            base = w.rng.choice(w.free)
            text = w.opposite(base.text)
        w.add(text, kind)
    elif kind == "single_use":
        task = f"task-{len(w.made)}"
        w.add(w.sentence(kind, task=task), kind, task=task)
    elif kind == "unicode":
        at = w.rng.randrange(3, 12)
        text = w.sentence("clean")
        w.add(text[:at] + w.pick(["\u202e", "\u200b", "\u2066", "\x07", "\u0430"]) + text[at:], kind)


def score(w: World, seed: int) -> dict[str, Any]:
    """Audits a world; precision and recall of each kind, and what was confused with what."""
    evidence = load_function("memory", "audit", "Evidence")(attempt=w.attempts.get, prompts=[SYSTEM])
    bounds = load_function("memory", "audit", "Bounds")(items=10**9, tokens=10**9)
    began = time.perf_counter()
    findings = load_function("memory", "audit", "audit")(w.made, evidence, bounds)
    seconds = time.perf_counter() - began
    subjects = load_function("memory", "audit", "subjects")
    told: dict[str, set[str]] = {}
    for finding in findings:
        for i in subjects(finding):
            told.setdefault(i, set()).add(finding.kind)
    # Words that are the same or nearly so make one family: which of the two is a matter of a comma.
    kin = {"duplicate": {"duplicate", "near", "loop"}, "near": {"near", "duplicate", "loop"}, "loop": {"loop"}}
    kin["unicode"] = {"unicode", "injection"}
    # Junk of one kind is often nearly the same in truth; the labels cannot say, so that counts neither way.
    alike = {f.ids[0] for f in findings if f.kind == "near" and w.labels[f.ids[0]] & w.labels[f.ids[1]]}
    kinds, wrong = {}, Counter[str]()
    for kind in [k for k in SHARES if k not in ("clean", "near_miss")]:
        has = {i for i, labels in w.labels.items() if kind in labels}
        says = {i for i, found in told.items() if kind in found}
        says -= alike if kind == "near" else set()
        fits = {i for i in says if w.labels[i] & kin.get(kind, {kind})}
        hit = {i for i in has if told.get(i, set()) & kin.get(kind, {kind})}
        wrong.update(f"{kind} for {'+'.join(sorted(w.labels[i])) or 'clean'}" for i in says - fits)
        kinds[kind] = {
            "items": len(has), "told": len(says), "recall": round(len(hit) / max(len(has), 1), 4),
            "precision": round(len(fits) / max(len(says), 1), 4),
        }  # fmt: skip
    junk = {i for i, labels in w.labels.items() if labels}
    named = {i for i, found in told.items() if found}
    return {
        "seed": seed, "items": len(w.made), "seconds": round(seconds, 2), "kinds": kinds,
        "any": {
            "junk": len(junk), "named": len(named), "recall": round(len(junk & named) / len(junk), 4),
            "precision": round(len(junk & named) / len(named), 4),
        },
        "confused": dict(wrong.most_common(20)),
        "missed": [w.made[int(i[1:]) - 1].text[:100] for i in sorted(junk - named, key=lambda i: int(i[1:]))[:10]],
        "false": [[w.made[int(i[1:]) - 1].text[:100], sorted(told[i])] for i in sorted(named - junk)[:10]],
    }  # fmt: skip


def hostile() -> dict[str, Any]:
    """The hostile lessons: how many are named at all, as an order to the model or otherwise, by their kind."""
    items = [Reflection(id=r["id"], text=r["text"]) for r in HOSTILE]
    findings = load_function("memory", "audit", "audit")(items)
    named = {i for f in findings if f.kind in ("injection", "unicode", "secret") for i in f.ids}
    kinds = {k: [0, 0] for k in dict.fromkeys(r["kind"] for r in HOSTILE)}
    for row in HOSTILE:
        kinds[row["kind"]][0] += row["id"] in named
        kinds[row["kind"]][1] += 1
    return {"cases": len(HOSTILE), "named": len(named), "by_kind": kinds}


def questions(folder: Path) -> dict[str, Any]:
    """Questions that people wrote, as if each was a lesson: whatever is found in one by its words is a false alarm."""
    rows = [json.loads(line) for line in (folder / "spider" / "train.jsonl").read_text("utf-8").splitlines()]
    texts = {r["question"]: r["query"] for r in rows}
    items = [Reflection(id=f"q{i}", text=t, task=f"t{i}") for i, t in enumerate(texts)]
    began = time.perf_counter()
    findings = load_function("memory", "audit", "audit")(
        items, None, load_function("memory", "audit", "Bounds")(items=10**9, tokens=10**9)
    )
    alarms = Counter(f.kind for f in findings)
    queries = dict(zip((item.id for item in items), texts.values(), strict=True))
    same = Counter(f.kind for f in findings if len(f.ids) > 1 and queries[f.ids[0]] == queries[f.ids[1]])
    held = {item.id: item.text for item in items}
    shown: dict[str, list[list[str]]] = {}
    for f in findings:
        if len(shown.setdefault(f.kind, [])) < 5:
            shown[f.kind].append([held[i][:100] for i in f.ids[:2]])
    return {
        "questions": len(items),
        "seconds": round(time.perf_counter() - began, 2),
        "alarms": dict(alarms),
        "same_query": dict(same),
        "examples": shown,
    }


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder of the real data sets")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "audit.json")
    options = parser.parse_args()
    found: dict[str, Any] = {"worlds": [score(world(options.items, seed), seed) for seed in range(options.seeds)]}
    found["hostile"] = hostile()
    found["people"] = questions(options.data) if options.data else "skipped: no data"
    options.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for row in found["worlds"]:
        print(f"seed {row['seed']}: {row['items']:,} items in {row['seconds']} s, any junk: {row['any']}")
        for kind, numbers in row["kinds"].items():
            print(f"  {kind:14} {numbers}")
        print("  confused:", row["confused"])
    print("missed:", *found["worlds"][0]["missed"], sep="\n  ")
    print("false:", *found["worlds"][0]["false"], sep="\n  ")
    print("hostile:", found["hostile"], "\npeople:", found["people"])


if __name__ == "__main__":
    main()
