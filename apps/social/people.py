"""People to talk to, by rules: what they like to hear, when they open up, agree or leave. Deterministic, no model.

A person has a temper (what kind of words move them), trust, and patience. Each thing that is said is read for named
moves (a question, a reason, a story, pressure, ...) by plain cue words. Moves that the temper likes raise trust, those
it dislikes cost trust and patience; repeating oneself and long speeches cost patience. Enough trust, and the right move
opens them up: they tell what they had kept to themselves. They agree to a request when trust is high enough, and leave
when patience is gone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MOVES: Mapping[str, re.Pattern[str]] = {
    "question": re.compile(
        r"\b(what|how|why|which|who|when|where|tell me|help me understand)\b[^.!?]*(\?|about)|\bwhat matters\b", re.I
    ),
    "listening": re.compile(
        r"\b(i hear|i understand|i can see|that sounds|it sounds|that must|no wonder|take your time)\b", re.I
    ),
    "reason": re.compile(
        r"\d|\b(because|therefore|evidence|figures?|measured|percent|on average|study|studies)\b", re.I
    ),
    "story": re.compile(
        r"\b(a friend of mine|my (?:aunt|uncle|neighbou?r|sister|brother)|i remember|once upon|years ago i)\b",
        re.I,
    ),
    "offer": re.compile(
        r"\b(in return|i (?:can|could|will) take|we could (?:start|try|split)|for one week|a small trial|half of it"
        r"|i will cover|meet you halfway)\b",
        re.I,
    ),
    "credit": re.compile(
        r"\b(your work|what you (?:have )?built|thank you for|you know this better|your experience)\b", re.I
    ),
    "admission": re.compile(
        r"\b(you are right that|you're right that|our fault|my fault|we were wrong|i was wrong|we let you down)\b", re.I
    ),
    "pressure": re.compile(
        r"\b(you must|you have to|now or never|last chance|everyone else|no excuse|you owe)\b", re.I
    ),
    "small_talk": re.compile(r"\b(weather|weekend|holiday|football|nice day)\b", re.I),
    "request": re.compile(
        r"\b(would you|will you|could you|can i count on you|shall we|do we have a deal|are you willing)\b", re.I
    ),
}  # fmt: skip
"""Name of a move -> how it is heard in what is said."""

AGREES = 0.7
"""Trust at which a request is agreed to."""
OPENS = 0.6
"""Trust from which the opening move is answered with what was kept back."""
PATIENCE = 4
"""Annoyances that are borne."""
LONG = 60
"""Words of a speech that is too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Temper:
    """A kind of person."""

    words: str
    """What such a person is like, for a model that plays one."""
    likes: tuple[str, ...]
    dislikes: tuple[str, ...]
    opens: str
    """The move that makes them tell what they keep to themselves."""
    parting: str
    """What they say when they have had enough: it tells what would have worked."""


TEMPERS: Mapping[str, Temper] = {
    "factual": Temper(
        words="wants figures and reasons, is bored by tales and put off by flattery",
        likes=("reason", "question"),
        dislikes=("story", "credit", "pressure", "small_talk"),
        opens="reason",
        parting="I need reasons and figures, and I got talk. Goodbye.",
    ),
    "worn": Temper(
        words="is tired and wants to be heard before anything is asked, cannot bear figures just now",
        likes=("listening", "question"),
        dislikes=("reason", "pressure", "offer"),
        opens="listening",
        parting="Nobody listens to me today. I am going.",
    ),
    "hurried": Temper(
        words="has no time, wants to hear quickly what the deal is, hates chat and tales",
        likes=("offer", "reason"),
        dislikes=("small_talk", "story", "listening"),
        opens="offer",
        parting="I have no time for this. Make an offer next time.",
    ),
    "proud": Temper(
        words="is proud of a life's work, wants it seen and to be asked for advice, hates to be lectured or pushed",
        likes=("credit", "question"),
        dislikes=("pressure", "reason", "small_talk"),
        opens="credit",
        parting="You did not even look at my work. We are done.",
    ),
    "wary": Temper(
        words="was let down before, wants that admitted and a small step without risk, distrusts praise and promises",
        likes=("admission", "offer"),
        dislikes=("credit", "pressure", "story"),
        opens="admission",
        parting="You never admit what went wrong. I have heard enough.",
    ),
}
"""Tempers by name."""

