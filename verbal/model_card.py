"""The model card beside trained weights: README.md in the form of the Hugging Face hub, and curves.svg.

The card says nothing of its own: all of it stands in the papers (`verbal.json`), so it is written again whenever they
grow (scores, decisions of the gate).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from verbal.errors import StoreError
from verbal.parts import load_function
from verbal.store import Store
from verbal.svg import ticks
from verbal.tables import VERDICTS, points
from verbal.text import clock, money, percent, visible

__all__ = ["card", "curves", "decision_papers", "keep", "recipe_toml", "thinned", "unwritten", "write_card"]

CURVES = (
    ("loss", "loss"), ("reward", "reward"), ("entropy", "entropy, nats a token"), ("kl", "KL to the start, nats"),
    ("tokens_per_second", "tokens a second"),
)  # fmt: skip
"""Figure of a step -> its name for people; in the order in which they are drawn."""

_STYLE = """text{font:12px system-ui,sans-serif;fill:#555}.name{font-weight:600;fill:#222}.grid{stroke:#ddd}
polyline{fill:none;stroke:#0b6e99;stroke-width:1.6}circle{fill:#0b6e99}rect{fill:#fff}@media(prefers-color-scheme:dark)
{text{fill:#aaa}.name{fill:#eee}.grid{stroke:#444}polyline{stroke:#6cc5e9}circle{fill:#6cc5e9}rect{fill:#1b1b1b}}"""


def write_card(folder: str | Path, papers: Mapping[str, Any]) -> Path:
    """Writes README.md, and curves.svg where steps were kept, beside the weights; gives the card's path.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = Path(folder)
    drawn = curves(papers.get("curve") or [])
    try:
        if drawn:
            _replace(folder / "curves.svg", drawn)
        _replace(folder / "README.md", card(papers, drawn=bool(drawn)))
    except OSError as error:
        raise unwritten(error, folder) from error
    return folder / "README.md"


def unwritten(error: BaseException, folder: str | Path) -> StoreError:
    """The error for weights or papers that the disk did not take."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip().splitlines()[0]
    what = f"the weights or their papers cannot be written: {told}"
    return StoreError(what, where=str(folder), todo="free some space, then repeat the command with --resume")


def keep(store: Store, name: str, more: Mapping[str, Any]) -> Path:
    """Adds to the papers of a registered checkpoint, in its folder and in the store; gives the card, written again.

    Raises:
        UnknownName: no such checkpoint. DataError: its files were changed. StoreError: they cannot be written.
    """
    folder = store.checkpoint(name)["path"]
    try:
        papers = load_function("trainers", "checkpoint", "amend")(folder, {"name": name, **more})
    except OSError as error:
        raise unwritten(error, folder) from error
    store.put_checkpoint(name, folder, papers)
    return write_card(folder, papers)


def card(papers: Mapping[str, Any], *, drawn: bool = False) -> str:
    """The model card of some papers, as Markdown with a YAML header; `drawn`: curves.svg stands beside it."""
    name = str(papers.get("name") or "trained weights")
    parts = [
        _header(papers), f"# {_line(name)}\n", _about(papers), _results(papers), _gates(papers),
        _training(papers, drawn), _data(papers), _limits(papers),
    ]  # fmt: skip
    if recipe := papers.get("recipe"):
        parts.append(f"## Recipe\n\n```toml\n{recipe_toml(recipe)}```\n")
    versions = [(k, v) for k, v in (papers.get("versions") or {}).items() if v]
    parts.append("## Versions\n\n" + _table(("package", "version"), versions))
    return "\n".join(part for part in parts if part)


def decision_papers(decision: Mapping[str, Any]) -> dict[str, Any]:
    """What the papers keep of a decision of the gate; every difference stays in the store under its id."""
    kept = ("id", "at", "verdict", "reason", "candidate", "incumbent", "gain", "used", "tasks", "dev_uses", "version")
    guard = decision.get("guard") or {}
    found = {k: decision[k] for k in kept if k in decision}
    return found | ({"guard": {k: guard[k] for k in ("passed", "reason", "tasks") if k in guard}} if guard else {})


def thinned(curve: Sequence[Mapping[str, Any]], most: int = 200) -> list[dict[str, Any]]:
    """At most so many steps of a curve, evenly, the first and the last included.

    >>> [p["step"] for p in thinned([{"step": i} for i in range(1, 10)], 3)]
    [1, 5, 9]
    """
    if len(curve) <= most:
        return [dict(point) for point in curve]
    return [dict(curve[round(i * (len(curve) - 1) / (most - 1))]) for i in range(most)]


def recipe_toml(recipe: Mapping[str, Any]) -> str:
    """A recipe (`Recipe.to_dict`) as TOML that `load_recipe` reads back; what is None is left out.

    >>> print(recipe_toml({"name": "a", "loop": {"rounds": 2, "timeout": None}}), end="")
    name = "a"
    <BLANKLINE>
    [loop]
    rounds = 2
    """
    plain = [f"{_key(k)} = {_value(v)}" for k, v in recipe.items() if not isinstance(v, Mapping) and v is not None]
    for name, table in recipe.items():
        if isinstance(table, Mapping):
            plain += ["", f"[{_key(name)}]"] + [f"{_key(k)} = {_value(v)}" for k, v in table.items() if v is not None]
    return "\n".join(plain) + "\n"


def curves(curve: Sequence[Mapping[str, Any]]) -> str:
    """The figures of the steps as one SVG picture, a panel each; empty when there are fewer than two steps."""
    panels = []
    for key, name in CURVES:
        read = [(float(p["step"]), float(p[key])) for p in curve if _finite(p.get(key)) and _finite(p.get("step"))]
        if len(read) > 1:
            panels.append((name, read))
    if not panels:
        return ""
    width, height, last = 720, 130, max(x for _, read in panels for x, _ in read)
    drawn = [_panel(name, read, last, at * height) for at, (name, read) in enumerate(panels)]
    size = f'viewBox="0 0 {width} {len(panels) * height + 6}" width="{width}" height="{len(panels) * height + 6}"'
    told = ", ".join(f"{name}: {read[0][1]:.3g} to {read[-1][1]:.3g}" for name, read in panels)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{told}"><style>{_STYLE}</style>'
    return f'{head}<rect width="100%" height="100%"/>{"".join(drawn)}</svg>\n'


def _panel(name: str, read: Sequence[tuple[float, float]], last: float, top: float) -> str:
    left, right, head, foot = 64.0, 704.0, top + 24, top + 106
    values = [v for _, v in read]
    low, high = min(values), max(values)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)

    def place(x: float, v: float) -> tuple[float, float]:
        return left + (right - left) * x / max(last, 1), foot - (foot - head) * (v - low) / (high - low)

    lines = ""
    for tick in ticks(low, high, 3):
        y = place(0, tick)[1]
        lines += f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        lines += f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in read))
    x, y = place(*read[-1])
    return (
        f'{lines}<text class="name" x="{left}" y="{top + 15:.0f}">{name}</text><polyline points="{line}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/><text x="{left}" y="{foot + 16:.0f}">step 0</text>'
        f'<text x="{right}" y="{foot + 16:.0f}" text-anchor="end">step {last:,.0f}, {_short(read[-1][1])}</text>'
    )


# sections -----------------------------------------------------------------------------------------------------------


def _header(papers: Mapping[str, Any]) -> str:
    base = str(papers.get("base") or "")
    lines = ["---", f"library_name: {'transformers' if papers.get('kind') == 'huggingface' else 'verbal'}"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists():
        lines.append(f"base_model: {json.dumps(base)}")
    lines += [
        "license: other",
        "license_name: depends-on-the-models-and-data-of-origin",
        "pipeline_tag: text-generation",
    ]
    tags = ["verbal", "trl", *([str(papers["method"])] if papers.get("method") else [])]
    return "\n".join([*lines, f"tags: {json.dumps(tags)}", "---", ""])


def _about(papers: Mapping[str, Any]) -> str:
    name, base = papers.get("name"), _line(papers.get("base") or "a model")
    told = (papers.get("about") or {}).get("method", "")
    text = (
        f"`{base}`, trained with **{_line(papers.get('method'))}** on {papers.get('rows', 0):,} rows of "
        f"{papers.get('tasks', 0):,} tasks that an agent worked on. {_line(told, 600)}\n"
    )
    if name:
        model, role = f"--model checkpoint:{name}", papers.get("role", "solver")
        asks = f'verbal ask DATABASE "..." {model}\nverbal promote {model}'
        text += (
            f"\n```\n{asks if role == 'solver' else f'verbal learn --set model.roles.{role}=checkpoint:{name}'}\n```\n"
        )
    return text


def _results(papers: Mapping[str, Any]) -> str:
    scores = papers.get("scores") or {}
    if "before" not in scores:
        return "## Before and after\n\nNot measured.\n"
    rows = [(f"{when} training", _share(scores[when])) for when in ("before", "after") if scores.get(when)]
    if gain := scores.get("gain"):
        rows.append(
            ("difference, points", f"**{points(gain['mean'])}** [{points(gain['low'])}, {points(gain['high'])}]")
        )
    text = _table(("weights", "solved, 95 % interval"), rows)
    return (
        f"## Before and after\n\n{text}\n{scores['tasks']} tasks of the app `{_line(scores['app'])}`, split "
        f"`{_line(scores['split'])}`, none of which was trained on; one greedy attempt a task, no memory.\n"
    )


def _gates(papers: Mapping[str, Any]) -> str:
    if not (gates := papers.get("gates")):
        return "## Evidence gate\n\nNot asked yet: a candidate, which serves nobody.\n"
    rows = []
    for gate in gates:
        gain = gate.get("gain") or {}
        told = f"{points(gain.get('mean'))} [{points(gain.get('low'))}, {points(gain.get('high'))}]"
        guard = (
            {True: "held", False: "broken", None: "open"}[gate["guard"].get("passed")] if gate.get("guard") else "none"
        )
        verdict = VERDICTS.get(gate.get("verdict"), ("?", str(gate.get("verdict"))))[1]
        pair = f"{_line(gate.get('candidate'))} over {_line(gate.get('incumbent'))}"
        used = f"{gate.get('used', '–')} of {gate.get('tasks', '–')}"
        rows.append((gate.get("id", "–"), f"**{verdict}**", pair, told, used, guard, _line(gate.get("reason"), 400)))
    heads = ("decision", "verdict", "candidate over incumbent", "gain, points", "tasks used", "guard", "reason")
    return f"## Evidence gate\n\n{_table(heads, rows)}"


def _training(papers: Mapping[str, Any], drawn: bool) -> str:
    usage = papers.get("usage") or {}
    rows: list[tuple[Any, ...]] = [
        ("method", f"`{_line(papers.get('method'))}`"),
        ("source", _line((papers.get("about") or {}).get("source") or "–", 600)),
        ("seed", papers.get("seed", "–")),
        *((k, f"{papers[k]:,}") for k in ("steps", "tokens") if isinstance(papers.get(k), int | float)),
        ("seconds", f"{papers.get('total_seconds', papers.get('seconds', 0)):,.0f}"),
        ("device", papers.get("device", "–")),
    ]
    if usage:
        rows.append(("cost", "; ".join(f"{r}: {clock(u['seconds'])}, {money(u['cost'])}" for r, u in usage.items())))
    text = f"## Training\n\n{_table(('what', ''), rows)}"
    if points_ := thinned(papers.get("curve") or [], 8):
        keys = [(k, n) for k, n in CURVES if any(_finite(p.get(k)) for p in points_)]
        lines = [
            (f"{p.get('step', 0):g}", *(f"{p[k]:.4g}" if _finite(p.get(k)) else "–" for k, _ in keys)) for p in points_
        ]
        text += "\n![curves of the training](curves.svg)\n" if drawn else ""
        text += "\n" + _table(("step", *(name for _, name in keys)), lines)
    return text


def _data(papers: Mapping[str, Any]) -> str:
    def listed(key: str, none: str) -> str:
        return ", ".join(f"`{_line(v)}`" for v in papers.get(key) or ()) or none

    origins = ", ".join(f"{n} {_line(origin)}" for origin, n in (papers.get("origins") or {}).items())
    left_out = "; ".join(f"{_line(reason)}: {n}" for reason, n in (papers.get("filtered") or {}).items())
    rows = [
        ("rows", f"{papers.get('rows', 0):,}" + (f" ({origins})" if origins else "")),
        ("tasks", f"{papers.get('tasks', 0):,}"),
        ("runs", listed("runs", "not told")),
        ("attempts they come from", f"{len(papers.get('attempts') or ()):,}"),
        ("SHA-256 of the rows", f"`{papers.get('rows_sha256', 'not told')}`"),
        ("rows that a gold answer decided", papers.get("oracle_rows", "not told")),
        ("critics that decided", listed("critics", "none")),
        ("models that wrote the answers", listed("models", "not told")),
        ("licences of the tasks", listed("licences", "not told")),
        ("left out", left_out or "not told"),
    ]
    return f"## Data\n\n{_table(('what', ''), rows)}\nTasks of the sealed split `test` are in no row.\n"


def _limits(papers: Mapping[str, Any]) -> str:
    app = _line(((papers.get("recipe") or {}).get("app") or {}).get("name") or "the app it was trained on")
    lines = [
        f"* Meant for tasks of `{app}` like those it was trained on. On others, and in general skill, it may have "
        "become worse: what training changes beside its tasks is only known where a guard set was asked.",
        "* It serves nobody until the evidence gate accepted it (above). Before and after on one split is no claim.",
        "* The answers it learned from were written by the models and judged by the critics above: it shares their "
        "errors.",
    ]
    if papers.get("kind") == "embedded":
        lines.append("* The embedded model reads English questions, one database at a time, and writes SELECT only.")
    lines.append(
        "* Licence: the terms of the base model, of the models that wrote the rows (some providers forbid training on "
        "their output), of the questions and of the database decide what may be done with these weights."
    )
    return "## Limits and intended use\n\n" + "\n".join(lines) + "\n"


# words --------------------------------------------------------------------------------------------------------------


def _share(found: Mapping[str, float]) -> str:
    return f"{percent(found['mean'])} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |\n" for line in lines)


def _line(text: object, limit: int = 120) -> str:
    """Text of data in one line of Markdown, shown and not obeyed."""
    return visible(text, limit, line=True).replace("`", "'").replace("<", "&lt;")


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    """A value in TOML's words."""
    if isinstance(value, Mapping):
        pairs = [f"{_key(str(k))} = {_value(v)}" for k, v in value.items() if v is not None]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _replace(path: Path, text: str) -> None:
    """Writes a whole file or nothing."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
