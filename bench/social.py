"""Do words learned in practice conversations help with people nobody practised with? Memory beside its controls.

Twenty scenarios are practised, ten others are scored, with the person played by rules (`apps/social/people.py`). The
speaker is no language model: `rules:social` picks among ten named moves, by what the lessons in its prompt say of them,
else by chance; as reflector it reads in a transcript which moves were met warmly and writes one line. So the figures
say that the way from a failed conversation over words to a better conversation with somebody else works, and how much
of it is the right words (shuffled memory) or more tries (retry-only). They say nothing about language models: those
figures are null here.

Arms as everywhere (`verbal/evaluate.py`), at most two attempts a scenario, three seeds. Ten scenarios tell little, so
`many` scores the same lessons on more people, put together by the rules of the proposer; `with_quarantine` is the same
with lessons on trial until outcomes speak for them, and twelve passes in place of three. Writes results/social.json.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from verbal.apps.social import Social
from verbal.apps.social.imagined import imagine_people
from verbal.apps.social.scenarios import scenario_of
from verbal.learning import run_learn
from verbal.models import open_model
from verbal.store import Store

OUT = Path(__file__).parent / "results" / "social.json"
MANY = 120
"""Scenarios that the proposer is asked for; repeats are left out."""
KEPT = ("name", "mean", "low", "high", "per_seed", "attempts", "unscored")


def learned(folder: Path, recipe: str, overrides: list[str], seeds: int) -> dict[str, Any]:
    """What one recipe's lessons come to on the scenarios nobody practised."""
    options = {"recipe": recipe, "overrides": overrides, "model": "", "app": {}}
    began = time.perf_counter()
    made = run_learn(
        options, str(folder / f"{recipe}.db"), run="bench", memory="bench", split="train", limit=None, seeds=seeds,
        evaluate_on="dev", resume=False, dry_run=False, quiet=True,
    )  # fmt: skip
    with Store(folder / f"{recipe}.db") as store:
        spoken = sum(len(a.steps) // 2 for a in store.attempts())
    return {
        "recipe": recipe,
        "overrides": [o.rpartition("/")[2] if "scenarios=" in o else o for o in overrides],
        "arms": {arm["name"]: {k: arm[k] for k in KEPT[1:]} for arm in made["arms"]},
        "differences": {d["name"]: [d["mean"], d["low"], d["high"]] for d in made["differences"]},
        "claim": made["claim"],
        "claim_holds": made["claim_holds"],
        "lessons_first_seed": len(made["lessons"]),
        "lessons_believed_first_seed": sum(x["status"] == "active" for x in made["lessons"]),
        "turns": spoken,
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    app = Social()
    checks = asyncio.run(app.check())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "one").mkdir()
        (place / "two").mkdir()
        (place / "many").mkdir()
        many = place / "many" / "scenarios.jsonl"
        people = asyncio.run(imagine_people(app, open_model("rules:social"), MANY, seed=1))
        shipped = [scenario_of(task) for task in app.tasks("train")]
        held_out = [dataclasses.replace(p, split="dev") for p in people]
        many.write_text("".join(s.to_json() + "\n" for s in [*shipped, *held_out]), encoding="utf-8")
        found = {
            "what": "speaker and person by rules, no language model",
            "scenarios": {**{split: len(app.tasks(split)) for split in ("train", "dev")}, "many": len(people)},
            "checks": {"passed": sum(f["ok"] for f in checks), "failed": sum(not f["ok"] for f in checks)},
            "social": learned(place / "one", "social", [], options.seeds),
            "many": learned(place / "many", "social", [f"app.options.scenarios={many}"], options.seeds),
            "with_quarantine": learned(
                place / "two", "social", ["memory.quarantine=true", "loop.epochs=12"], options.seeds
            ),
            "social_refine": learned(place, "social_refine", [], options.seeds),
            "language_model": None,
            "model_plays_the_person": None,
        }
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    for name in ("social", "many", "with_quarantine", "social_refine"):
        print(name, {a: round(v["mean"], 3) for a, v in found[name]["arms"].items()}, found[name]["claim"])


if __name__ == "__main__":
    main()
