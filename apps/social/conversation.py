"""One conversation with a simulated person: of several turns, ended by the person, by the goal, or by the turn limit.

The person is played by rules (`people.py`), or by a model that the loop gives under the role `user`. What they say is
kept in the attempt as steps of author `user`, so that nothing is trained on it. The answer of an attempt is its
transcript, one line for each thing that was said; played again by rules it gives the same end.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verbal.contracts import Model, Observation, Reply, Sampling
from verbal.errors import EnvironmentFault
from verbal.types import Message, Reflection, Step, StopReason, Task

from .people import TEMPERS, Person, moves_in
from .prompts import one_line
from .scenarios import Scenario, scenario_of

if TYPE_CHECKING:
    from .app import Social

STATES = ("going on", "reached", "leaving")
"""What a model that plays the person says of its state."""
_STATE = re.compile(r"^[\s*_`]*STATE:\s*(going on|reached|leaving)[\s.*_`]*$", re.I | re.M)
_LABEL = re.compile(r"^\s*(?:ME|You)\s*:\s*", re.I)
_END = re.compile(r"^\((reached|left|out of turns|still going)\)$")
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation as text: `ME: ...` and `THEM: ...` in turn, then how it stands, in brackets."""

    lines: tuple[tuple[str, str], ...]
    """(`ME` or `THEM`, what was said)."""
    end: str = "still going"
    """`reached`, `left`, `out of turns` or `still going`."""

    def __str__(self) -> str:
        return "\n".join([*(f"{who}: {said}" for who, said in self.lines), f"({self.end})"])

    @property
    def mine(self) -> list[str]:
        """What the policy said."""
        return [said for who, said in self.lines if who == "ME"]


def read_transcript(text: str) -> Transcript | None:
    r"""The transcript that a text holds, or None.

    >>> read_transcript("ME: Hello.\nTHEM: Yes?\n(left)").end, read_transcript("Hello.")
    ('left', None)
    """
    lines, end = [], "still going"
    rows = [line.strip() for line in text.strip().splitlines() if line.strip()]
    for number, row in enumerate(rows):
        if found := _END.match(row):
            if number + 1 < len(rows):
                return None
            end = found[1]
            continue
        who, colon, said = row.partition(":")
        if not colon or who not in ("ME", "THEM"):
            return None
        lines.append((who, said.strip()))
    return Transcript(tuple(lines), end) if any(who == "ME" for who, _ in lines) else None


