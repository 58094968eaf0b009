"""A conversation as Markdown, for people. Texts stay as they are; what was said is quoted, so that it stays apart."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from verbal.text import money

from .turn import Turn


def markdown(run: Mapping[str, Any], turns: Sequence[Turn]) -> str:
    """The turns with their lessons, tools and corrections."""
    title = str(run["info"].get("title") or run["id"])
    lines = [f"# {_line(title)}", "", f"Conversation {run['id']}, {run['info'].get('model', '')}".rstrip(", "), ""]
    for turn in turns:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(turn.at))
        replaced = f", replaced by {turn.replaced}" if turn.replaced else ""
        lines += [f"## {turn.id} ({at}{replaced})", "", *(f"> {part}" for part in turn.text.splitlines()), ""]
        lines += [turn.reply, ""] if turn.reply else []
        if turn.reason:
            lines += [f"*{turn.status}: {_line(turn.reason)}*", ""]
        notes = [f"used {x.get('alias', x['id'])}: {_line(x['text'])}" for x in turn.lessons if x["used"]]
        notes += [f"called {t['name']}({_line(t['arguments'])})" for t in turn.tools]
        notes += ["in the person's own words"] if turn.edited else []
        notes += [
            f"{c['kind']}{', taken back' if c['undone'] else ''}{': ' if c['words'] else ''}{_line(c['words'])}"
            for c in turn.corrections
        ]
        if turn.usage.get("calls"):
            used = turn.usage
            notes.append(f"{used['tokens']:,} tokens, {money(used['cost'])}, {used['seconds']:.1f} s")
        lines += [*(f"- {note}" for note in notes), ""] if notes else []
    return "\n".join(lines).rstrip() + "\n"


def _line(text: str) -> str:
    return " ".join(str(text).split())


__all__ = ["markdown"]
