"""Multi-Agent Evolve: one model proposes questions, solves and judges them, and learns from all three at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from verbal.errors import ConfigError
from verbal.types import Attempt, Feedback, Step, Task

from .grpo import GRPO

if TYPE_CHECKING:
    from torch import Tensor

    from verbal.loop.context import Context

    from .group import Batch, GroupTrainer
    from .rollouts import Kind, Rollouts, Sampled

__all__ = ["MAE", "judge_format", "near", "proposer_reward", "role_weights", "solver_format"]

ROLES: tuple[Kind, ...] = ("proposer", "solver", "judge")
"""Roles that are trained; their rewards are whitened apart."""
_FENCE = re.compile(r"```\w*\n.*?```", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class MAE(GRPO):
    """Task-relative REINFORCE++: rewards are whitened among the tokens of a role; there are no groups.

    Source: Multi-Agent Evolve (arXiv 2510.23595). No gold is read. Rows of a step, one of each role per task drawn: a
    proposal for its database; an answer to a question of D; a grade for an answer of P. D and P (`trainer.memory`) are
    what earlier steps left, D first the tasks' own questions.
    Differs: the solve rate S is the share of answers that give what the proposer's own answer gives, not n * n grades;
    difficulty has its peak where half of the answers are right; questions asked before, or nearly, are dropped; a grade
    that cannot be read leaves its row out (there: 0.5); format is told from the completion alone (the released code
    counts tags of the prompt too); buffers drop the oldest; proposers see no reference questions; no dual clip.
    A role whose tokens its model does not tell (the judge of the embedded model) is not trained, and counted; nor is
    one that the recipe gives to another model (`model.roles.judge`, a frozen judge).
    """

    name: ClassVar[str] = "mae"
    tells: ClassVar[tuple[str, ...]] = (
        "reward_proposer", "reward_solver", "reward_judge", "quality", "solve_rate", "kept",
    )  # fmt: skip

    group: int = 3
    """Roles; nothing else can be given."""
    loss: Literal["dr_grpo", "grpo", "dapo", "bnpo"] = "bnpo"
    clip_high: float | None = 0.28
    solves: int = 4
    """Answers that estimate how hard a new question is."""
    difficulty: Literal["peak", "wrongness"] = "peak"
    """`peak`: 4 S (1 - S); `wrongness`: 1 - S, as published, highest for a question that nobody can answer."""
    grader: Literal["judge", "reference"] = "judge"
    """Who grades the solver; `reference`: the proposer's own answer where the question has one."""
    near: float = 0.9
    """Questions that share this part of their words are the same question."""
    buffer: int = 2000
    """Questions, and pairs, that are kept; the oldest go first."""

    def __post_init__(self) -> None:
        GRPO.__post_init__(self)
        if self.group != len(ROLES):
            what = f"group is {self.group}, but a step has one row of each of {len(ROLES)} roles per task"
            raise ConfigError(what, where="group", todo="leave it out, and give more tasks")
        if self.solves < 1 or self.buffer < 1 or not 0 < self.near <= 1:
            what = f"solves is {self.solves}, buffer {self.buffer}, near {self.near}"
            raise ConfigError(what, where="solves, buffer, near", todo="give 1 or more, 1 or more, and a share up to 1")

    async def sample(self, rollouts: Rollouts, tasks: Sequence[str], step: int) -> list[list[Sampled]]:
        """The rows of all roles, dealt to the tasks; their order means nothing."""
        from verbal.loop.episodes import side_by_side

        memory = rollouts.memory
        questions = memory.setdefault("questions", [_asked(t) for t in rollouts.tasks.values()])
        pairs = memory.setdefault("pairs", [])
        # What was there before this step: its own questions reach the solver in the next one.
        known, graded = list(questions), list(pairs)
        proposed = await self._propose(rollouts, tasks, step, questions)
        drawn = range(len(tasks))
        solved = await side_by_side([self._solve(rollouts, known, i, step) for i in drawn])
        judged = await side_by_side([self._judge(rollouts, graded, i, step) for i in drawn if graded])
        pairs += [pair for _, pair in solved if pair]
        del questions[: -self.buffer], pairs[: -self.buffer]
        found = {"proposer": proposed, "solver": [row for row, _ in solved], "judge": judged}
        rows = [row for role in ROLES for row in self._told(rollouts, role, found[role])]
        return [rows[i :: len(tasks)] for i in range(len(tasks))]

    def _told(self, rollouts: Rollouts, role: str, rows: Sequence[Sampled | None]) -> list[Sampled]:
        table = rollouts.recipe.model
        kept = [row for row in rows if row is not None] if table.roles.get(role, table.name) == table.name else []
        rollouts.counts[f"{role} rows"] += len(kept)
        rollouts.counts[f"{role} replies without tokens or grade"] += len(rows) - len(kept)
        if rewards := [row.reward for row in kept if row.reward is not None]:
            rollouts.notes[f"reward_{role}"] = fmean(rewards)
        return kept

    async def _propose(
        self, rollouts: Rollouts, tasks: Sequence[str], step: int, questions: list[dict[str, Any]]
    ) -> list[Sampled | None]:
        """A row for each proposal through the graph `self_play`; the new questions go into the buffer."""
        from verbal.loop.self_play import QUALITY_FLOOR
        from verbal.run import Progress, run_batch

        context = rollouts.context(
            step, arm="propose", graph="self_play", samples=self.solves, reflect=False, critique=False
        )
        await run_batch(context, [rollouts.tasks[t] for t in tasks], Progress())
        keys = [context.group_key(rollouts.tasks[t]) for t in tasks]
        said, asked = context.store.feedback(keys), context.store.tasks(keys)
        rows, parts, kept = [], [], 0
        for key in keys:
            made = context.attempt(key)
            told = next((f.parts for f in said[key] if f.critic == "proposer"), None)
            if made is None or told is None or not made.steps:
                continue
            again = key in asked and near(str(asked[key].info["question"]), questions, self.near)
            if key in asked and not again and told["quality"] >= QUALITY_FLOOR:
                questions.append({**_asked(asked[key]), "step": step})
                kept += 1
            parts.append(told)
            value = 0.0 if made.error else proposer_reward(told, self.difficulty, again=again)
            rows.append(rollouts.said(made.steps[0].prompt, made.steps[0], value, "proposer"))
        if parts:
            rollouts.notes |= {k: fmean(p[k] for p in parts) for k in ("quality", "solve_rate")}
        rollouts.notes["kept"] = float(kept)
        return rows

    async def _solve(
        self, rollouts: Rollouts, known: Sequence[Mapping[str, Any]], place: int, step: int
    ) -> tuple[Sampled | None, dict[str, Any] | None]:
        """An answer to a question drawn from those known before, with R_S = (grade + format) / 2, and its pair."""
        from verbal.loop.nodes import make_attempt

        context = rollouts.context(step, arm="solve")
        task = _task(context, known[context.draw("solve", place) % len(known)])
        sampling = context.solving(task.id, "solve", place)
        made = await make_attempt(context, task, round_=0, hints=[], sampling=sampling, sample=place)
        if not made.steps:
            return None, None
        grade, form = await self._grade(context, task, made), solver_format(context.app, made.steps[-1].text)
        value = None if grade is None else 0.5 * grade + 0.5 * form
        parts = {"format": form, **({} if grade is None else {"grade": grade})}
        context.store.put_feedback([Feedback(attempt=made.id, critic="mae", value=value, parts=parts, source="self")])
        tokens = rollouts.weights.tokens(made)
        row = None if tokens is None or value is None else _row(tokens, value)
        pair = {**_asked(task), "answer": made.answer, "step": step, "reward": value}
        return row, pair if made.answer else None

    async def _grade(self, context: Context, task: Task, made: Attempt) -> float | None:
        from verbal.loop.nodes import say
        from verbal.loop.self_play import same_result

        if not made.answer:
            return 0.0
        if self.grader == "reference" and (right := task.info.get("reference")):
            return float(same_result(await context.observation(made), await context.app.execute(task, str(right))))
        messages = context.app.messages("judge", task, answers=[made.answer])
        step = context.store.step(made.id, "grade") or await say(context, "judge", messages, made.id)
        if step is None:
            return None
        context.store.put_step(made.id, "grade", step)
        scores = context.app.parse("judge", step.text, n=1)
        return float(scores[0]) if scores else None

    async def _judge(
        self, rollouts: Rollouts, graded: Sequence[Mapping[str, Any]], place: int, step: int
    ) -> Sampled | None:
        """A grade for an answer given before; R_J is its format alone, never whether it is right."""
        from verbal.loop.nodes import say

        context = rollouts.context(step, arm="judge")
        pair = graded[context.draw("judge", place) % len(graded)]
        messages = context.app.messages("judge", _task(context, pair), answers=[str(pair["answer"])])
        said: Step | None = await say(context, "judge", messages, f"{context.run}/{context.arm}/{place}", greedy=False)
        return None if said is None else rollouts.said(messages, said, judge_format(context.app, said.text), "judge")

    def credit(self, batch: Batch) -> Tensor | None:
        """(B) rewards whitened among the rows of the same role."""
        return role_weights(batch)

    def figures(self, trainer: GroupTrainer) -> dict[str, Any]:
        """The sizes of the buffers and the rows of each role; the questions themselves are tasks of `rollouts.db`."""
        rollouts = trainer.rollouts
        sizes = {k: len(rollouts.memory.get(k, ())) for k in ("questions", "pairs")}
        return {**sizes, "counts": dict(rollouts.counts)}


