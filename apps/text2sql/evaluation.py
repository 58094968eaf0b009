"""`verbal eval BENCHMARK`: a benchmark's questions, answered by a model or by a predictions file, scored and explained.

Everything is read and checked before the first call and the first query. A model's answers are a run of the store
(`model_run.py`); scores come from `scoring.py`, and stand here together with intervals, by hardness and by database.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbal.errors import DataError
from verbal.evaluate import interval, pass_at_k
from verbal.run import Progress
from verbal.study import Study, plain_usage
from verbal.types import Task

from .benchmarks import Benchmark, read_benchmark
from .hardness import LEVELS, UNKNOWN
from .model_run import model_answers
from .predictions import read_predictions
from .questions import Question
from .scoring import PARTIAL, BenchmarkApp, Scored, Scorer

_Z = 1.959964
"""Standard errors of a 95 % interval."""
_ORDER = (*LEVELS, "simple", "moderate", "challenging", UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an evaluation is asked to do."""

    benchmark: str
    data: str | None = None
    split: str = "dev"
    db: str | None = None
    databases: tuple[str, ...] = ()
    limit: int | None = None
    suite: bool = False
    make_suite: bool = False
    """States are made for databases that have none (`states.py`)."""
    synonyms: bool = False
    samples: int = 1
    predictions: str | None = None
    """A file of somebody's answers, in place of a model."""


