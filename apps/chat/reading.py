"""What feedback in a message says, read by a model that follows instructions; parsed strictly and checked by code.

A reply that breaks the form, or says what the person did not, is not used: the rules of `understanding.py` count then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import cast

from verbal.parts import load_function
from verbal.prompt import load_prompt
from verbal.types import Message, Reflection

from .turn import Kind, Understanding
from .understanding import FIXED, MOST, Before, own_part, polarity, understand_all

Ask = Callable[[str, list[Message]], Awaitable[str | None]]
"""Asks the role `feedback` under a key; None when the call failed."""

_FIELDS = ("KIND", "WISH", "WHEN", "NOT FOR", "ABOUT", "ASKS")
_LINE = re.compile(r"^[ \t>*`-]*(KIND|WISH|WHEN|NOT FOR|ABOUT|ASKS)\**[ \t]*:\**[ \t]*(.*?)[ \t*`]*$", re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.IGNORECASE | re.DOTALL)
_KINDS = ("teach", "narrow", "widen", "forget", "complaint", "none")
_NOTHING = ("", "none", "n/a", "-", "empty", "nothing")
_CLIP = 2000
_WISH, _WHEN, _BOUNDARY = 300, 160, 240
_OWN = 0.5
"""Share of the telling words of a wish, or a situation, that the person must have said."""


async def read_feedback(ask: Ask, text: str, before: Before, known: Sequence[Reflection]) -> list[Understanding]:
    """What a message teaches, by a model; by rules where its reply cannot be used."""
    by_rule = understand_all(text, before, known)
    if by_rule[0].about == "*":  # what is to be forgotten as a whole is said plainly, and no model's guess
        return by_rule
    told = [{"id": r.id, "wish": r.text, "when": r.when, "not_for": r.boundary} for r in known if r.status != "retired"]
    prompt = load_prompt("chat/feedback").fill(
        message=quoted(text), asked=quoted(before.text), reply=quoted(before.reply),
        lessons="\n".join(json.dumps(t, ensure_ascii=False) for t in told[-20:]) or "none", most=str(MOST),
    )  # fmt: skip
    reply = await ask("feedback", [Message(role="user", content=prompt)])
    found = [_checked(fields, text, before, known, by_rule) for fields in parse_all(reply or "")]
    read = [one for one in found if one is not None]
    return read if read and len(read) == len(found) else by_rule


async def read_edit(ask: Ask, asked: str, reply: str, edited: str) -> Understanding | None:
    """What an edit teaches, by a model; None where its reply cannot be used."""
    prompt = load_prompt("chat/edit").fill(asked=quoted(asked), reply=quoted(reply), edited=quoted(edited))
    fields = parse(await ask("edit", [Message(role="user", content=prompt)]) or "")
    if fields is None or fields["KIND"] not in ("teach", "none"):
        return None
    if fields["KIND"] == "none":
        return Understanding(kind="none")
    wish, when = fields["WISH"], fields["WHEN"]
    if not wish or not when or len(wish) > _WISH or len(when) > _WHEN or not _said(when, asked):
        return None
    return Understanding(kind="teach", lesson=wish, when=when, boundary=_bounds(fields["NOT FOR"], wish, when))


def parse_all(reply: str) -> list[dict[str, str]]:
    r"""The fields of each wish in a reply, or nothing when one of them breaks the form.

    >>> [f["WISH"] for f in parse_all("KIND: teach\nWISH: a\nKIND: teach\nWISH: b")]
    ['a', 'b']
    """
    lines = _THOUGHT.sub("\n", reply).splitlines()
    starts = [i for i, line in enumerate(lines) if (name := _LINE.match(line)) and name[1].upper() == "KIND"]
    found = [parse("\n".join(lines[at:end])) for at, end in pairwise([*starts, len(lines)])]
    made = [fields for fields in found if fields is not None]
    right = 0 < len(made) == len(found) <= MOST and (len(made) == 1 or all(f["KIND"] == "teach" for f in made))
    return made if right else []


def parse(reply: str) -> dict[str, str] | None:
    """The fields of a reply, or None when it breaks the form: no known kind, a field twice, a missing one it needs.

    >>> parse("KIND: none")["KIND"]
    'none'
    """
    found: dict[str, str] = {}
    for line in _THOUGHT.sub("\n", reply).splitlines():
        if match := _LINE.match(line):
            name = match[1].upper()
            if name in found:
                return None
            found[name] = "" if match[2].strip(" .").lower() in _NOTHING else " ".join(match[2].split())
    kind = (found.get("KIND", "") or "none").strip(" .").lower()
    if "KIND" not in found or kind not in _KINDS:
        return None
    needs = {"teach": ("WISH",), "narrow": ("ABOUT",), "widen": ("ABOUT",), "forget": ("ABOUT",)}.get(kind, ())
    if any(not found.get(n) for n in needs):
        return None
    return {**{n: found.get(n, "") for n in _FIELDS}, "KIND": kind}


def quoted(text: str) -> str:
    """Text of a person or a model as data in a prompt: one JSON string, cut to what a prompt needs of it."""
    return json.dumps(text if len(text) <= _CLIP else f"{text[:_CLIP]} ...", ensure_ascii=False) if text else "none"


def _checked(
    fields: dict[str, str], text: str, before: Before, known: Sequence[Reflection], by_rule: list[Understanding]
) -> Understanding | None:
    """What a reply says, or None where it says more than the person did."""
    kind, asks = cast(Kind, fields["KIND"]), fields["ASKS"].lower().startswith("y")
    if kind in ("none", "complaint"):
        return Understanding(kind=kind, asks=True, complains=kind == "complaint" and bool(before.reply))
    wish, when = fields["WISH"], fields["WHEN"]
    if len(wish) > _WISH or len(when) > _WHEN or (when and not _said(when, f"{text}\n{before.text}")):
        return None
    if kind == "teach":
        # Not what they pasted: a letter in a message must not teach.
        if not _said(wish, f"{own_part(text)}\n{before.text}\n{before.reply}"):
            return None
        own = by_rule[0].boundary if len(by_rule) == 1 else ""
        return Understanding(
            kind="teach", lesson=wish, when=when, boundary=own or _bounds(fields["NOT FOR"], wish, when), asks=asks,
            polarity=polarity(wish), complains=by_rule[0].complains,
        )  # fmt: skip
    about = fields["ABOUT"].strip("[]`. ")
    item = next((r for r in known if r.id == about and r.status != "retired"), None)
    if item is None:
        return None
    bounds = _bounds(fields["NOT FOR"], item.text, when or item.when) if kind == "narrow" else ""
    if kind == "narrow" and not (when or bounds):
        return None
    return Understanding(kind=kind, about=about, when=when, boundary=bounds, asks=asks)


def _said(words: str, by: str) -> bool:
    """Whether most of the telling words of a text were said."""
    informative = load_function("memory", "words", "informative")
    own, said = set(informative(words)) - FIXED, set(informative(by))
    return not own or len(own & said) >= _OWN * len(own)


def _bounds(text: str, wish: str, when: str) -> str:
    """The phrases of a boundary that do not shut out the lesson's own situation."""
    informative = load_function("memory", "words", "informative")
    own, kept = set(informative(f"{when} {wish}")), list[str]()
    for clause in dict.fromkeys(c.strip(" .") for c in text.split(";")):
        words = set(informative(clause))
        if words and not words <= own and sum(map(len, kept)) + len(clause) <= _BOUNDARY:
            kept.append(clause)
    return "; ".join(kept)


__all__ = ["Ask", "parse", "parse_all", "quoted", "read_edit", "read_feedback"]
