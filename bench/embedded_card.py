"""Writes the embedded model's card (weights/README.md) from its training log and the figures of bench/embedded.py.

python bench/embedded_card.py [--figures bench/results/embedded.json] [--weights verbal/models/embedded/weights]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from verbal.models.embedded.codec import MAX_COLUMNS, MAX_TABLES

HERE = Path(__file__).parent

INTRODUCTION = """# The embedded model: card

A decoder-only transformer of {parameters:,} parameters (Llama architecture, tied embeddings, hidden size 160, 6 layers,
5 heads, vocabulary 1,206 words, bf16 safetensors of 4.1 MB) that turns questions about one SQLite database into SQL,
criticises SQL, writes hints and proposes questions. It is a **demonstration model**: it makes everything in this
project runnable and testable without key, GPU or network. It is no general language model: English, SELECT only, one
database at a time, no chat, no world knowledge. One flag swaps in any API or local LLM (`--model provider/model`).

* Runs on numpy alone: {milliseconds:.0f} ms of one core a question (greedy, n={speed_n}). The same folder loads in
  transformers (`LlamaForCausalLM`), and TRL trains it on slot text.
* The model never sees names or cells: a codec (`codec.py`) rewrites prompt and answer into slots and back. What it
  cannot say (self-joins, derived tables, CASE, window functions, outer joins) is an error, not a guess.

## Data
Only the synthetic corpus of `corpus/`: random databases (1 to 10 tables), {kinds} kinds of questions in five levels
with own templates, word lists and columns, private terms with hints (conditions, amounts, columns, tables) and
distractors, spoiled queries for the critic and the reflector. One word in seven is held out; every figure on synthetic
databases below uses held-out words only, questions without noise words, and private terms whose words the schema does
not hold.
No real question, and nothing of Spider, was trained on. Spider's *train* questions were read while templates and
linking rules were written; of *dev* only accuracies were looked at.

## Training
Muon on matrices, AdamW on the rest, bf16 autocast, one thread of a shared two-core machine (AVX-512, no AMX), batch
{batch} packs of at most {length} tokens, about {minutes:.0f} core-minutes and {tokens:.1f} M tokens in all. `verbal
embedded train --minutes 60` runs the same script in one phase. The shipped weights come from the phases below, each
starting from the one before. The corpus and, once, the codec's reflector part were mended in between, so these exact
weights cannot be rebuilt by one command, and a single run of that length was not measured.
"""

LIMITS = """
## Limits
* Weakest kinds of questions (right of asked): {weakest}.
* Without the hint, a question with a private term is nearly always answered wrongly: the model cannot know the term.
* Critique and rewriting does not beat sampling again; use it for its words, not for its gain. The critic misses many
  mistakes.
* Prompts show at most {tables} tables and {columns} columns, those nearest to the question; the context is 1,024
  tokens.
* Counts of children, DISTINCT and the order of columns follow the conventions of the corpus (group column first;
  DISTINCT only where it is asked for).

Made by `python bench/embedded.py --data DIR` and `python bench/embedded_card.py`; the figures as JSON are in
`bench/results/embedded.json`, the training log is in `training.json`.
"""


def percent(share: float) -> str:
    """A share as percent with one decimal."""
    return f"{100 * share:.1f}"


def introduction(figures: dict[str, Any], training: dict[str, Any]) -> str:
    """What it is and how it was made, with the table of training phases and the curve."""
    speed = figures["synthetic"]["speed"]
    text = INTRODUCTION.format(
        parameters=training["parameters"], milliseconds=1000 * speed["core_seconds_each"], speed_n=speed["questions"],
        kinds=len(figures["synthetic"]["by_kind"]), batch=training["batch"], length=training["length"],
        minutes=training["core_seconds"] / 60, tokens=training["tokens"] / 1e6,
    )  # fmt: skip
    lines = ["| phase | seed | steps | M tokens | wall minutes | what |", "| --- | --- | --- | --- | --- | --- |"]
    for number, phase in enumerate(training["phases"], 1):
        size, wall = phase["tokens"] / 1e6, phase["wall_seconds"] / 60
        lines.append(f"| {number} | {phase['seed']} | {phase['steps']:,} | {size:.2f} | {wall:.0f} | {phase['note']} |")
    curve = training["curve"]
    points = [f"{step}: {loss:.2f}" for step, loss in curve[:: max(1, len(curve) // 24)]]
    rows = [" · ".join(points[at : at + 10]) for at in range(0, len(points), 10)]
    return "\n".join([text, *lines, "", "Loss per answer token by step (mean of 50 steps, all phases):", *rows, ""])


def synthetic(figures: dict[str, Any]) -> str:
    """Tables of accuracy on held-out synthetic databases."""
    found = figures["synthetic"]
    plain, hints, samples = found["held_out"], found["hints"], found["samples"]
    retry, critic, reflector = found["retry"], found["critic"], found["reflector"]
    levels = " | ".join(percent(plain[f"level {level}"]) for level in range(1, 6))
    others = " | ".join(
        percent(hints[name]["all"]) for name in ("no_hint", "one_distractor", "two_distractors", "four_distractors")
    )
    return f"""