def proposer_reward(parts: Mapping[str, float], difficulty: str = "peak", *, again: bool = False) -> float:
    """R_P = (Q + D + F) / 3, where D counts from Q = 0.7 on; F / 3 for a question that was asked before.

    >>> parts = {"quality": 0.8, "solve_rate": 0.4, "format": 1.0}
    >>> round(proposer_reward(parts, "wrongness"), 4), round(proposer_reward(parts), 4)
    (0.8, 0.92)
    >>> round(proposer_reward({**parts, "quality": 0.6}), 4), proposer_reward({**parts, "format": 0.0})
    (0.5333, 0.0)
    """
    from verbal.loop.self_play import QUALITY_FLOOR

    quality, rate, form = parts["quality"], parts["solve_rate"], parts["format"]
    if form == 0.0:
        return 0.0
    hard = 1.0 - rate if difficulty == "wrongness" else 4.0 * rate * (1.0 - rate)
    return ((0.0 if again else quality) + (hard if quality >= QUALITY_FLOOR and not again else 0.0) + form) / 3


def solver_format(app: Any, text: str) -> float:
    """1 for one answer in a completion, 0.5 for several fenced ones, 0 for none."""
    if app.parse("solver", text) is None:
        return 0.0
    return 0.5 if len(_FENCE.findall(text)) > 1 else 1.0


