"""An audit of a memory: what should not be in it, item by item, with what to do. It reads and never writes.

Ten thousand items take seconds: every check looks at one item, or at the few that share a block with it. A finding is a
reason to look, not a verdict; only exact duplicates, secrets and instructions to the model are sure enough for
`Finding.retire`, which `verbal memory audit --fix` goes by. Items that are retired are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verbal.contracts import Trial
from verbal.types import Attempt, Reflection

from .budget import over_budget
from .duplicates import Alike, alike
from .junk import junk, unclean
from .leaks import find_secrets
from .retrieval import tokens
from .screening import instruction
from .words import informative

KINDS: dict[str, tuple[str, str]] = {
    "secret": ("holds a secret", "change the secret now: the op log keeps the words; then forget the item"),
    "injection": ("speaks to the model", "forget it, and look where it came from"),
    "sealed": ("comes from a sealed test task", "forget it: scores on the test split would be worth nothing"),
    "unicode": ("holds characters that deceive", "forget it, and add its words again by hand if they are good"),
    "loop": ("was learned from another item", "forget it: it repeats what a prompt had shown"),
    "restated": ("says a prompt again", "forget it: the prompt says it already"),
    "duplicate": ("says the same as another", "forget all but one"),
    "near": ("says nearly the same as another", "keep the better one"),
    "contradiction": ("contradicts another", "look which one is right; rivals are tried against each other"),
    "profile": ("a fact about a person without a source", "forget it, unless you know that it is true"),
    "greeting": ("small talk", "forget it"),
    "empty": ("says nothing", "forget it"),
    "transient": ("news of a moment", "forget it: it is over"),
    "single_use": ("fits its own task only", "forget it, or say when else it holds"),
    "long": ("too long to be shown", "say it in fewer words"),
    "never_used": ("was never shown", "look whether anybody asks for it"),
    "stale": ("was not shown for long", "look whether it still holds"),
    "over_budget": ("its scope holds too much", "these would go first"),
}
"""Kind -> what is said of such an item, and what to do; worst first."""

FIXES = ("secret", "injection", "duplicate")
"""Kinds that may be fixed by code: RETIRE of what `Finding.retire` names."""

_HINT = re.compile(r"<hint\b[^>]*>(.*?)</hint>", re.DOTALL)
_DAY = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with one item, or with several together."""

    kind: str
    """One of KINDS."""
    ids: tuple[str, ...]
    what: str
    """In words; a secret is never repeated."""
    todo: str
    retire: tuple[str, ...] = ()
    """Ids that a fix would retire; empty where a person must look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What an audit may know besides the words; a check that lacks what it needs finds nothing."""

    version: int = 0
    """Of the memory."""
    trials: Mapping[str, Sequence[Trial]] = field(default_factory=dict)
    """What happened when an item was offered, by id."""
    times: Mapping[int, float] = field(default_factory=dict)
    """Version -> when it was logged, in seconds."""
    now: float = 0.0
    """The time of the audit, in seconds; without one, age is counted in versions."""
    attempt: Callable[[str], Attempt | None] = lambda _: None
    """An attempt by id: its prompts say what the item may have been copied from."""
    questions: Mapping[str, str] = field(default_factory=dict)
    """Task -> what it asks."""
    sealed: frozenset[str] = frozenset()
    """Tasks of the split `test`."""
    prompts: Sequence[str] = ()
    """Texts of prompts that no item has to repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """From where on an item is old, long or too much."""

    items: int = 500
    """Most items of a scope."""
    tokens: int = 50_000
    """Most tokens of the items of a scope."""
    long: int = 400
    """Tokens of one item: what a search may give at all."""
    days: float = 90.0
    """Without being shown, until an item is stale; a third of them for one that never was."""
    versions: int = 2000
    """The same in operations on the memory, where there are no times."""
    emails: bool = False
    """Whether e-mail addresses count as secrets."""


def audit(items: Iterable[Reflection], evidence: Evidence | None = None, bounds: Bounds | None = None) -> list[Finding]:
    """What is wrong with a memory, worst kind first, then by the order of the items.

    Args:
        items: The memory, oldest first; retired items do not count.
        evidence: What is known besides their words.
        bounds: From where on an item is old, long or too much.
    """
    known, limits = evidence or Evidence(), bounds or Bounds()
    alive = [item for item in items if item.status != "retired"]
    held = {item.id: (place, item) for place, item in enumerate(alive)}
    found: list[Finding] = []
    prompts = _Copied(known.prompts)
    for item in alive:
        found += _words(item, known, limits)
        found += _origin(item, held, known, prompts)
        found += _use(item, known, limits)
    found += _pairs(alive)
    found += _too_much(alive, known, limits)
    order = {kind: i for i, kind in enumerate(KINDS)}
    return sorted(found, key=lambda f: order[f.kind])  # `sorted` keeps the order of equal ones


def _finding(kind: str, ids: Iterable[str], what: str = "", retire: Iterable[str] = ()) -> Finding:
    said, todo = KINDS[kind]
    return Finding(kind=kind, ids=tuple(ids), what=what or said, todo=todo, retire=tuple(retire))


def _all_words(item: Reflection) -> str:
    return "\n".join(part for part in (item.title, item.when, item.text, item.boundary) if part)


def _words(item: Reflection, known: Evidence, limits: Bounds) -> Iterator[Finding]:
    """What an item's words alone show."""
    told = _all_words(item)
    if secrets := find_secrets(told, emails=limits.emails):
        kinds = ", ".join(dict.fromkeys(s.kind for s in secrets))
        yield _finding("secret", [item.id], f"holds what looks like: {kinds}", [item.id])
    hidden = unclean(told)
    # A character that cannot be seen is told as such: `instruction` refuses it too.
    if (why := instruction(item)) and not (hidden and "cannot be seen" in why):
        yield _finding("injection", [item.id], why, [item.id])
    if hidden:
        yield _finding("unicode", [item.id], f"holds {hidden}")
    if (size := tokens(item)) > limits.long:
        yield _finding("long", [item.id], f"takes {size:,} tokens, a search gives at most {limits.long:,}")
    for kind, why in junk(item):
        yield _finding(kind, [item.id], why)