## Accuracy
Execution accuracy, one greedy answer unless said; same rows as a multiset (in order where the right query orders),
columns in the same order, on two differently filled databases. Percent. One training seed; one standard error is about
1 point at n=1,000, 2 to 3 points at n=250 to 300. Failures on held-out questions were looked at, and questions that no
reader could answer (a condition left out of the sentence, two columns of one meaning) were removed from the generator;
these same weights had 85.4 (85.3 with the right hint) before the last such removal.

| held-out synthetic questions | n | all | level 1 | 2 | 3 | 4 | 5 |
| --- | --- | --- | --- | --- | --- | --- | --- |
| greedy | {plain["n"]} | **{percent(plain["all"])}** | {levels} |

| questions with a private term | right hint | no hint | right + 1 other | right + 2 | right + 4 |
| --- | --- | --- | --- | --- | --- |
| greedy, n={hints["hint"]["n"]} | **{percent(hints["hint"]["all"])}** | {others} |

Other hints do little harm because the codec leaves out a hint whose term the question does not use.

| more than one answer, other roles | n | |
| --- | --- | --- |
| 8 samples at 0.7 | {samples["n"]} | greedy {percent(samples["greedy"])}, mean sample \
{percent(samples["mean_of_samples"])}, vote by result {percent(samples["vote@8"])}, best of 8 \
{percent(samples["pass@8"])} |
| 3 retries of wrong answers (by an oracle) | {retry["n"]} | first {percent(retry["first"])}, critique and rewrite \
{percent(retry["critique"])}, plain resampling {percent(retry["resampling"])} |
| critic on spoiled and right queries | {critic["n"]} | verdict right {percent(critic["accuracy"])}, wrong ones caught \
{percent(critic["caught"])}, false alarms {percent(critic["false_alarms"])}, repaired {percent(critic["repaired"])} |
| reflector (two queries to hint) | {reflector["n"]} | same hint {percent(reflector["exact"])}, silent where no \
term explains the mistake {percent(reflector["silent_where_none_due"])} |
"""


def spider(figures: dict[str, Any]) -> str:
    """Table of zero-shot accuracy on Spider; empty where it was not measured."""
    if "spider_dev" not in figures:
        return ""
    lines = [
        "", "| Spider, zero-shot, greedy | n | strict | column order and duplicates ignored | failing | by shape |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for key, name in (("spider_dev", "dev (11 databases)"), ("spider_train", "train sample")):
        one = figures[key]
        shapes = (
            f"{shape} {100 * one['by'][shape][0] / one['by'][shape][1]:.0f}"
            for shape in ("single", "order", "group", "join", "nested")
            if shape in one["by"]
        )
        loose = percent(one["column_order_and_duplicates_ignored"])
        lines.append(
            f"| {name} | {one['n']} | **{percent(one['strict'])}** | {loose} | {percent(one['failing'])} "
            f"| {', '.join(shapes)} |"
        )
    tail = "One database state each: about one in ten such positives would fail a suite of several states."
    return "\n".join([*lines, "", tail, ""])


def card(figures: dict[str, Any], training: dict[str, Any]) -> str:
    """The whole card."""
    kinds = [(good / count, name, good, count) for name, (good, count) in figures["synthetic"]["by_kind"].items()]
    worst = sorted(kind for kind in kinds if kind[3] >= 8)[:6]
    weakest = ", ".join(f"`{name}` {good}/{count}" for _, name, good, count in worst)
    limits = LIMITS.format(weakest=weakest, tables=MAX_TABLES, columns=MAX_COLUMNS)
    return introduction(figures, training) + synthetic(figures) + spider(figures) + limits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--figures", type=Path, default=HERE / "results" / "embedded.json")
    parser.add_argument("--weights", type=Path, default=HERE.parent / "verbal" / "models" / "embedded" / "weights")
    asked = parser.parse_args()
    figures = json.loads(asked.figures.read_text(encoding="utf-8"))
    training = json.loads((asked.weights / "training.json").read_text(encoding="utf-8"))
    (asked.weights / "README.md").write_text(card(figures, training), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
