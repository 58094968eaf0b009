"""Imagined conversations: a model makes up people, talks of several qualities, and outcomes; to learn from offline.

Steps: (1) people with hidden facts, by the proposer; (2) whole conversations, written for each person at several
qualities of the speaker; (3) the judge labels each outcome from the conversation alone; (4) rows for SFT on the best,
or KTO on all. What may not be trained on is dropped and counted: text that is no conversation, one in which the speaker
knows a hidden fact before it was told, one that is there already, one whose outcome cannot be read.

Source: Zero-shot goal-directed dialogue via RL on imagined conversations, arXiv 2311.05584. Differs: rows for SFT and
KTO in place of ILQL; leaks, repeats and the balance of outcomes are checked by code.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal, NamedTuple

from verbal.contracts import Model, Sampling
from verbal.errors import STOPS, DataError, ModelError

from .app import Social
from .conversation import Transcript, read_transcript
from .people import TEMPERS
from .prompts import lines_of, one_line
from .rows import Row, talk_rows
from .scenarios import Scenario, read_scenario

QUALITIES: Mapping[str, str] = {
    "skilled": "skilled: listens, finds out what matters to THEM, and asks at the right moment. It ends well.",
    "middling": "of middling skill: says some fitting things and some that do not help. It may end either way.",
    "clumsy": "clumsy: pushes, lectures and does not listen. It does not end well.",
}
"""How well the speaker talks -> what the prompt says of it."""
BALANCE = (0.3, 0.7)
"""Range of the share of conversations that reach their goal, for rows to be trained on."""
DUPLICATES = 0.05
"""The share of repeated conversations that is borne."""
_OUTCOME = re.compile(r"^[\s*_`]*OUTCOME:\s*(not reached|reached)[\s.*_`]*$", re.I | re.M)
_TRIES = 3
_FIELDS = ("kind", "person", "setting", "goal", "opening", "aim")


class Imagined(NamedTuple):
    """One imagined conversation."""

    scenario: Scenario
    quality: str
    talk: Transcript
    reached: bool
    """What the judge says."""

    @property
    def reward(self) -> float:
        """1 for a goal that was reached, less 0.02 for each thing that was said; else 0."""
        return max(0.0, 1.0 - 0.02 * len(self.talk.mine)) if self.reached else 0.0


@dataclass(slots=True)
class Imaginings:
    """What was imagined, and what was dropped."""

    talks: list[Imagined] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> how many."""

    @property
    def share_reached(self) -> float:
        """Of the conversations that were kept."""
        return fmean(t.reached for t in self.talks) if self.talks else 0.0

    @property
    def share_repeated(self) -> float:
        """Repeats, of all that could be read."""
        repeated = self.dropped["a repeat"]
        return repeated / (len(self.talks) + repeated) if self.talks or repeated else 0.0

    def problems(self) -> list[str]:
        """Why these should not be trained on as they are; empty when they may."""
        found = []
        if not BALANCE[0] <= self.share_reached <= BALANCE[1]:
            found.append(f"{self.share_reached:.0%} reach their goal, {BALANCE[0]:.0%} to {BALANCE[1]:.0%} is wanted")
        if self.share_repeated >= DUPLICATES:
            found.append(f"{self.share_repeated:.0%} are repeats, below {DUPLICATES:.0%} is wanted")
        return found

    def best(self, share: float = 0.1) -> list[Imagined]:
        """The best part by reward, one at least; the first of equal ones."""
        ranked = sorted(self.talks, key=lambda t: -t.reward)
        return ranked[: max(1, int(len(ranked) * share))] if ranked else []

    def rows(self, app: Social, format: Literal["sft", "kto"] = "kto", *, share: float = 0.1) -> list[Row]:
        """Rows for `sft` (of the best `share` only) or `kto` (of all, labelled by outcome).

        Raises:
            DataError: they may not be trained on; says why.
        """
        if problems := self.problems():
            what = f"{len(self.talks)} imagined conversations may not be trained on: {'; '.join(problems)}"
            raise DataError(what, where="imagined", todo="imagine more, or other qualities")
        chosen = self.best(share) if format == "sft" else self.talks
        return [
            row for t in chosen
            for row in talk_rows(
                t.scenario.task().replace(messages=tuple(app.messages("solver", t.scenario.task()))),
                t.talk, format, label=t.reached,
            )
        ]  # fmt: skip


async def imagine_people(app: Social, model: Model, count: int, *, seed: int = 0) -> list[Scenario]:
    """Scenarios that a model proposes, at most `count`: those that can be read, each once."""
    asks = []
    examples = app.tasks("train") or app.tasks()
    for number in range(count):
        prompt = app.messages("proposer", examples[number % len(examples)], level=1 + number % 5)
        asks.append(model.generate(prompt, 1, Sampling(temperature=1.0, seed=seed + number)))
    found: dict[str, Scenario] = {}
    for made in await asyncio.gather(*asks, return_exceptions=True):
        if isinstance(made, BaseException):
            if not isinstance(made, ModelError) or isinstance(made, STOPS):
                raise made
            continue
        if (read := app.parse("proposer", made[0].text)) is not None:
            scenario = _scenario(app, read.question)
            found.setdefault(f"{scenario.person}/{scenario.goal}", scenario)
    return list(found.values())