def _origin(
    item: Reflection, held: Mapping[str, tuple[int, Reflection]], known: Evidence, prompts: _Copied
) -> Iterator[Finding]:
    """What the attempts and the task of an item show: words that were copied rather than learned."""
    if item.task and item.task in known.sealed:
        yield _finding("sealed", [item.id], f"its task {item.task!r} is of the sealed split")
    own, shown = _Copied([item.text]), dict[str, str]()
    asked = list[str]()
    for attempt in filter(None, map(known.attempt, item.attempts)):
        for step in attempt.steps:
            shown |= {i: _all_words(held[i][1]) for i in step.shown if i in held and i not in (item.id, item.rival)}
            for message in step.prompt:
                body = _HINT.sub(" ", message.content)
                shown |= {f"hint {h[:40]!r}": h for h in _HINT.findall(message.content)}
                asked += [body] if message.role == "system" else []
    for source, text in shown.items():
        # What was added later cannot be the source; nor is the other one what the item is a rival of.
        older = source not in held or (held[source][0] < held[item.id][0] and held[source][1].rival != item.id)
        if older and own.copies(_Copied([text])):
            ids = [item.id, *([source] if source in held else [])]
            yield _finding("loop", ids, f"repeats {source}, which was shown in the attempt it comes from")
            break
    if len(own.grams) >= 3 and own.share(_Copied(asked) if asked else prompts) >= 0.6:
        yield _finding("restated", [item.id], "repeats the words of a prompt")
    question = known.questions.get(item.task or "", "")
    if item.task and (item.task in item.text or (question and _Copied([question]).share(own) >= 0.6)):
        yield _finding("single_use", [item.id], "names its own task, or says its question again")