class Conversation:
    """One talk. With `user` set a model plays the person, else rules do."""

    def __init__(self, app: Social, *, turns: int, played_by_model: bool) -> None:
        """Opens nothing; `app` writes the prompts."""
        self._app, self._turns, self._by_model = app, turns, played_by_model
        self._task: Task | None = None
        self._scenario: Scenario
        self._person: Person
        self._lines: list[tuple[str, str]] = []
        self._state = ""
        self.user: Model | None = None
        """The model of the role `user`; the loop sets it."""

    async def start(self, task: Task, *, hints: Sequence[Reflection] = (), tried: Sequence[str] = ()) -> list[Message]:
        """The situation, with lessons and failed conversations as delimited data; nothing that is hidden.

        Raises:
            EnvironmentFault: it was started before. DataError: the task is no conversation.
        """
        if self._task is not None:
            raise EnvironmentFault("a conversation serves one task", todo="make another with app.environment()")
        self._task, self._scenario = task, scenario_of(task)
        self._person = self._scenario.somebody()
        return self._app.messages("solver", task, hints=hints, tried=tried)

    async def step(self, reply: Reply) -> Observation:
        """What the person answers."""
        if self._task is None:
            raise EnvironmentFault("the conversation was not started", todo="call start(task) first")
        said = _LABEL.sub("", one_line(reply.text))
        if said:
            self._lines.append(("ME", said))
        prompt: tuple[Message, ...] = ()
        heard = self._person.hear(said)
        if self._by_model:
            heard, prompt = await self._ask()
        self._lines.append(("THEM", heard))
        step = Step(author="user", role="user", text=heard, prompt=prompt)
        return dataclasses.replace(self.observed(), steps=(step,))

    async def aclose(self) -> None:
        """Nothing to free: a conversation is over when its last word is said."""

    def observed(self) -> Observation:
        """How the conversation stands."""
        end, mine = self._end(), [said for who, said in self._lines if who == "ME"]
        answer = str(Transcript(tuple(self._lines), end)) if mine else ""
        info: dict[str, Any] = {
            "reached": end == "reached", "end": end, "turns": self._said, "moves": [moves_in(said) for said in mine],
            "error": None if mine else "nothing was said",
            "columns": ["end"], "rows": [["reached"]] if end == "reached" else [],  # what two talks are compared by
        }  # fmt: skip
        if not self._by_model:
            person = self._person
            info |= {"scores": person.scores(), "effects": list(person.effects), "told": person.told}
        done = end != "still going"
        heard = self._lines[-1][1] if self._lines else "nothing was said"
        text = f"{heard} ({end})" if done else heard
        stop = StopReason.ANSWERED if mine else StopReason.MALFORMED
        return Observation(text=text, done=done, answer=answer, stop=stop, info=info)

    def play(self, task: Task, transcript: Transcript) -> Observation:
        """How a transcript stands: said again to the person by rules, read as it is where a model played them."""
        self._task, self._scenario = task, scenario_of(task)
        self._person = self._scenario.somebody()
        if self._by_model:
            self._lines, self._state = list(transcript.lines), transcript.end
            return self.observed()
        for said in transcript.mine:
            if self._end() != "still going":
                break
            self._lines += [("ME", said), ("THEM", self._person.hear(said))]
        return self.observed()

    @property
    def _said(self) -> int:
        return sum(who == "THEM" for who, _ in self._lines)

    def _end(self) -> str:
        reached, gone = self._person.reached, self._person.gone
        if self._by_model:
            reached, gone = self._state == "reached", self._state in ("leaving", "left")
        if reached:
            return "reached"
        if gone:
            return "left"
        return "out of turns" if self._said >= self._turns else "still going"

    async def _ask(self) -> tuple[str, tuple[Message, ...]]:
        """What the model that plays the person says: asked again where it does not tell its state, then given up.

        Raises:
            EnvironmentFault: it told no state in three tries, or nobody is there to play.
        """
        assert self._task is not None
        if self.user is None:
            todo = "set `environment.user` to a model, or give the app user = 'rules'"
            raise EnvironmentFault("a model is to play the person, and there is none", where="app social", todo=todo)
        scenario = self._scenario
        aim = "they agree to what is asked" if scenario.aim == "agreement" else "they tell what they keep to themselves"
        dialogue = [("THEM", scenario.opening)] if scenario.opening else []
        messages = self._app.filled(
            "user", person=scenario.person, setting=scenario.setting, temper=TEMPERS[scenario.temper].words,
            secret=scenario.secret, wish=scenario.wish or "to be treated well", aim=aim,
            dialogue="\n".join(f"{who}: {said}" for who, said in [*dialogue, *self._lines]),
        )  # fmt: skip
        text = ""
        for number in range(_TRIES):
            sampling = Sampling(temperature=0.7, max_tokens=300, seed=self._said * _TRIES + number)
            (reply,) = await self.user.generate(messages, 1, sampling)
            text = reply.text
            states = _STATE.findall(text)
            if states and (heard := one_line(_STATE.sub("", text))):
                self._state = states[-1].lower()
                return re.sub(r"^THEM:\s*", "", heard), tuple(messages)
        what = f"who plays the person told no state in {_TRIES} replies, such as {text[-80:]!r}"
        raise EnvironmentFault(what, where=f"task {self._task.id}", todo="give the role `user` a model that follows it")


__all__ = ["STATES", "Conversation", "Transcript", "read_transcript"]
