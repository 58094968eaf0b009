"""A speaker by rules, who plays every role of the app offline: the model `rules:social`.

It is no language model. As solver it picks among named moves (`people.MOVES`), each with sentences of its own: by what
the hints in its prompt say of them, else by chance. As reflector it reads in a transcript which moves were met warmly
and which coldly, and says so in one line. So words decide what it does, and nothing else it could have learned.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from verbal.types import Message

from .people import TEMPERS, moves_in
from .scenarios import Scenario, read_scenario

SAYS: Mapping[str, tuple[str, ...]] = {
    "question": ("What would have to be different for you?", "How do you see this yourself?"),
    "listening": ("I hear you, and there is no hurry.", "That sounds hard, honestly."),
    "reason": ("The figures are plain: nine of ten others came out ahead.", "It was measured: costs fell by a third."),
    "story": ("A friend of mine stood before this very choice.", "My neighbour did it and sang all evening."),
    "offer": ("In return I will cover whatever it takes.", "We could start small and stop whenever it suits."),
    "credit": ("Your work speaks for itself here.", "Thank you for all those seasons, your experience shows."),
    "admission": ("You are right that it went badly before.", "It was our fault back then, plainly."),
    "pressure": ("You must decide now.", "Everyone else has said yes already."),
    "small_talk": ("Lovely weather today, by the way.", "Nice weekend, was it not?"),
    "request": ("So, can I count on you?", "Then shall we do it together?", "Are you willing?"),
}
"""Sentences that make a move, each heard as that move and no other."""

_HINT = re.compile(r"first ([\w, ]+?);(?: then ask;)? never ([\w, ]+)", re.I)
_COLD = ("I do not care for that.", "That does not help.", "Please, not that.")
_WARM = ("That is good to hear.", "Yes, that helps.", "Now we are talking.")
_KIND = (("accounts", "figures", "count", "numbers"), ("tired", "exhausted", "worn out"),
         ("hurry", "short of time", "minutes"), ("has built", "founded"), ("let down", "promised"))  # fmt: skip


def good_script(scenario: Scenario) -> list[str]:
    """What to say to a person to reach the goal, knowing their temper."""
    temper = TEMPERS[scenario.temper]
    other = [m for m in temper.likes if m != temper.opens]
    script = [SAYS[temper.opens][0], *(SAYS[m][0] for m in other), SAYS[temper.opens][1]]
    return script if scenario.aim == "secret" else [*script[:3], SAYS["request"][0]]


def by_rules(messages: Sequence[Message], index: int, seed: int | None) -> str:
    """The reply of a speaker by rules, for `ScriptedModel(by_rules)`."""
    text = messages[0].content
    role = re.search(r"# Role: (\w+)", text)
    plays = {"solver": _speak, "reflector": _reflect, "critic": _criticise, "judge": _judge, "user": _listen}
    if role is None or role[1] not in plays:
        return _propose(seed, index) if role and role[1] == "proposer" else "none"
    if role[1] == "solver":
        return _speak(messages, index, seed)
    return plays[role[1]](messages[:1], index, seed)


def _section(text: str, name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found[1].strip() if found else ""


def _speak(messages: Sequence[Message], index: int, seed: int | None) -> str:
    """The next sentence: liked moves first, then the rest by chance, a request from the third on."""
    text, mine = messages[0].content, [m.content for m in messages if m.role == "assistant"]
    rng = random.Random(f"{_section(text, 'Person')}/{seed}/{index}")
    liked, shunned = _advice(_section(text, "Hints"))
    wants_secret = "find out" in _section(text, "Goal").lower()
    if not wants_secret and len(mine) >= 3:
        return SAYS["request"][(len(mine) - 3) % len(SAYS["request"])]
    rest = [m for m in SAYS if m not in liked and m not in shunned and m != "request"]
    rng.shuffle(rest)
    plan = [SAYS[m][0] for m in liked] + [SAYS[m][1] for m in liked] + [SAYS[m][0] for m in rest]
    said = [s for s in plan if s not in mine]
    return said[0] if said else SAYS["request"][0]


def _advice(hints: str) -> tuple[list[str], set[str]]:
    """Moves that the hints speak for, in their order, and those they speak against; a move in both is left out."""
    liked: dict[str, int] = {}
    shunned: dict[str, int] = {}
    for first, never in _HINT.findall(hints):
        for name in re.split(r",\s*", first.strip()):
            liked[name] = liked.get(name, 0) + 1
        for name in re.split(r",\s*", never.strip()):
            shunned[name] = shunned.get(name, 0) + 1
    known = [m for m in liked if m in SAYS and liked[m] > shunned.get(m, 0)]
    return sorted(known, key=lambda m: -liked[m]), {m for m in shunned if shunned[m] > liked.get(m, 0)}


def _reactions(dialogue: str) -> list[tuple[str, str]]:
    """(what ME said, what THEM answered) for each turn."""
    rows = [line.removeprefix("> ").strip() for line in dialogue.splitlines()]
    pairs = []
    for mine, theirs in pairwise(rows):
        if mine.startswith("ME:") and theirs.startswith("THEM:"):
            pairs.append((mine[3:].strip(), theirs[5:].strip()))
    return pairs


def _weighed(dialogue: str) -> tuple[list[str], list[str]]:
    """Moves that were met warmly, and coldly."""
    warm: dict[str, None] = {}
    cold: dict[str, None] = {}
    for said, answer in _reactions(dialogue):
        for move in moves_in(said):
            if move != "request" and answer.startswith(_WARM):
                warm[move] = None
            if move != "request" and answer.startswith(_COLD):
                cold[move] = None
    return list(warm), list(cold)


def _reflect(messages: Sequence[Message], index: int, seed: int | None) -> str:
    text = messages[0].content
    warm, cold = _weighed(_section(text, "Dialogue") + "\n" + _section(text, "Right"))
    if not warm:
        return "none"
    person = _section(text, "Person").lower()
    cues = next((kind for kind in _KIND if any(cue in person for cue in kind)), ())
    seen = ", ".join(c for c in cues if c in person) or person.partition(", ")[2]
    return f"With a person of whom one hears '{seen}': first {', '.join(warm)}; never {', '.join(cold) or 'pressure'}."


def _criticise(messages: Sequence[Message], index: int, seed: int | None) -> str:
    warm, cold = _weighed(_section(messages[0].content, "Dialogue"))
    return f"Met warmly: {', '.join(warm) or 'nothing'}. Met coldly: {', '.join(cold) or 'nothing'}."


def _judge(messages: Sequence[Message], index: int, seed: int | None) -> str:
    """Marks for things that were said, by how they were answered; a fixed mark for a scenario or an outcome."""
    text = messages[0].content
    if "TALK0" in text:
        return "\n".join(f"TALK{i}: 0.80" for i in range(len(set(re.findall(r"^TALK(\d+):", text, re.M)))))
    found = re.search(r"<dialogue>\n(.*?)\n</dialogue>", text, re.S)
    dialogue = found[1] if found else _section(text, "Dialogue")
    if "OUTCOME:" in text:
        good = any(
            re.search(r"count on you|let us do|yes, i will|to be honest", a, re.I) for _, a in _reactions(dialogue)
        )
        return f"By what was answered.\nOUTCOME: {'reached' if good else 'not reached'}"
    told = [-1 if a.startswith(_COLD) else 3 if "To be honest" in a else 2 if a.startswith(_WARM) else 0
            for _, a in _reactions(re.sub(r"^(ME|THEM)\d+:", r"\1:", dialogue, flags=re.M))]  # fmt: skip
    if "<score>" not in text:
        return "\n".join(f"ME{i}: {mark}" for i, mark in enumerate(told, 1))
    low, high = (float(x) for x in re.findall(r"from (-?\d+) to (-?\d+)", text)[0])
    share = sum(m > 0 for m in told) / len(told) if told else 0.0
    return f"By how it was answered.\n<score>{low + (high - low) * share:g}</score>"


def _listen(messages: Sequence[Message], index: int, seed: int | None) -> str:
    """Plays a person who is won by being listened to, twice."""
    mine = [s for s in _section(messages[0].content, "Dialogue").splitlines() if s.startswith("ME:")]
    good = sum(bool({"listening", "question"} & set(moves_in(said))) for said in mine)
    bad = sum("pressure" in moves_in(said) for said in mine)
    return "Fine.\nSTATE: " + ("leaving" if bad else "reached" if good > 1 else "going on")


def _propose(seed: int | None, index: int) -> str:
    """A scenario by rules: a person, a matter and a secret, put together by seed."""
    rng = random.Random(f"{seed}/{index}")
    name = rng.choice(("Mira", "Otto", "Sana", "Ivo", "Lena", "Marek"))
    temper, person = rng.choice((
        ("factual", "who keeps the accounts of {p}"), ("worn", "who is tired after long nights at {p}"),
        ("hurried", "who is in a hurry at {p}"), ("proud", "who has built {p} over decades"),
        ("wary", "who was let down by {p}"),
    ))  # fmt: skip
    place = rng.choice(("the harbour", "the mill", "a small cinema", "the ferry line", "the bakery", "a bee farm"))
    matter = rng.choice(
        ("open an hour longer", "lend the hall", "share the van", "take an apprentice", "move the fair")
    )
    secret = rng.choice(("the place will be sold in autumn", "I owe money to my brother", "I cannot read the contract"))
    made = {"kind": "persuasion", "temper": temper, "person": f"{name}, {person.format(p=place)}",
            "setting": f"People of the street ask {name} to {matter}.", "goal": f"Get {name} to {matter}.",
            "opening": "Yes?", "aim": "agreement", "secret": secret, "wish": "to be treated fairly"}  # fmt: skip
    script = good_script(read_scenario(made, id="proposed"))
    return f"QUESTION: {json.dumps(made)}\n```talk\n" + "".join(f"ME: {s}\n" for s in script) + "```"


__all__ = ["SAYS", "by_rules", "good_script"]
