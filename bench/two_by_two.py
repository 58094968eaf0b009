"""Memory off / on x base / distilled weights on the demo's dev questions, and which lessons those weights absorbed.

Tells the demo (or takes the store of one: `--demo FOLDER`), then asks the two commands as a person would:

* `verbal two-by-two` on the demo's own 40 questions, whose arms must be those the demo found, and on all 75 dev
  questions: the figure. 3 seeds, each with its own memory and its own weights.
* the same for weights that were fitted longer to the same traces (`--epochs`).
* `verbal memory absorbed --apply` by the train questions for those longer fits, and the figure with what is left.
* `verbal memory absorbed` for the first seed: on tasks the weights never saw, and on those they were trained on too;
  and the control, the same question to the base weights, which have absorbed nothing.

Results: `results/two_by_two.json` and the pictures `results/two_by_two.svg`, `results/two_by_two_longer.svg`.

    python bench/two_by_two.py [--demo FOLDER] [--epochs 12]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verbal.absorbed import Claim
from verbal.absorbed_verb import run_absorbed
from verbal.demo import FIT, run_demo
from verbal.options import command_options
from verbal.parts import load_function, make_part
from verbal.store import Store
from verbal.two_by_two import CELLS
from verbal.two_by_two_verb import run_two_by_two

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
DEMO_TASKS = 40


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, help="the folder of a finished demo; it is told anew if not given")
    parser.add_argument("--epochs", type=float, default=12, help="passes over the traces of the longer fit; 0 for none")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "two_by_two.json")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        demo = options.demo or Path(folder)
        if options.demo is None:
            run_demo(demo, model="embedded", seeds=len(SEEDS), tasks=DEMO_TASKS, max_cost=None, quiet=True)
        found = measure(demo, options.epochs, options.out)
    found["seconds"] = round(time.perf_counter() - began, 1)
    options.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{found['seconds']} s in all", flush=True)


def measure(demo: Path, epochs: float, out: Path) -> dict[str, Any]:
    """Both commands on the store of a finished demo; gives what goes into the results."""
    told = json.loads((demo / "results.json").read_text(encoding="utf-8"))
    url = str(demo / "demo.db")
    with Store(url) as store:  # the folder may have been moved since
        for seed in SEEDS:
            load_function("trainers", "checkpoint", "register")(store, f"demo-{seed}", demo / f"demo.weights-{seed}")
    small = draw(url, "demo", demo / "two-by-two-40.svg", limit=DEMO_TASKS)
    found: dict[str, Any] = {
        "two_by_two": brief(draw(url, "demo", out.with_suffix(".svg"))), "epochs": FIT["epochs"],
        "demo": brief(small), "demo_arms_equal": same_arms(small, told),
    }  # fmt: skip
    say("demo's own weights", found["two_by_two"])
    found["absorbed"] = {
        "unseen": absorbed(url, "checkpoint:demo-0"),
        "with_trained": absorbed(url, "checkpoint:demo-0", trained=True),
        "base_weights": absorbed(url, "embedded", trained=True),
    }
    if epochs:
        seconds = [refit(demo, url, seed, epochs) for seed in SEEDS]
        longer = brief(draw(url, "longer", out.with_name("two_by_two_longer.svg")))
        found["longer"] = {"epochs": epochs, "training_seconds": seconds, "two_by_two": longer}
        found["longer"]["absorbed"] = {
            "unseen": absorbed(url, "checkpoint:longer-0"),
            "with_trained": absorbed(url, "checkpoint:longer-0", trained=True),
        }
        say(f"weights of {epochs:g} passes", longer)
        found["longer"]["retired"] = retired(url, out.with_name("two_by_two_retired.svg"))
    return found


def draw(url: str, name: str, out: Path, limit: int | None = None, memories: Sequence[str] = ()) -> dict[str, Any]:
    """`verbal two-by-two` with the memories and weights of every seed."""
    left = "-retired" if memories else ""
    made = run_two_by_two(
        command_options("reflect", "embedded", None, None), url, models=[f"checkpoint:{name}-{s}" for s in SEEDS],
        memories=memories or [f"seed-{s}" for s in SEEDS], run=f"two-by-two-{name}{left}-{limit or 'dev'}", limit=limit,
        seeds=len(SEEDS), out=out, quiet=True,
    )  # fmt: skip
    out.with_suffix(".json").unlink()  # the bench keeps one file of numbers
    return made


def brief(made: dict[str, Any]) -> dict[str, Any]:
    """Cells, effects, and the arms beside their controls."""
    keep = ("name", "mean", "low", "high", "per_seed", "attempts")
    return {**made["two_by_two"], "arms": [{k: arm[k] for k in keep} for arm in made["arms"]], "claim": made["claim"]}


def same_arms(made: dict[str, Any], told: dict[str, Any]) -> bool:
    """Whether the command found what the demo found: share and interval of each arm, and of its first attempts."""
    ours, theirs = ({a["name"]: a for a in r["arms"]} for r in (made, told))
    ends = ("mean", "low", "high")
    arms = all(ours[n][k] == theirs[n][k] for n in theirs for k in (*ends, "attempts", "first"))
    cells = {c["arm"]: c for c in made["two_by_two"]["cells"]}
    return arms and all(cells[arm][k] == theirs[arm]["first"][k] for arm in CELLS.values() for k in ends)


def absorbed(url: str, model: str, *, trained: bool = False) -> dict[str, Any]:
    """`verbal memory absorbed` for the first memory, nothing retired; what it found of each lesson."""
    began = time.perf_counter()
    # The embedded model's first answer is greedy: more attempts would be the same.
    made = run_absorbed(
        command_options("reflect", model, None, None), url, "seed-0", model=model, trained=trained, seeds=1,
        claim=Claim(), quiet=True,
    )  # fmt: skip
    keep = ("id", "text", "verdict", "used", "unsolved", "shown", "withheld", "reason")
    counts = {k: made[k] for k in ("absorbed", "needed", "need_more")}
    calls = sum(u["calls"] for u in made["usage"].values())
    seconds = round(time.perf_counter() - began, 1)
    print(f"absorbed by {model}, trained tasks {trained}: {counts}, {calls} calls, {seconds} s", flush=True)
    items = [{**{k: row[k] for k in keep}, **row["gain"]} for row in made["items"]]
    return {"model": model, "tasks": made["tasks"], **counts, "calls": calls, "seconds": seconds, "items": items}


def retired(url: str, out: Path) -> dict[str, Any]:
    """Retires, for each seed, what its longer weights absorbed by the train questions; the 2 x 2 with what is left."""
    memories, counts = [], []
    for seed in SEEDS:
        model = f"checkpoint:longer-{seed}"
        made = run_absorbed(
            command_options("reflect", model, None, None), url, f"seed-{seed}", model=model, splits=["train"],
            trained=True, seeds=1, claim=Claim(), apply=True, quiet=True,
        )  # fmt: skip
        memories.append(f"seed-{seed}@{made['version']}")
        counts.append({"items": len(made["items"]), "retired": len(made["retired"])})
        print(f"{memories[-1]}: {counts[-1]}", flush=True)
    after = brief(draw(url, "longer", out, memories=memories))
    say("with what is left of the memories", after)
    return {"memories": counts, "two_by_two": after}


def refit(demo: Path, url: str, seed: int, epochs: float) -> float:
    """Fits the base weights to the traces of a seed for so many passes; gives the seconds."""
    folder, began = demo / f"longer.weights-{seed}", time.perf_counter()
    method = make_part("trainers", "sft", **{**FIT, "epochs": epochs})
    with Store(url) as store:
        if not (folder / "verbal.json").exists():
            method.train(method.examples(store, run=f"learn-{seed}"), "embedded", str(folder), seed=seed)
        load_function("trainers", "checkpoint", "register")(store, f"longer-{seed}", folder)
    return round(time.perf_counter() - began, 1)


def say(name: str, made: dict[str, Any]) -> None:
    """The cells and effects in a line each."""
    rows: Sequence[dict[str, Any]] = [*made["cells"], *made["effects"]]
    print(name, flush=True)
    for row in rows:
        what = row.get("name") or f"{row['weights']}, memory {row['memory']}"
        print(f"  {what}: {100 * row['mean']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]", flush=True)


if __name__ == "__main__":
    main()
