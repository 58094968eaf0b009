"""A memory as a Markdown playbook, and back: `[r12] helpful=3 harmful=0 :: text`, as ACE writes its bullets.

Below a bullet stand the fields that differ from their default, each moved in by two spaces (`  when: ...`); a field of
several lines goes on with `  | ` lines, so that no line of an item can look like a heading or like another bullet.
Reading takes what other programs and people write as well: ACE's playbooks, and lists of plain bullets.

Source: Zhang et al. 2025, arXiv:2510.04618 (ACE), for the form of a bullet.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from verbal.errors import DataError
from verbal.types import Counters, Reflection

SCOPES = ("global", "family", "task")
"""Headings of a playbook, in order."""

_BULLET = re.compile(r"(?:[-*] )?\[([^\]\r\n]{1,200})\] helpful=(\d{1,9}) harmful=(\d{1,9}) ::(?: (.*))?", re.DOTALL)
_PLAIN = re.compile(r"[-*+] (?!\[[ xX]?\] *$)(.*\S.*)", re.DOTALL)
_HEADING = re.compile(r"(#{1,6})\s+(.*\S)\s*|([A-Z][A-Z &/-]{2,60}):")
_FIELD = re.compile(r"  (title|when|not for|kind|polarity|status|shown|value|task|attempts|rival): (.*)", re.DOTALL)
_MORE = "  | "
_UNSAFE = re.compile(r"[\]\[\r\n\x00-\x1f]")


def write_playbook(items: Iterable[Reflection], name: str, *, bullet: str = "") -> str:
    """Items as a playbook, a section for each scope.

    Args:
        items: What to write, in order.
        name: Of the memory; the heading.
        bullet: What stands before each item, such as `- `.
    """
    blocks: dict[str, list[str]] = {scope: [] for scope in SCOPES}
    for item in items:
        blocks[item.scope].append(_bullet(item, bullet))
    sections = ["\n".join([f"## {scope}", "", *rows]) for scope, rows in blocks.items() if rows]
    return "\n\n".join([f"# Playbook: {' '.join(name.split())}", *sections]) + "\n"


def read_playbook(text: str) -> tuple[list[Reflection], list[tuple[str, str]]]:
    """The items of a playbook in order, and what was left out: (line, why).

    A heading that is no scope becomes the title of the plain bullets below it. Prose is passed over.
    """
    if text.partition("\n")[0].endswith("\r"):
        text = text.replace("\r\n", "\n")
    items: list[Reflection] = []
    wrong: list[tuple[str, str]] = []
    scope, title, current = "family", "", _Entry()
    for number, line in enumerate(text.split("\n"), 1):
        if current.goes_on(line):
            continue
        current.close(items, wrong)
        current = _Entry()
        if match := _BULLET.fullmatch(line):
            current = _Entry(number, match[4] or "", scope, title, match)
        elif match := _HEADING.fullmatch(line):
            name = (match[2] or match[3]).strip()
            of_ours = name in SCOPES
            scope = name if of_ours else "family"
            # The first heading names the whole playbook, not its bullets.
            title = "" if of_ours or match[1] == "#" else name
        elif match := _PLAIN.fullmatch(line):
            current = _Entry(number, match[1].strip(), scope, title)
    current.close(items, wrong)
    return items, wrong


def _bullet(item: Reflection, bullet: str) -> str:
    plain = Reflection(id="", text="")
    tried = item.counters.helped + item.counters.harmed
    fields: dict[str, str] = {
        "title": item.title,
        "when": item.when,
        "not for": item.boundary,
        "kind": item.kind if item.kind != plain.kind else "",
        "polarity": item.polarity if item.polarity != plain.polarity else "",
        "status": item.status if item.status != plain.status else "",
        "shown": str(item.counters.shown) if item.counters.shown != tried else "",
        "value": "" if item.value is None else repr(item.value),
        "task": "" if item.task is None else json.dumps(item.task),
        "attempts": json.dumps(item.attempts) if item.attempts else "",
        "rival": item.rival,
    }
    counts = f"helpful={item.counters.helped} harmful={item.counters.harmed}"
    rows = [f"{bullet}[{_UNSAFE.sub('_', item.id) or '_'}] {counts} :: {_lines(item.text)}"]
    rows += [f"  {name}: {_lines(value)}" for name, value in fields.items() if value]
    return "\n".join(rows)


def _lines(text: str) -> str:
    return text.replace("\n", f"\n{_MORE}")


class _Entry:
    """A bullet while its lines are read."""

    def __init__(
        self,
        number: int = 0,
        text: str = "",
        scope: str = "family",
        title: str = "",
        match: re.Match[str] | None = None,
    ) -> None:
        self.number, self.ours, self.scope = number, match is not None, scope
        self.id = match[1] if match else f"line-{number}"
        self.counts = (int(match[2]), int(match[3])) if match else (0, 0)
        self.fields: dict[str, list[str]] = {"text": [text]}
        if title:
            self.fields["title"] = [title]
        self._last = "text"

    def goes_on(self, line: str) -> bool:
        """Whether a line belongs to this bullet; it is taken then."""
        if not self.number:
            return False
        if line.startswith(_MORE) and self.ours:
            self.fields[self._last].append(line.removeprefix(_MORE))
        elif self.ours and (match := _FIELD.fullmatch(line)):
            self._last = match[1]
            self.fields[self._last] = [match[2]]
        elif not self.ours and line.startswith("  ") and line.strip():
            self.fields["text"].append(line.strip())
        else:
            return False
        return True

    def close(self, items: list[Reflection], wrong: list[tuple[str, str]]) -> None:
        """Files what was read."""
        if not self.number:
            return
        try:
            items.append(self._item())
        except (DataError, ValueError, RecursionError) as error:
            wrong.append((f"line {self.number}", str(getattr(error, "what", error))[:200]))

    def _item(self) -> Reflection:
        said = {name: "\n".join(lines) for name, lines in self.fields.items()}
        if not said["text"].strip():
            raise DataError("it has no words")
        shown = _number(said["shown"]) if "shown" in said else sum(self.counts)
        data: dict[str, Any] = {
            "id": self.id,
            "text": said["text"],
            "scope": self.scope,
            "boundary": said.get("not for", ""),
            "counters": Counters(shown=shown, helped=self.counts[0], harmed=self.counts[1]),
            **{k: said[k] for k in ("title", "when", "kind", "polarity", "status", "rival") if k in said},
        }
        if "value" in said:
            data["value"] = float(said["value"])
            if not math.isfinite(data["value"]):
                raise DataError(f"its value {said['value']!r} is not a number")
        data |= {k: json.loads(said[k]) for k in ("task", "attempts") if k in said}
        return Reflection.from_dict(data)


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise DataError(f"{text[:40]!r} is not a count")
    return int(text)


def best_first(items: Sequence[Reflection]) -> list[Reflection]:
    """Items by what is known of them: believed ones first, then by helped less harmed, value and age."""
    return sorted(
        items,
        key=lambda r: (r.status != "active", r.counters.harmed - r.counters.helped, -(r.value or 0.0)),
    )


__all__ = ["SCOPES", "best_first", "read_playbook", "write_playbook"]