def _use(item: Reflection, known: Evidence, limits: Bounds) -> Iterator[Finding]:
    """Whether an item is ever shown."""
    trials = known.trials.get(item.id, ())
    last = max((t.version for t in trials if t.shown), default=0)
    used = bool(last or item.counters.shown)
    since = last or item.version
    if known.now and known.times:
        days = (known.now - known.times.get(since, known.now)) / _DAY
        age, most, unit = days, limits.days, "days"
    else:
        age, most, unit = float(known.version - since), float(limits.versions), "operations on the memory"
    if used and age > most:
        yield _finding("stale", [item.id], f"last shown {age:,.0f} {unit} ago")
    elif not used and age > most / 3:
        offered = f"offered {len(trials)} times and never" if trials else "never"
        yield _finding("never_used", [item.id], f"{offered} shown in {age:,.0f} {unit}")


def _pairs(alive: Sequence[Reflection]) -> Iterator[Finding]:
    """Items that say the same, nearly the same or the opposite."""
    held = {item.id: item for item in alive}
    groups: dict[str, list[str]] = {}
    others: list[Alike] = []
    for pair in alike(alive):
        if pair.kind == "duplicate":
            groups.setdefault(pair.first, [pair.first]).append(pair.second)
        else:
            others.append(pair)
    for ids in groups.values():
        # The one that is believed, then the one that knows most of outcomes, then the oldest stays.
        best = min(ids, key=lambda i: (held[i].status != "active", -held[i].counters.shown, ids.index(i)))
        rest = [i for i in ids if i != best]
        yield _finding("duplicate", [best, *rest], f"{len(rest)} more of {best}", rest)
    for pair in others:
        if pair.kind == "near":
            yield _finding(
                "near", [pair.second, pair.first], f"shares {pair.likeness:.0%} of its words with {pair.first}"
            )
        else:
            yield _finding("contradiction", [pair.second, pair.first], f"against {pair.first}: {pair.why}")


def _too_much(alive: Sequence[Reflection], known: Evidence, limits: Bounds) -> Iterator[Finding]:
    """Scopes over their budget, with those that would go first."""
    gone = over_budget(alive, known.trials, items_cap=limits.items, tokens_cap=limits.tokens)
    scopes = {item.id: item.scope for item in alive}
    for scope in ("task", "family", "global"):
        ids = [op.reflection for op in gone if scopes[op.reflection] == scope]
        if ids:
            held = [item for item in alive if item.scope == scope]
            size = sum(map(tokens, held))
            told = f"scope {scope} holds {len(held):,} items and {size:,} tokens, at most {limits.items:,} and "
            yield _finding("over_budget", ids, f"{told}{limits.tokens:,}; {len(ids):,} would have to go")


class _Copied:
    """Runs of three informative words of some texts, by which copying is recognised."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.grams: set[tuple[str, ...]] = set()
        self.size = 0
        for text in texts:
            found = informative(text[:20_000])
            self.size += len(found)
            self.grams.update(tuple(found[i : i + 3]) for i in range(len(found) - 2))
            if len(found) < 3:
                self.grams.add(tuple(found))

    def share(self, of: _Copied) -> float:
        """The share of these runs that another text has too; 0 when there are none."""
        kept = self.grams - {()}
        return len(kept & of.grams) / len(kept) if kept else 0.0

    def copies(self, of: _Copied) -> bool:
        """Whether this is mostly another text, or all of that with some words around it."""
        return self.share(of) >= 0.6 or (of.share(self) >= 0.8 and self.size <= 2 * of.size)


def summary(findings: Sequence[Finding]) -> dict[str, dict[str, Any]]:
    """Kind -> how many findings, how many items they name, and what to do; worst kind first."""
    table: dict[str, dict[str, Any]] = {}
    for finding in findings:
        row = table.setdefault(finding.kind, {"findings": 0, "items": set[str](), "todo": finding.todo})
        row["findings"] += 1
        # What a finding is about comes first; the item it is compared with is no junk for it.
        row["items"] |= set(subjects(finding))
    return {kind: {**row, "items": len(row["items"])} for kind, row in table.items()}


def subjects(finding: Finding) -> tuple[str, ...]:
    """The ids that a finding is about, without those it only compares with."""
    if finding.kind == "duplicate":
        return finding.retire
    return finding.ids if finding.kind == "over_budget" else finding.ids[:1]


__all__ = ["FIXES", "KINDS", "Bounds", "Evidence", "Finding", "audit", "subjects", "summary"]
