"""The figures of a run as Vega-Lite specifications with their data inside: one for each plot of its page.

The specification is the figure: SVG and PNG are drawn from it (`verbal.figure_files`), and any tool that reads
Vega-Lite can change it. Colours are those of the page in its light form; a picture has a white ground, so that it can
stand in a paper or in a README.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from verbal.sections import arm_kind
from verbal.tables import ENDLESS, number
from verbal.text import visible

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
"""Form of the specifications; they use nothing that version 6 reads otherwise."""
GATES = 5
"""Decisions of the gate that are drawn: the latest."""
_WIDE, _HIGH = 640, 320
_COLORS = {"control": "#6a7685", "memory": "#0b7a75", "weights": "#6250b5", "both": "#1d5fbf", "bad": "#b3382c"}
_FONT = "system-ui, Segoe UI, Roboto, Liberation Sans, Arial, sans-serif"
_PERCENT = {"format": "%", "grid": True}
_WHOLE = {"format": ",d", "grid": False}
_NAMED = re.compile(r"[^a-z0-9]+")


def figures(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name (of a file) -> specification, of every plot that the results of a run have data for.

    Args:
        results: What `verbal.report.page` shows.
    """
    made: dict[str, dict[str, Any] | None] = {
        "arms": _arms(results.get("arms") or ()),
        "differences": _differences(results.get("differences") or ()),
        "attempts": _lines(results.get("attempt_curves") or (), "What more attempts bring", "attempts allowed"),
        "learning": _lines(results.get("learning_curves") or _told(results), "While learning", "tasks worked through"),
        "lessons": _lessons(results.get("lesson_counts") or ()),
        "two_by_two": _square(results.get("two_by_two") or {}),
        "cost_gain": _cost_gain(results.get("cost_gain") or ()),
        "cost": _usage(results.get("usage") or {}),
        "training": _training((results.get("training") or {}).get("curve") or ()),
    }
    for decision in list(results.get("gates") or ())[-GATES:]:
        name = _NAMED.sub("-", str(decision.get("id") or decision.get("proposal") or "").lower()).strip("-")
        made[f"gate-{name.removeprefix('gate-') or 'decision'}"] = _wealth(decision)
    return {name: spec for name, spec in made.items() if spec is not None}


def _spec(title: str, rows: Sequence[Mapping[str, Any]], *, high: int = _HIGH, **more: Any) -> dict[str, Any]:
    return {
        "$schema": SCHEMA, "title": visible(title, 120, line=True), "width": _WIDE, "height": high,
        "background": "#ffffff", "padding": 16, "data": {"values": [_finite(r) for r in rows]}, **more,
        "config": {
            "font": _FONT, "view": {"stroke": None},
            "title": {"anchor": "start", "fontSize": 17, "fontWeight": 600, "color": "#17202b", "offset": 14},
            "axis": {"labelColor": "#55606e", "titleColor": "#55606e", "gridColor": "#dfe3e8", "domain": False,
                     "tickColor": "#dfe3e8", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 400,
                     "labelLimit": 260, "tickCount": 5},
            "legend": {"orient": "top", "title": None, "labelFontSize": 13, "symbolType": "stroke", "labelLimit": 260,
                       "symbolOpacity": 1, "symbolStrokeWidth": 2.5, "symbolSize": 320},
        },
    }  # fmt: skip


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row that JSON can hold: a number times 100 may be without end."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _color(arm: object) -> str:
    return _COLORS[arm_kind(arm).removeprefix("c-")]


def _name(value: object) -> str:
    return visible("–" if value is None else value, 80, line=True)


def _scale(names: Sequence[str], colors: Sequence[str]) -> dict[str, Any]:
    return {"scale": {"domain": list(names), "range": list(colors)}}


