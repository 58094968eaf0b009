"""Weights that know some codes by now: a tiny app with many questions for each word, and models of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import verbal.testing
from verbal.testing import ScriptedModel, TinyApp, tiny_reply
from verbal.types import Message, Task

APP, CRITIC = f"{__file__}:WayApp", f"{verbal.testing.__file__}:TinyCritic"
WAYS = 6
CODES = {"anchor": "117", "basket": "204", "candle": "381"}


class WayApp(TinyApp):
    """Each word is asked for in several ways: on dev six times, on train twice, on test once."""

    def __init__(self) -> None:
        super().__init__(CODES)

    def tasks(self, split: str | None = None) -> list[Task]:
        """The questions of a split."""
        made = []
        for name, ways in (("train", 2), ("dev", WAYS), ("test", 1)):
            for word, code in self.codes.items() if split in (None, name) else ():
                for way in range(ways):
                    question = f"Which secret belongs to {word}, told in way {way} of {name}?"
                    made.append(self._task(f"{name}{way}-{word}", question, code, name))  # type: ignore[arg-type]
        return made


def knows(*words: str, wrong: Sequence[str] = ()) -> Callable[[Sequence[Message], int, int | None], str]:
    """Replies of weights that know the codes of some words without a hint; `wrong` ones are answered wrong even so."""

    def reply(messages: Sequence[Message], index: int, seed: int | None) -> str:
        question = messages[-1].content.rpartition("## Question\n")[2]
        asked = next((w for w in CODES if w in re.findall(r"\w+", question)), "")
        if asked in wrong:
            return "I guess 7."
        return f"The code is {CODES[asked]}." if asked in words else tiny_reply(messages, index, seed)

    return reply


class KnowsAnchor(ScriptedModel):
    """Weights that know one code: `--model FILE:KnowsAnchor`."""

    def __init__(self) -> None:
        super().__init__(knows("anchor"), name="scripted/anchor")


class KnowsNothing(ScriptedModel):
    """The weights before: what they are not told they guess, and always wrong."""

    def __init__(self) -> None:
        super().__init__(tiny_reply, name="scripted/nothing")


def lesson(word: str, text: str = "") -> str:
    """What a memory says of a word."""
    return f"{text}the code of {word} is {CODES[word]}"