_WARM = ("That is good to hear.", "Yes, that helps.", "Now we are talking.")
_COLD = ("I do not care for that.", "That does not help.", "Please, not that.")
_FLAT = ("I see.", "Hm.", "Go on.")
_AGAIN = "You said that already."
_MUCH = "That was a lot of words."
_SILENT = "... are you still there?"
_NOT_YET = ("I am not there yet.", "Not so fast.", "Why should I?")
_YES = ("All right, you can count on me.", "Good, let us do that.", "Yes, I will.")


def moves_in(text: str) -> list[str]:
    """The moves that are heard in what somebody says, in the order of `MOVES`.

    >>> moves_in("I hear you, that must be hard. What matters to you?"), moves_in("Hello.")
    (['question', 'listening'], [])
    """
    return [name for name, cue in MOVES.items() if cue.search(text)]


@dataclass(slots=True)
class Person:
    """Somebody who listens and answers by rules.

    Args:
        temper: A name of `TEMPERS`.
        secret: What they keep to themselves until they open up.
        aim: `agreement` (they say yes to a request) or `secret` (they have told what they keep back).
        seed: Of the choice among phrases of one meaning.
    """

    temper: str
    secret: str
    aim: str = "agreement"
    seed: str = ""
    trust: float = 0.3
    """From 0 to 1."""
    patience: int = PATIENCE
    told: bool = False
    """Whether the secret is out."""
    agreed: bool = False
    gone: bool = False
    heard: list[str] = field(default_factory=list)
    """What was said so far."""
    effects: list[float] = field(default_factory=list)
    """Change of trust by each thing that was said."""

    @property
    def reached(self) -> bool:
        """Whether the other side has what it came for."""
        return self.told if self.aim == "secret" else self.agreed

    @property
    def over(self) -> bool:
        """Whether the talk has ended."""
        return self.reached or self.gone

    def scores(self) -> dict[str, float]:
        """The episode in the dimensions of Sotopia: goal 0 to 10, relationship -5 to 5, knowledge 0 to 10."""
        goal = 10.0 if self.reached else round(6.0 * self.trust / AGREES, 3) if not self.gone else 0.0
        relationship = round(max(-5.0, min(5.0, 10.0 * (self.trust - 0.3))), 3)
        return {"goal": min(goal, 10.0), "relationship": relationship, "knowledge": 10.0 if self.told else 0.0}

    def hear(self, text: str) -> str:
        """What they answer; state changes."""
        before, moves = self.trust, set(moves_in(text))
        words = text.split()
        if not words:
            self.patience -= 2
            answer = _SILENT
        elif any(_alike(text, earlier) for earlier in self.heard):
            self.patience -= 2
            answer = _AGAIN
        else:
            answer = self._react(moves, len(words))
        self.heard.append(text)
        if self.patience <= 0 and not self.reached:
            self.gone = True
            answer = TEMPERS[self.temper].parting
        self.effects.append(round(self.trust - before, 6))
        return answer

    def _react(self, moves: set[str], words: int) -> str:
        temper = TEMPERS[self.temper]
        good, bad = moves & set(temper.likes), moves & set(temper.dislikes)
        self._trust(0.25 * len(good) - 0.2 * len(bad))
        self.patience -= len(bad) + (words > LONG)
        said = [self._pick(_COLD) if bad else self._pick(_WARM) if good else self._pick(_FLAT)]
        if words > LONG:
            said.append(_MUCH)
        if temper.opens in moves and not bad and self.trust >= OPENS and not self.told:
            self.told = True
            self._trust(0.1)
            said.append(f"To be honest: {self.secret.rstrip(chr(46))}.")
        if "request" in moves:
            self.agreed = self.trust >= AGREES
            if not self.agreed:
                self.patience -= 1
            said.append(self._pick(_YES) if self.agreed else self._pick(_NOT_YET))
        return " ".join(said)

    def _trust(self, change: float) -> None:
        self.trust = round(max(0.0, min(1.0, self.trust + change)), 6)

    def _pick(self, phrases: tuple[str, ...]) -> str:
        key = f"{self.seed}/{len(self.heard)}/{phrases[0]}"
        return phrases[hashlib.blake2b(key.encode(), digest_size=2).digest()[0] % len(phrases)]


def _alike(text: str, other: str) -> bool:
    """Whether two speeches say the same: most words of one are in the other."""
    a, b = set(re.findall(r"\w+", text.lower())), set(re.findall(r"\w+", other.lower()))
    return bool(a and b) and len(a & b) >= 0.8 * min(len(a), len(b))


__all__ = ["AGREES", "LONG", "MOVES", "OPENS", "PATIENCE", "TEMPERS", "Person", "Temper", "moves_in"]