async def evaluate(
    asked: Asked,
    study: Study | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    stage: Callable[[str], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The results, in the form that pages, tables and `--json` read.

    Args:
        asked: What to evaluate.
        study: Where a model's run happens; none for a predictions file.
        options: Of the app (`seconds`, `rows`, `workers`, `prompts`).
        progress: Told of every scored question.
        stage: Told what happens next.
        say: Told one line at a time what a person should know before it begins.

    Raises:
        ConfigError, DataError: something cannot be used; found before the first call and the first query.
        TransientError: the model could not be reached for some questions; the same command goes on.
    """
    benchmark, questions, predicted, notes = _read(asked)
    progress = progress or Progress()
    app = BenchmarkApp(questions, **(options or {}))
    try:
        if asked.make_suite:
            told_of = "making states of the database"
            count = await app.make_suites(benchmark.questions, lambda name: stage(f"{told_of} {name}"))
            notes += [f"states were made for the databases of {count} questions, which have no suite of their own"]
        stage(f"reading {len(questions)} questions")
        tasks = await asyncio.to_thread(_tasks, app, asked)
        chosen: dict[str, int] = {}
        if study is None:
            answers: dict[str, tuple[str, ...]] = {
                t.id: (predicted[q.id],) for t, q in zip(tasks, questions, strict=True)
            }
        else:
            study.app = app
            answers, chosen, told = await model_answers(study, tasks, asked.samples, stage, say)
            notes += told
        stage(f"scoring {len(tasks)} questions" + (" on every state" if asked.suite else ""))
        progress.update(total=len(tasks), done=0, solved=0)
        scorer = Scorer(app, suite=asked.suite, bird=benchmark.layout == "bird")
        scored = await scorer.all(tasks, answers, chosen, lambda s: _count(progress, s, suite=asked.suite))
    finally:
        await app.aclose()
    if all(s.gold_error for s in scored):
        todo = "give the databases that the gold queries are about"
        raise DataError(f"no gold query runs: {scored[0].gold_error}", where=str(questions[0].db), todo=todo)
    return summarise(benchmark, scored, asked, notes, study)


def _read(asked: Asked) -> tuple[Benchmark, tuple[Question, ...], dict[str, str], list[str]]:
    """The benchmark, its questions that are scored, predictions by id, notes."""
    benchmark = read_benchmark(
        asked.benchmark, asked.data, asked.split, db=asked.db, suite=asked.suite, made=asked.make_suite,
        synonyms=asked.synonyms,
    )  # fmt: skip
    questions = benchmark.select(asked.databases, asked.limit)
    notes = benchmark.notes(questions, suite=asked.suite and not asked.make_suite, synonyms=asked.synonyms)
    if unanswerable := [q for q in questions if q.sql is None]:
        where = unanswerable[0].where
        raise DataError(f"question {unanswerable[0].id!r} has no gold query", where=where, todo="a score needs one")
    if asked.predictions is None:
        return benchmark, questions, {}, notes
    predicted, told = read_predictions(asked.predictions, _expected(benchmark, questions, asked.predictions))
    return benchmark, questions, predicted, [*notes, *told]


def _expected(benchmark: Benchmark, questions: Sequence[Question], path: str) -> Sequence[Question]:
    """The questions that a predictions file answers: all of the split, or just those that are scored.

    Raises:
        DataError: as `read_predictions`, for the whole split.
    """
    if len(questions) < len(benchmark.questions):
        try:
            read_predictions(path, benchmark.questions)
        except DataError as whole:
            try:
                read_predictions(path, questions)
            except DataError:
                raise whole from None
            return questions
    return benchmark.questions


def _tasks(app: BenchmarkApp, asked: Asked) -> list[Task]:
    """The tasks of the questions; those in another wording have ids of their own."""
    tasks = app.tasks()
    return [t.replace(id=f"{t.id}:syn") for t in tasks] if asked.synonyms else tasks


def _count(progress: Progress, scored: Scored, *, suite: bool) -> None:
    score = scored.score
    right = score is not None and bool(score.right if not suite or score.suite is None else score.suite)
    progress.update(done=progress.done + 1, solved=(progress.solved or 0) + right)


# what it came to --------------------------------------------------------------------------------------------------


def summarise(
    benchmark: Benchmark, scored: Sequence[Scored], asked: Asked, notes: Sequence[str] = (), study: Study | None = None
) -> dict[str, Any]:
    """Scores with intervals, per hardness and per database, causes, wrong answers, what it cost."""
    counted = [s for s in scored if s.score is not None and s.score.right is not None]
    gold_failed = [
        {"id": s.task.id, "db_id": s.task.info["db_id"], "error": s.gold_error, "gold": s.task.gold}
        for s in scored if s.gold_error
    ]  # fmt: skip
    not_run = [s for s in scored if s.score is not None and s.score.right is None]
    told = [*notes]
    if gold_failed:
        ids = ", ".join(g["id"] for g in gold_failed[:5])
        told.append(f"{len(gold_failed)} gold queries do not run; their questions are left out of every share ({ids})")
    if not_run:
        told.append(f"{len(not_run)} answers could not be run (locked or missing database) and are left out")
    unsure = sum(bool(asked.suite and s.task.info.get("states") and s.score and s.score.suite is None) for s in counted)
    if unsure:
        told.append(f"{unsure} answers have no verdict on every state and are left out of suite accuracy")
    sealed = asked.split == "test"
    wrong = [] if sealed else [_wrong(s) for s in counted if _is_wrong(s)]
    causes = Counter(s.score.cause.label for s in counted if s.score and s.score.cause)
    model = study.recipe.model.name if study else Path(asked.predictions or "").name
    scores = _scores(counted, asked)
    if scores and scores["ex"]["mean"] != scores.get("ex_official", scores["ex"])["mean"]:
        told.append(
            "EX compares rows and order as the question asks: quote it for how often answers are right; EX, published "
            "rules is what the benchmark's own evaluator counts: quote it beside published figures"
        )
    found = {
        "title": f"{benchmark.name}: {len(scored)} {asked.split} questions",
        "subtitle": f"answered by {model}",
        "benchmark": benchmark.name, "split": asked.split, "questions": len(scored), "counted": len(counted),
        "model": model, "run": study.run if study else "",
        "scores": scores, "pass_at_k": _pass_at(counted),
        "by_hardness": _by(counted, "hardness", asked), "by_database": _by(counted, "db_id", asked),
        "causes": [{"cause": c, "count": n} for c, n in sorted(causes.items(), key=lambda p: (-p[1], p[0]))],
        "wrong": wrong, "gold_failed": [] if sealed else gold_failed, "gold_failed_count": len(gold_failed),
        "not_run": len(not_run), "notes": told,
        "usage": plain_usage(study.store.usage(study.run)) if study else {},
    }  # fmt: skip
    return found | _as_arms(found, len(counted))


def _is_wrong(scored: Scored) -> bool:
    return scored.score is not None and (not scored.score.right or scored.score.suite is False)


def _share(values: Sequence[float]) -> dict[str, Any]:
    """Mean with its 95 % interval: bootstrap; Wilson's where all values are 0 or all are 1 (no draw differs)."""
    if not values:
        return {"questions": 0}
    found = {**dataclasses.asdict(interval([values])), "questions": len(values)}
    if len(set(values)) == 1 and values[0] in (0, 1):
        reach = _Z**2 / (len(values) + _Z**2)  # Wilson 1927, at a share of 0 or 1
        found["low" if values[0] else "high"] = 1 - reach if values[0] else reach
    return found


def _scores(counted: Sequence[Scored], asked: Asked) -> dict[str, Any]:
    """Name of a score -> mean, low, high, questions."""
    of = [s.score for s in counted if s.score is not None]
    found = {"ex": _share([float(bool(s.right)) for s in of])}
    found["ex_official"] = _share([float(s.official) for s in of if s.official is not None])
    if asked.suite:
        found["suite"] = _share([float(s.suite) for s in of if s.suite is not None])
        found["suite_official"] = _share([float(s.official_suite) for s in of if s.official_suite is not None])
    for mode in PARTIAL:
        found[f"partial_{mode}"] = _share([s.partial[mode] for s in of if mode in s.partial])
    return {k: v for k, v in found.items() if v["questions"]}


def _by(counted: Sequence[Scored], key: str, asked: Asked) -> list[dict[str, Any]]:
    """The scores of each group of questions; levels from easy to hard, databases by name."""
    groups: dict[str, list[Scored]] = {}
    for scored in counted:
        groups.setdefault(str(scored.task.info.get(key) or UNKNOWN), []).append(scored)
    order = sorted(groups, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n))
    return [{"name": n, "questions": len(groups[n]), "scores": _scores(groups[n], asked)} for n in order]


def _pass_at(counted: Sequence[Scored]) -> list[dict[str, Any]]:
    """pass@k over the samples, for k = 1, 2, 4, ... and all of them; nothing where there is one answer each."""
    samples = min((len(s.scores) for s in counted), default=1)
    if samples < 2:
        return []
    sizes = sorted({*(2**i for i in range(samples.bit_length()) if 2**i <= samples), samples})
    right = [(len(s.scores), sum(bool(x.right) for x in s.scores)) for s in counted]
    wide = [s for s in counted if s.score is not None and s.score.suite is not None]
    sure = [(len(s.scores), sum(bool(x.suite) for x in s.scores)) for s in wide]
    return [
        {
            "k": k, "ex": _share([pass_at_k(n, c, k) for n, c in right]),
            **({"suite": _share([pass_at_k(n, c, k) for n, c in sure])} if sure else {}),
        }
        for k in sizes
    ]  # fmt: skip


def _wrong(scored: Scored) -> dict[str, Any]:
    """One wrong answer beside the gold one."""
    score, info = scored.score, scored.task.info
    assert score is not None
    return {
        "id": scored.task.id, "db_id": info["db_id"], "hardness": info["hardness"], "question": info["question"],
        "evidence": info.get("evidence", ""), "sql": score.sql, "gold": scored.task.gold, "right": score.right,
        "suite": score.suite, "partial": dict(score.partial), "cause": score.cause.label if score.cause else "",
        "differs": score.cause.text if score.cause else "", "text": score.text, "result": score.shown,
        "gold_result": scored.gold_shown,
    }  # fmt: skip


LABELS = {
    "ex": (
        "EX",
        "rows and order as asked, on the question's own database: quote this to say how often answers are right",
    ),
    "ex_official": (
        "EX, published rules",
        "as the benchmark's own evaluator compares: quote this beside published figures, which are made by it",
    ),
    "suite": ("Suite", "right on every state of the database"),
    "suite_official": ("Suite, published rules", "as the test-suite evaluator compares"),
    "partial_faithful": ("Partial, as published", "PaVeRL's partial match, mean share"),
    "partial_hardened": ("Partial, hardened", "extra columns, surplus rows and wrong pairs cost"),
}
"""Score -> its label, and what it is in words."""


def _as_arms(found: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The scores in the form of `verbal.report`: arms, and shares by hardness and database as kinds."""
    arms = [
        {"name": n, "label": LABELS[n][0], "about": LABELS[n][1], "tasks": s["questions"], **s}
        for n, s in found["scores"].items()
    ]  # fmt: skip
    kinds = [
        {"kind": g["name"], "tasks": g["questions"], "arms": {LABELS[n][0]: s["mean"] for n, s in g["scores"].items()}}
        for key in ("by_hardness", "by_database") for g in found[key]
    ]  # fmt: skip
    return {"arms": arms, "by_kind": kinds if count else []}


__all__ = ["LABELS", "Asked", "evaluate", "summarise"]
