"""Follow-ups of a conversation: "and by month?" as a question that stands alone.

A model that follows instructions rewrites it (`prompts/text2sql/followup.md`: the question before, its SQL and the
shape of its result, as data). One that does not (the embedded model) gets rules: a change of grouping, of one value, of
order or count. What the rules cannot say is told to the person, never guessed.
"""

from __future__ import annotations

import re

from verbal.prompt import load_prompt
from verbal.types import Message

from .prompts import fenced, one_line
from .values import Database

_OPENING = re.compile(
    r"^\s*(and|or|but|also|now|then|only|just|same|instead|by|per|for each|in|for|with|without|"
    r"sorted|ordered|top|except|excluding|as a)\b",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"^\s*(and\s+)?(what|how) about\b", re.IGNORECASE)
_POINTING = re.compile(
    r"\b(it|its|them|they|their|those|these|that|this|the same|ones?|previous|above)\b", re.IGNORECASE
)
_BACK = re.compile(
    r"\b(?:of|from|among|in|than|about|for|with|to) (?:them|those|these|that|this|it)\b|"
    r"\b(?:these|the same|previous)\b|\b(?:the|as) above\b|\b(?:above|that|those)\s*[?.!]*$",
    re.IGNORECASE,
)
"""What points out of a sentence even where it is long: "the names of those", not "singers that sing"."""
_LONG = 7
_ASKING = re.compile(
    r"^\s*(?:please\s+)?(?:what|which|who|whose|when|where|how|list|show|give|find|count|tell|return|name|are|is|do|does|"
    r"did)\b|^\s*(?:for|in|by|per|among)\b(?=(?:\s*\S+){5}).*?,\s*(?:what|which|who|how|list|show|give|find)\b",
    re.IGNORECASE,
)
_LEAD = re.compile(r"^\s*((and|or|but|also|now|then|what about|how about|just|please)\b[\s,:]*)+", re.IGNORECASE)
_GROUPING = re.compile(
    r"^(?:by|per|for each|for every|grouped by|broken down by|split by)\s+(?:the\s+)?(.+)$", re.IGNORECASE
)
_GROUPED = re.compile(
    r",?\s+(?:by|per|for each|for every|grouped by|broken down by)\s+(?:the\s+)?[\w ]+$", re.IGNORECASE
)
_ADDING = re.compile(
    r"^(only|in|for|with|without|except|excluding|from|where|whose|sorted|ordered|since|before|after)\b", re.IGNORECASE
)
_TOP = re.compile(r"^(?:only\s+|just\s+)?(?:the\s+)?(?:top|first)\s+(\d+)\s*$", re.IGNORECASE)
_QUESTION = re.compile(r"^[ \t>*-]*question\**:\**[ \t]*(\S.*)$", re.IGNORECASE | re.MULTILINE)


def is_followup(text: str) -> bool:
    """Whether a text leans on what was asked before.

    >>> [is_followup(t) for t in ("and by month?", "How many singers are there?", "which of them are French?", "2021?")]
    [True, False, True, True]
    """
    asks, words = bool(_ASKING.search(text)), len(text.split())
    # In a long question a pronoun mostly means something in it: "each singer and their songs", "matches that ended".
    pointing = _BACK if asks and words >= _LONG else _POINTING
    if _ABOUT.search(text) or pointing.search(text) or (_OPENING.search(text) and not asks):
        return True
    return words <= 3 and not asks


def rewritten(text: str, before: str, database: Database) -> str:
    """The whole question that a follow-up means, by rules; empty where no rule fits.

    Args:
        text: The follow-up.
        before: The question before it, whole.
        database: Whose cells tell which value is changed.
    """
    change = _LEAD.sub("", text.strip().rstrip("?.! "), count=1).strip()
    whole = before.strip().rstrip("?.! ")
    if not change or _POINTING.search(change):
        return ""
    if match := _TOP.match(change):
        return f"{whole}, only the first {match[1]}?"
    if match := _GROUPING.match(change):
        return f"{_GROUPED.sub('', whole)} for each {match[1]}?"
    if changed := _changed_value(change, whole, database):
        return f"{changed}?"
    if _ADDING.match(change):
        return f"{whole} {change}?"
    return ""


def _changed_value(change: str, whole: str, database: Database) -> str:
    """The question with one of its values replaced by a value of the same column that the follow-up names."""
    named = re.sub(r"^(in|for|from|of|with|only)\s+(the\s+)?", "", change, flags=re.IGNORECASE)
    new = database.values([named])
    # The whole change is the value: with more words it says more than which value is meant.
    new = [cell for cell in new if _key(cell.text) == _key(named)]
    places = {(cell.table, cell.column) for cell in new}
    for old in database.values([whole]):
        if (old.table, old.column) in places:
            cell = next(c for c in new if (c.table, c.column) == (old.table, old.column))
            pattern = re.compile(re.escape(old.text), re.IGNORECASE)
            if pattern.search(whole):
                return pattern.sub(lambda _, text=cell.text: text, whole, count=1)  # type: ignore[misc]
    return ""


def _key(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def followup_prompt(
    text: str, before: str, sql: str, shape: str, database: Database, folder: str | None
) -> list[Message]:
    """What a model is asked that rewrites a follow-up.

    Args:
        text: The follow-up.
        before: The question before it.
        sql: Its query.
        shape: Columns and rows of its result in words.
        database: Whose tables are named.
        folder: A folder with prompts of the user's, or None.
    """
    tables = [f"{t.name} ({', '.join(c.name for c in t.columns[:40])})" for t in database.tables[:60]]
    prompt = load_prompt("text2sql/followup", folder)
    content = prompt.fill(
        tables="\n".join(map(one_line, tables)), question=one_line(before), sql=fenced(sql) if sql else "none",
        result=one_line(shape)[:300], followup=one_line(text),
    )  # fmt: skip
    return [Message(role="user", content=content)]


def parse_followup(reply: str) -> str:
    """The question of a model's reply; empty when it does not follow the form."""
    found = _QUESTION.findall(reply)
    return " ".join(found[0].split()) if len(found) == 1 else ""


__all__ = ["followup_prompt", "is_followup", "parse_followup", "rewritten"]
