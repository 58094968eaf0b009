"""Which of the shown reflections a reply names."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CODE = re.compile(r"(?ms)(`{3,}|^[ ]{0,3}~{3,}).*?(?:\1|\Z)")
# Chinese, Japanese and Korean write no space before a name, so there a word may begin in the middle of letters.
_TOKENS = (re.compile(r"[\w.:/-]+"), re.compile("(?:[^\\W\u2e80-\ud7ff]|[.:/-])+"))
_EDGE = "._:/-"
_LABEL = re.compile(r"(?i)(?:used?|uses|cited?|cites|hints?|lessons?|rules?|ids?|sources?):(?=.)")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:-]")


def cited(text: str, shown: Sequence[str]) -> tuple[str, ...]:
    """The ids of `shown` that a reply names outside of its code, in the order shown.

    Any form counts that has the id as a word of its own: `USED: r3, r12`, `[r3]`, `(hint r12)`, `as r3 says`. An id may
    be written as prompts show it (`_` for what is not a letter, digit, `_`, `.`, `:` or `-`) and in other capitals; a
    form that fits several shown ids names none of them. What stands in a fence is code (an alias `r1` of a table), and
    so is `r1.name`. That a lesson is named does not say that it was followed.

    Args:
        text: The reply.
        shown: Ids of the reflections in its prompt; no other id is ever given.

    >>> cited("USED: r12, [r3]. SELECT r1.name", ["r1", "r3", "r12"])
    ('r3', 'r12')
    """
    ids = tuple(dict.fromkeys(shown))
    exact, loose = set(ids), _loose_forms(ids)
    named: set[str] = set()
    prose = _CODE.sub(" ", text)
    for token in {token for pattern in _TOKENS for token in pattern.findall(prose)}:
        for said in (token, token.rstrip(_EDGE), token.strip(_EDGE), _LABEL.sub("", token, count=1).strip(_EDGE)):
            parts = [said] if "/" not in said or _one(said, exact, loose) else said.split("/")
            known = [_one(part, exact, loose) for part in parts]
            if all(known):  # `r3/r5` names both, `run/r5` is another id
                named.update(i for i in known if i)
                break
    return tuple(i for i in ids if i in named)


def _one(said: str, exact: set[str], loose: dict[str, str]) -> str:
    """The id that a word names, or an empty text."""
    return said if said in exact else loose.get(said.casefold(), "")


def _loose_forms(ids: Sequence[str]) -> dict[str, str]:
    """Folded form -> the one id it fits; an empty text where it fits several."""
    forms: dict[str, str] = {}
    for item_id in ids:
        for form in {item_id.casefold(), _UNSAFE.sub("_", item_id).casefold()} - {""}:
            forms[form] = item_id if forms.get(form, item_id) == item_id else ""
    return forms
