"""Reading the replies of each role, strictly: what does not follow the form is None, never a guess."""

from __future__ import annotations

import re
from dataclasses import dataclass

CLAUSES = ("select", "from", "where", "group", "having", "order", "limit", "set")
"""Parts of a query that a critic may name."""

_INLINE = re.compile(r"```[ \t]*(?:sql|sqlite)[ \t]+([^`\n]+)```", re.IGNORECASE)
_OPENED = re.compile(r"```[ \t]*(?:sql|sqlite)\b", re.IGNORECASE)
_VERDICT = re.compile(r"^[^\w\n]*verdict[^\w\n:]*:[^\w\n]*(right|wrong)\b[^\w\n]*$", re.IGNORECASE | re.MULTILINE)
_CLAUSES = re.compile(r"^[^\w\n]*clauses[^\w\n:]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_HINT = re.compile(r"^[ \t>*-]*hint\**:\**[ \t]*(\S.*)$", re.IGNORECASE | re.MULTILINE)
_QUESTION = re.compile(r"^[ \t>*-]*question\**:\**[ \t]*(\S.*)$", re.IGNORECASE | re.MULTILINE)
_SCORE = re.compile(
    r"^[^\w\n]*sql[ \t]*(\d{1,4})[^\w\n:]*:[ \t*]*(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})[ \t*]*$",
    re.IGNORECASE | re.MULTILINE,
)
_HINT_LENGTH = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a critic said of one query."""

    right: bool
    clauses: tuple[str, ...] = ()
    """Parts it called wrong, of `CLAUSES`."""
    answer: str | None = None
    """Its corrected query."""

    @property
    def text(self) -> str:
        """The verdict in words."""
        if self.right:
            return "the query is right"
        return f"the query is wrong in: {', '.join(self.clauses)}" if self.clauses else "the query is wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A question with its answer, from a proposer."""

    question: str
    answer: str


def parse_sql(text: str) -> str | None:
    """The query of a reply: the last complete fenced block marked `sql`; None when there is none or it is empty.

    A reply may think aloud and show drafts, so of two blocks the last counts. A block that is opened and never
    closed after it means that the reply was cut before its answer, which is None as well.

    >>> parse_sql("First ```sql SELECT 1``` or better ```sql SELECT 2;```")
    'SELECT 2'
    """
    found = [*_blocks(text), *((match.end(), match[1]) for match in _INLINE.finditer(text))]
    end, sql = max(found, default=(0, ""))
    if _OPENED.search(text, end):
        return None
    return sql.strip().rstrip(";").strip() or None


def _blocks(text: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    language: str | None = None
    position, start = 0, 0
    for line in text.splitlines(keepends=True):
        position += len(line)
        mark = line.strip()
        if not mark.startswith("```") or mark.count("```") > 1:
            continue
        if language is None:
            language, start = mark[3:].strip().lower(), position
        elif mark == "```":
            if language in ("sql", "sqlite"):
                found.append((position, text[start : position - len(line)]))
            language = None
        else:
            language, start = mark[3:].strip().lower(), position
    return found


def parse_verdict(text: str) -> Verdict | None:
    """A critic's verdict: one `VERDICT:` line (two that disagree are None), clauses and the corrected query."""
    verdicts = {match.lower() for match in _VERDICT.findall(text)}
    if len(verdicts) != 1:
        return None
    if verdicts == {"right"}:
        return Verdict(right=True)
    line = _CLAUSES.search(text)
    words = re.findall(r"[a-z]+", line[1].lower()) if line else []
    named = tuple(clause for clause in CLAUSES if clause in words)
    return Verdict(right=False, clauses=named, answer=parse_sql(text))


def parse_hint(text: str) -> str | None:
    """A reflector's lesson: the text of its only `HINT:` line; None when there is none, several or it is too long."""
    found = _HINT.findall(text)
    hint = " ".join(found[0].split()) if len(found) == 1 else ""
    return hint if 0 < len(hint) <= _HINT_LENGTH else None


def parse_proposal(text: str) -> Proposal | None:
    """A proposer's question and query; None when either is missing or there are several questions."""
    questions, sql = _QUESTION.findall(text), parse_sql(text)
    if len(questions) != 1 or sql is None:
        return None
    return Proposal(question=" ".join(questions[0].split()), answer=sql)


def parse_scores(text: str, n: int) -> tuple[float, ...] | None:
    """A judge's scores of `n` candidates: each of SQL0 to SQL(n-1) exactly once, each in [0, 1]; else None."""
    pairs = [(int(index), float(score)) for index, score in _SCORE.findall(text)]
    scores = dict(pairs)
    complete = len(pairs) == n and set(scores) == set(range(n))
    if not n or not complete or any(score > 1.0 for score in scores.values()):
        return None
    return tuple(scores[index] for index in range(n))