def judge_format(app: Any, text: str) -> float:
    """1 for one line with a score in a completion, 0.5 for several, 0 for none."""
    found = sum(app.parse("judge", line, n=1) is not None for line in text.splitlines())
    return 1.0 if found == 1 else 0.5 if found else 0.0


def near(question: str, known: Sequence[Mapping[str, Any]], share: float) -> bool:
    """Whether a question shares this part of its words, or more, with one that is known (Jaccard index of the sets).

    >>> near("How many red cats?", [{"question": "how many red cats"}], 0.9), near("a b", [{"question": "a c"}], 0.9)
    (True, False)
    """
    from verbal.loop.self_play import asked_words

    own = set(asked_words(question))
    others = (set(asked_words(str(k["question"]))) for k in known)
    return any(len(own & other) >= share * max(1, len(own | other)) for other in others)


def role_weights(batch: Batch) -> Tensor:
    """(B) of rows of the three roles, whitened within each; 0 for any other row and where a reward is missing."""
    import torch

    from .credit import task_relative

    weights = torch.zeros_like(batch.scores)
    roles = torch.tensor([ROLES.index(k) if k in ROLES else -1 for k in batch.kinds], device=weights.device)
    live = (roles >= 0) & ~batch.scores.isnan()
    if live.any():
        weights[live] = task_relative(batch.scores[live], roles[live], batch.mask.sum(dim=1)[live])
    return weights


def _row(tokens: Any, value: float) -> Sampled:
    from .rollouts import Sampled

    return Sampled(tokens, value, "solver")


def _asked(task: Task) -> dict[str, Any]:
    """A question as the buffers keep it."""
    return {"id": task.id, "question": str(task.info.get("question", "")), "step": -1}


def _task(context: Context, asked: Mapping[str, Any]) -> Task:
    """The task of a question in a buffer, without gold."""
    from verbal.loop.nodes import unsealed

    key = str(asked["id"])
    return unsealed(context.tasks.get(key) or context.store.tasks([key])[key])