async def imagine(
    app: Social, model: Model, scenarios: Sequence[Scenario], *, judge: Model | None = None, each: int = 1,
    turns: int = 6, seed: int = 0,
) -> Imaginings:  # fmt: skip
    """Conversations imagined for each scenario and quality.

    Args:
        app: Writes the prompts.
        model: Imagines.
        scenarios: Whom with; none of split dev or test.
        judge: Labels outcomes; the same model when not given.
        each: Conversations for each scenario and quality.
        turns: Things the speaker says at most.
        seed: Of every draw.

    Raises:
        DataError: a scenario is held out. What stops a run (`errors.STOPS`).
    """
    if held := [s.id for s in scenarios if s.split != "train"]:
        raise DataError(f"the scenario {held[0]!r} is held out", where="imagined", todo="give those of split train")
    found, known = Imaginings(), set[frozenset[str]]()
    jobs = [(s, q, n) for s in scenarios for q in QUALITIES for n in range(each)]
    drawn = [_talk(app, model, s, q, turns, seed + i) for i, (s, q, _) in enumerate(jobs)]
    for (scenario, quality, _), talk in zip(jobs, await asyncio.gather(*drawn), strict=True):
        if talk is None or not 1 <= len(talk.mine) <= turns:
            found.dropped["no conversation"] += 1
        elif knows_too_much(talk, scenario.secret):
            found.dropped["knows the hidden fact before it was told"] += 1
        elif (words := _print(talk)) in known:
            found.dropped["a repeat"] += 1
        else:
            known.add(words)
            found.talks.append(Imagined(scenario, quality, talk, False))
    labels = await asyncio.gather(*(_label(app, judge or model, t, seed) for t in found.talks))
    found.dropped["no outcome can be read"] += sum(label is None for label in labels)
    found.talks = [t._replace(reached=label) for t, label in zip(found.talks, labels, strict=True) if label is not None]
    return found


def knows_too_much(talk: Transcript, secret: str) -> bool:
    """Whether ME speaks of most of a hidden fact before THEM has told it.

    >>> told = Transcript((("ME", "How are you?"), ("THEM", "My knee hurts on stairs."), ("ME", "Your knee hurts?")))
    >>> early = Transcript((("ME", "Your knee hurts on stairs, no?"), ("THEM", "How do you know?")))
    >>> knows_too_much(told, "my knee hurts on stairs"), knows_too_much(early, "my knee hurts on stairs")
    (False, True)
    """
    wanted = _words(secret)
    for who, said in talk.lines:
        share = len(wanted & _words(said)) / len(wanted) if wanted else 0.0
        if share >= 0.6:
            return who == "ME"
    return False


async def _talk(
    app: Social, model: Model, scenario: Scenario, quality: str, turns: int, seed: int
) -> Transcript | None:
    prompt = app.filled(
        "dialogue", person=scenario.person, setting=scenario.setting, goal=scenario.goal, secret=scenario.secret,
        temper=TEMPERS[scenario.temper].words, wish=scenario.wish or "to be treated well",
        quality=QUALITIES[quality], turns=str(turns),
    )  # fmt: skip
    text = await _said(model, prompt, Sampling(temperature=1.0, max_tokens=1500, seed=seed))
    return read_transcript(_OUTCOME.sub("", text)) if text else None


async def _label(app: Social, judge: Model, made: Imagined, seed: int) -> bool | None:
    goal, dialogue = one_line(made.scenario.goal), lines_of(["\n".join(f"{w}: {s}" for w, s in made.talk.lines)])
    prompt = app.filled("outcome", goal=goal, dialogue=dialogue)
    for number in range(_TRIES):
        sampling = Sampling(temperature=0.0 if number == 0 else 0.7, seed=seed + number)
        if said := _OUTCOME.findall(await _said(judge, prompt, sampling) or ""):
            return bool(said[-1].lower() == "reached")
    return None


async def _said(model: Model, prompt: Any, sampling: Sampling) -> str | None:
    try:
        return (await model.generate(prompt, 1, sampling))[0].text
    except STOPS:
        raise
    except ModelError:
        return None


def _scenario(app: Social, question: str) -> Scenario:
    task = app.task(question)
    return read_scenario({"id": task.id, **{k: task.info[k] for k in _FIELDS}, **task.info["hidden"]})


def _print(talk: Transcript) -> frozenset[str]:
    return frozenset(" ".join(re.findall(r"\w+", said.lower())) for said in talk.mine)


def _words(text: str) -> frozenset[str]:
    return frozenset(w for w in re.findall(r"\w+", text.lower()) if len(w) > 2 or w.isdigit())


__all__ = [
    "BALANCE",
    "DUPLICATES",
    "QUALITIES",
    "Imagined",
    "Imaginings",
    "imagine",
    "imagine_people",
    "knows_too_much",
]