def _ranges(rows: Sequence[Mapping[str, Any]], title: str, axis: Mapping[str, Any], *, zero: bool) -> dict[str, Any]:
    """Dots with whiskers, one row each."""
    order = [r["name"] for r in rows]
    y = {"field": "name", "type": "nominal", "sort": order, "title": None, "axis": {"grid": False}}
    color = {"field": "color", "type": "nominal", "scale": None}
    x = {"field": "mean", "type": "quantitative", "title": title, "axis": {"grid": True, **axis}}
    layers: list[dict[str, Any]] = []
    if zero:
        rule = {"mark": {"type": "rule", "color": "#55606e"}, "encoding": {"x": {"datum": 0, "type": "quantitative"}}}
        layers.append(rule)
    ends = {"x": {"field": "low", "type": "quantitative", "title": title}, "x2": {"field": "high"}}
    layers.append({"mark": {"type": "rule", "strokeWidth": 2.5}, "encoding": {**ends, "y": y, "color": color}})
    layers.append(
        {"mark": {"type": "point", "filled": True, "size": 130, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": color}}
    )  # fmt: skip
    return {"layer": layers}


def _arms(arms: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    rows = [
        {"name": _name(a.get("label") or a.get("name")), "mean": mean, "low": number(a.get("low")),
         "high": number(a.get("high")), "color": _color(a.get("name"))}
        for a in arms if (mean := number(a.get("mean"))) is not None
    ]  # fmt: skip
    if not rows:
        return None
    axis = {**_PERCENT, "values": [0, 0.25, 0.5, 0.75, 1]}
    made = _ranges(rows, "share of tasks solved, 95 % interval", axis, zero=False)
    made["layer"][-1]["encoding"]["x"]["scale"] = {"domain": [0, 1]}
    return _spec("How much it solves", rows, high=56 * len(rows), **made)


def _differences(items: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    rows = []
    for item in items:
        mean, low, high = (number(item.get(k)) for k in ("mean", "low", "high"))
        if mean is not None:
            color = "control"
            if low is not None and high is not None:
                color = "memory" if low > 0 else "bad" if high < 0 else "control"
            ends = {k: None if v is None else 100 * v for k, v in (("low", low), ("high", high))}
            rows.append({"name": _name(item.get("name")), "mean": 100 * mean, **ends, "color": _COLORS[color]})
    if not rows:
        return None
    made = _ranges(rows, "difference in points, 95 % interval", {"format": "+.4~g"}, zero=True)
    return _spec("What made the difference", rows, high=56 * len(rows), **made)


def _told(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The learning curve of `verbal demo`, which has no interval."""
    points = [
        {"x": p["tasks"], "y": p["share"]} for p in results.get("curve") or () if number(p.get("share")) is not None
    ]
    return [{"arm": "first", "label": "first attempt", "points": points}] if points else []


def _lines(curves: Sequence[Mapping[str, Any]], title: str, across: str) -> dict[str, Any] | None:
    """Lines with the bands of their intervals."""
    rows, names, colors = [], [], []
    for curve in curves:
        name = _name(curve.get("label") or curve.get("arm"))
        names.append(name)
        colors.append({"first": _COLORS["control"], "within": _COLORS["memory"]}.get(str(curve.get("arm")))
                      or _color(curve.get("arm")))  # fmt: skip
        for p in curve.get("points") or ():
            if (y := number(p.get("y"))) is not None:
                rows.append({"line": name, "x": number(p.get("x")), "share": y, "low": number(p.get("low")),
                             "high": number(p.get("high"))})  # fmt: skip
    if not rows:
        return None
    few = list(dict.fromkeys(r["x"] for r in rows)) if across.startswith("attempts") else []
    whole = {**_WHOLE, **({"values": few} if few else {})}
    x = {"field": "x", "type": "quantitative", "title": across, "axis": whole, "scale": {"zero": not few}}
    color = {"field": "line", "type": "nominal", **_scale(names, colors)}
    dash = {"field": "line", "type": "nominal", "scale": {"domain": names, "range": _dashes(colors)}}
    share = {"type": "quantitative", "title": "share solved", "scale": {"domain": [0, 1]}, "axis": _PERCENT}
    band = {"x": x, "y": {"field": "low", **share}, "y2": {"field": "high"}, "color": color}
    line = {"x": x, "y": {"field": "share", **share}, "color": color, "strokeDash": dash}
    dots = {"x": x, "y": {"field": "share", **share}, "color": color}
    return _spec(
        title, rows,
        layer=[
            {"mark": {"type": "area", "opacity": 0.14}, "encoding": band},
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": line},
            {"mark": {"type": "point", "filled": True, "size": 36, "opacity": 1}, "encoding": dots},
        ],
    )  # fmt: skip


def _dashes(colors: Sequence[str]) -> list[list[int]]:
    """Lines of one colour are told apart by their dashes."""
    forms, seen = ([1, 0], [7, 4], [2, 4]), dict[str, int]()
    found = []
    for color in colors:
        found.append(forms[min(seen.get(color, 0), 2)])
        seen[color] = seen.get(color, 0) + 1
    return found


def _lessons(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    rows = [
        {"x": number(p.get("x")), "lessons": number(p.get(key)), "line": name}
        for p in counts for key, name in (("active", "believed"), ("quarantined", "on trial"))
    ]  # fmt: skip
    if not rows:
        return None
    color = {"field": "line", "type": "nominal", **_scale(["believed", "on trial"], [_COLORS["memory"], "#6a7685"])}
    x = {"field": "x", "type": "quantitative", "title": "tasks worked through", "axis": _WHOLE}
    y = {"field": "lessons", "type": "quantitative", "title": "lessons", "axis": {"format": ",d", "tickMinStep": 1}}
    mark = {"type": "line", "strokeWidth": 2, "point": {"filled": True, "size": 36}}
    return _spec("Lessons", rows, high=200, mark=mark, encoding={"x": x, "y": y, "color": color})


def _wealth(decision: Mapping[str, Any]) -> dict[str, Any] | None:
    """The wealth of the bet after each task on a log scale, and what is needed."""
    rows: list[dict[str, float]] = [
        {"task": at, "wealth": wealth}
        for at, told in enumerate(decision.get("wealth") or (), 1)
        if (wealth := number(told)) is not None and 0 < wealth < ENDLESS
    ]
    if not rows:
        return None
    rows = [{"task": 0, "wealth": 1.0}, *rows]
    needed = number(decision.get("threshold"))
    top = max(needed or 1.0, 10.0) * 1000  # wealth far beyond what decides would press the rest flat
    low, high = min(r["wealth"] for r in rows), max([needed or 1.0, *(r["wealth"] for r in rows)])
    powers = [10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(min(high, top))) + 1)]
    scale = {"type": "log", "domain": [powers[0], powers[-1]], "clamp": True}
    x = {"field": "task", "type": "quantitative", "title": "tasks", "axis": {**_WHOLE, "tickMinStep": 1}}
    axis = {"values": powers[:: -(-len(powers) // 8)], "format": "~g"}
    y = {"field": "wealth", "type": "quantitative", "title": "wealth (log)", "scale": scale, "axis": axis}
    point = {"filled": True, "size": 36, "color": _COLORS["memory"]} if len(rows) <= 60 else False
    mark = {"type": "line", "strokeWidth": 2, "color": _COLORS["memory"], "point": point}
    layers: list[dict[str, Any]] = [{"mark": mark, "encoding": {"x": x, "y": y}}]
    if needed is not None and 0 < needed < ENDLESS:
        rule = {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": "#17202b"}
        at = {"y": {"field": "needed", "type": "quantitative", "scale": scale}}
        text = {"type": "text", "align": "left", "dx": 6, "dy": -8, "text": f"{needed:,.4g} needed", "fontSize": 12}
        own = {"data": {"values": [{"needed": needed}]}}
        layers += [
            {**own, "mark": rule, "encoding": at},
            {**own, "mark": text, "encoding": {**at, "x": {"value": 0}}},
        ]
    verdict = {"accept": "accepted", "reject": "rejected", "need_more": "needs more"}.get(
        str(decision.get("verdict")), _name(decision.get("verdict"))
    )
    title = f"{_name(decision.get('candidate'))}: {verdict}"
    return _spec(title, rows, layer=layers)


def _square(square: Mapping[str, Any]) -> dict[str, Any] | None:
    rows = [
        {"weights": f"{c['weights']} weights", "memory": f"memory {c['memory']}", "mean": c["mean"],
         "told": f"{100 * c['mean']:.1f} %", "ends": f"[{100 * c['low']:.1f}, {100 * c['high']:.1f}]"}
        for c in square.get("cells") or ()
    ]  # fmt: skip
    if not rows:
        return None
    above = {"orient": "top", "labelAngle": 0}
    x = {"field": "memory", "type": "nominal", "title": None, "sort": None, "axis": above}
    y = {"field": "weights", "type": "nominal", "title": None, "sort": None}
    fill = {"field": "mean", "type": "quantitative", "legend": None,
            "scale": {"domain": [0, 1], "range": ["#f3f8f7", "#3c9a94"]}}  # fmt: skip
    both = {"x": x, "y": y}
    return _spec(
        "Memory and weights", rows, high=260,
        layer=[
            {"mark": {"type": "rect", "stroke": "#ffffff", "strokeWidth": 8}, "encoding": {**both, "color": fill}},
            {"mark": {"type": "text", "fontSize": 26, "fontWeight": 600, "dy": -8},
             "encoding": {**both, "text": {"field": "told"}}},
            {"mark": {"type": "text", "fontSize": 13, "dy": 20}, "encoding": {**both, "text": {"field": "ends"}}},
        ],
    )  # fmt: skip


def _cost_gain(arms: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    paid = any((number(a.get("cost")) or 0) > 0 for a in arms)
    rows = [
        {"name": _name(a.get("name")), "spent": spent, "gain": 100 * gain,
         **{k: None if (v := number(a.get(k))) is None else 100 * v for k in ("low", "high")},
         "color": _color(a.get("arm") or a.get("name"))}
        for a in arms
        if (spent := number(a.get("cost" if paid else "tokens"))) is not None
        and (gain := number(a.get("gain"))) is not None
    ]  # fmt: skip
    if not rows:
        return None
    for row in rows:
        # Arms that stand in the same place have one label.
        same = [r for r in rows if (r["spent"], r["gain"]) == (row["spent"], row["gain"])]
        row["label"] = ", ".join(str(r["name"]) for r in same) if row is same[0] else ""
    form = {"format": "$,.4~g" if paid else "s"}
    x = {"field": "spent", "type": "quantitative", "title": "US dollars" if paid else "tokens", "axis": form}
    y = {"type": "quantitative", "title": "gain over base, in points"}
    color = {"field": "color", "type": "nominal", "scale": None}
    ends = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": color}
    dot = {"x": x, "y": {**y, "field": "gain"}, "color": color}
    return _spec(
        "What a gain costs", rows,
        layer=[
            {"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6}, "encoding": ends},
            {"mark": {"type": "point", "filled": True, "size": 130, "opacity": 1}, "encoding": dot},
            {"mark": {"type": "text", "align": "left", "dx": 9, "dy": -9, "fontSize": 12},
             "encoding": {**dot, "text": {"field": "label"}}},
        ],
    )  # fmt: skip


def _usage(usage: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    paid = any((number(u.get("cost")) or 0) > 0 for u in usage.values())
    rows = [
        {"role": _name(role), "cost": number(u.get("cost")), "calls": u.get("calls"),
         "tokens": int(u.get("prompt_tokens") or 0) + int(u.get("completion_tokens") or 0)}
        for role, u in usage.items()
    ]  # fmt: skip
    if not rows:
        return None
    field = "cost" if paid else "tokens"
    x = {"field": field, "type": "quantitative", "title": "US dollars" if paid else "tokens"}
    y = {"field": "role", "type": "nominal", "title": None, "sort": "-x"}
    mark = {"type": "bar", "color": _COLORS["both"], "height": {"band": 0.55}}
    return _spec("What it cost, by role", rows, high=44 * len(rows), mark=mark, encoding={"x": x, "y": y})


def _training(curve: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    names = ("loss", "reward", "entropy", "kl")
    rows = [
        {"step": step, "figure": name, "value": value}
        for p in curve for name in names
        if (value := number(p.get(name))) is not None and (step := number(p.get("step"))) is not None
    ]  # fmt: skip
    if not rows:
        return None
    spec = _spec("The training", rows)
    inner = {
        "width": _WIDE, "height": 150, "mark": {"type": "line", "color": _COLORS["weights"], "strokeWidth": 2},
        "encoding": {
            "x": {"field": "step", "type": "quantitative", "title": "step", "axis": {"grid": False}},
            "y": {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}},
        },
    }  # fmt: skip
    del spec["width"], spec["height"]
    facet = {"row": {"field": "figure", "type": "nominal", "title": None, "sort": list(names)}}
    return {**spec, "facet": facet, "spec": inner, "resolve": {"scale": {"y": "independent"}}}


__all__ = ["GATES", "SCHEMA", "figures"]
