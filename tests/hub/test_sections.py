"""The evidence on the page: each section's words and marks, odd numbers, hostile text, lists that are cut."""

from __future__ import annotations

import copy
import html
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.errors import DataError
from verbal.report import MAX_BYTES, page
from verbal.sections import OPEN

GUARD = {"name": "old tasks", "tasks": 40, "mean": 0.004, "low": -0.018, "high": 0.026, "margin": 0.03, "passed": True}
GATE: dict[str, Any] = {
    "id": "g-7f21",
    "at": "2026-03-04T13:20:31+02:00",
    "candidate": "memory of 14 lessons",
    "incumbent": "no memory",
    "verdict": "accept",
    "reason": "After 5 tasks the wealth reached 61.3.",
    "margin": 0.02,
    "alpha": 0.025,
    "fdr": 0.1,
    "threshold": 60.0,
    "proposal": 2,
    "accepted_before": 1,
    "dev_uses": 3,
    "tasks": 8,
    "used": 5,
    "left_out": 1,
    "gain": {"mean": 0.182, "low": 0.041, "high": 0.31},
    "wealth": [1.4, 0.5, 10.0, 20.0, 61.3],
    "guard": {**GUARD, "reason": "The loss is small."},
    "cost": {"calls": 120, "prompt_tokens": 4000, "completion_tokens": 800, "cost": 0.0834, "seconds": 61.0},
}
VERSIONS: list[dict[str, Any]] = [
    {"number": 1, "at": "2026-03-04T11:21:00", "action": "promote", "policy": "14 lessons", "evidence": "g-7f21"},
    {"number": 2, "at": "2026-03-04T12:31:00", "action": "promote", "policy": "21 lessons", "evidence": ""},
    {"number": 3, "at": "2026-03-05T08:05:00", "action": "rollback", "policy": "14 lessons", "active": True},
]
SEALED = [{"version": 1, "at": "2026-03-05", "run": "run-a91", "mean": 0.641, "low": 0.57, "high": 0.71, "tasks": 120}]
COSTS: list[dict[str, Any]] = [
    {"name": "base", "cost": 0.04, "tokens": 61_200, "calls": 120, "gain": 0.0, "low": None, "high": None},
    {
        "name": "With memory",
        "arm": "memory",
        "cost": 0.12,
        "tokens": 182_311,
        "calls": 241,
        "gain": 0.4,
        "low": 0.33,
        "high": 0.49,
    },
    {"name": "distilled", "cost": None, "tokens": 99_000, "calls": 120, "gain": 0.22, "low": 0.12, "high": 0.31},
]
USAGE = {
    "solver": {"calls": 190, "prompt_tokens": 100, "completion_tokens": 20, "cost": 0.3, "seconds": 41.2},
    "reflector": {"calls": 51, "prompt_tokens": 70, "completion_tokens": 10, "cost": 0.08, "seconds": 9.0},
}
ESTIMATE = {"calls_low": 220, "calls_high": 260, "cost_low": 0.31, "cost_high": 0.44, "minutes_low": 5}
HOSTILE = '</svg><script>alert(1)</script>"\' onload="x() \x1b[2J\u202e'


def drawn(**results: Any) -> str:
    """The page's main part."""
    text = page({"title": "t", **results})
    return text[text.index("<main") : text.index("</main>")]


def words(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def labels(markup: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'aria-label="([^"]*)"', markup)]


def test_a_decision_says_what_why_and_on_what_it_rests() -> None:
    text = words(drawn(gates=[GATE]))
    for part in (
        "✓ accepted memory of 14 lessons over no memory After 5 tasks the wealth reached 61.3.",
        "Wealth 61.3 after 5 tasks, 60 needed",
        "60 needed",
        "Gain above +2.0 points",
        "+18.2 [+4.1, +31.0]",
        "Guard: old tasks ✓ held on 40 tasks, may lose at most 3 points +0.4 [−1.8, +2.6]",
        "proposal 2, 1 accepted before",
        "dev set used 3 times",
        "tasks used 5 of 8, 1 left out",
        "error allowed 2.5 %, 10 % of all accepted",
        "cost 120 calls, $0.0834",
        "decided 2026-03-04 11:20 UTC",
        "id g-7f21",
        "All numbers",
    ):
        assert part in text, part
    assert "decisions," not in text


def test_a_decision_can_be_read_without_seeing_it() -> None:
    said = labels(drawn(gates=[GATE]))
    assert "Wealth over 5 tasks on a log scale: highest 61.3, at the end 61.3, 60 needed" in said
    assert "Gain: +18.2 points, interval [+4.1, +31.0], above +2.0 points" in said
    assert any(s.startswith("Guard: old tasks: +0.4 points on 40 tasks") and s.endswith("✓ held") for s in said)
    rows = re.findall(r"<tbody><tr>(.*?)</tr>", drawn(gates=[GATE]))
    assert [words(r) for r in rows] == [
        "memory of 14 lessons accepted +18.2 [+4.1, +31.0] 61.3 60 −1.8 or more 5",
    ]


@pytest.mark.parametrize(
    ("verdict", "sign", "word", "kind"),
    [
        ("accept", "✓", "accepted", "accept"),
        ("reject", "✗", "rejected", "reject"),
        ("need_more", "…", "needs more", "more"),
        ("maybe", "?", "maybe", "more"),
        (None, "?", "undecided", "more"),
    ],
)
def test_a_verdict_is_a_word_and_a_sign_beside_its_colour(verdict: Any, sign: str, word: str, kind: str) -> None:
    markup = drawn(gates=[{**GATE, "verdict": verdict}])
    assert f'<span class="verdict {kind}"><i aria-hidden="true">{sign}</i>{word}</span>' in markup


def test_wealth_is_drawn_on_a_log_scale_with_its_threshold() -> None:
    markup = drawn(gates=[{**GATE, "wealth": [10.0, 0.1, 100.0, 1.0], "threshold": 10.0, "tasks": 4, "used": 4}])
    # from 0.1 at the bottom to 100 at the top: 1, 10, 0.1, 100 and 1 again
    assert 'points="0.00,66.67 25.00,33.33 50.00,100.00 75.00,0.00 100.00,66.67"' in markup
    assert '<line class="limit" x1="0" x2="100%" y1="33.33%" y2="33.33%"/>' in markup
    assert re.findall(r'class="y"[^>]*>([^<]*)<', markup) == ["0.1", "1", "10", "100"]


def test_wealth_without_end_stands_at_the_edge_and_no_number_is_a_gap() -> None:
    markup = drawn(gates=[{**GATE, "wealth": [0.0, None, math.nan, math.inf], "tasks": 4}])
    points = re.findall(r'<polyline points="([^"]*)"', markup)
    assert points == ["0.00,100.00 25.00,100.00 100.00,0.00"]
    assert "Wealth ∞ after 4 tasks, 60 needed" in words(markup)


def test_huge_wealth_has_few_marks_and_a_long_walk_few_points() -> None:
    markup = drawn(gates=[{**GATE, "wealth": [10.0 ** (i / 10) for i in range(2500)], "threshold": 1e248}])
    marks = re.findall(r'class="y"[^>]*>([^<]*)<', markup)
    assert len(marks) <= 6 and marks[-1] == "10²⁵²" and marks[0] == "1"
    points = re.findall(r'<polyline points="([^"]*)"', markup)[0].split()
    assert len(points) <= 120 and points[-1].startswith("100.00,")


def test_wealth_far_beyond_what_decides_does_not_press_the_rest_flat() -> None:
    markup = drawn(gates=[{**GATE, "wealth": [2.0, 50.0, 1e300], "tasks": 3, "threshold": 60.0}])
    assert re.findall(r'class="y"[^>]*>([^<]*)<', markup) == ["1", "10", "100"]
    assert re.findall(r'<polyline points="([^"]*)"', markup)[0].endswith(" 100.00,0.00")
    assert "Wealth ∞ after 3 tasks" in words(markup)
    lost = drawn(gates=[{**GATE, "wealth": [0.5, 1e-30], "tasks": 2}])
    assert re.findall(r'<polyline points="([^"]*)"', lost)[0].endswith(" 100.00,100.00")
    assert "Wealth 1e-30 after 2 tasks" in words(lost)


def test_reasons_read_as_sentences_and_are_said_once() -> None:
    guard = {
        "name": "guard",
        "passed": False,
        "tasks": 9,
        "used": 7,
        "reason": "it loses more than 2 points",
        "margin": -0.02,
    }
    said = f"it is better: +18.2 points, but the guard does not pass: {guard['reason']}"
    text = words(drawn(gates=[{**GATE, "reason": said, "guard": guard}]))
    assert "It is better: +18.2 points, but the guard does not pass: it loses more than 2 points." in text
    assert "Guard ✗ broken on 7 tasks, may lose at most 2 points –" in text
    alone = words(drawn(gates=[{**GATE, "guard": guard}]))
    assert "Guard ✗ broken on 7 tasks, may lose at most 2 points. It loses more than 2 points." in alone


def test_before_the_first_task_the_widest_interval_does_not_set_the_axis() -> None:
    gate = {**GATE, "wealth": [], "gain": {"mean": None, "low": -1.0, "high": 1.0}}
    ticks = words(re.findall(r'<li class="row axis".*?</li>', drawn(gates=[gate]))[0])
    assert "0 " in ticks and "100" not in ticks


def test_stopping_early_leaves_room_unless_nearly_nothing_was_used() -> None:
    assert 'points="0.00,' in (early := drawn(gates=[{**GATE, "wealth": [2.0, 4.0], "tasks": 8}]))
    assert " 25.00," in early
    assert " 100.00," in drawn(gates=[{**GATE, "wealth": [2.0, 4.0], "tasks": 9}])


@pytest.mark.parametrize(
    ("margin", "low", "high", "word"),
    [
        (0.0, 0.01, 0.3, "above zero"),
        (0.02, 0.01, 0.3, "not shown to be above +2.0 points"),
        (None, -0.1, 0.3, "cannot be told from zero"),
        (0.0, -0.3, -0.1, "below zero"),
        (0.02, -0.3, 0.01, "below +2.0 points"),
        (0.0, None, None, "cannot be told from zero"),
    ],
)
def test_a_gain_is_told_in_words(margin: Any, low: Any, high: Any, word: str) -> None:
    gate = {**GATE, "margin": margin, "gain": {"mean": 0.0, "low": low, "high": high}, "guard": None}
    assert f"Gain {word} " in words(drawn(gates=[gate]))


@pytest.mark.parametrize(
    ("passed", "word", "kind"),
    [(True, "✓ held", "c-memory"), (False, "✗ broken", "c-bad"), (None, "… open", "c-control")],
)
@pytest.mark.parametrize("margin", [0.03, -0.03])
def test_a_guard_shows_where_it_breaks(passed: Any, word: str, kind: str, margin: float) -> None:
    gate = {**GATE, "margin": 0.0, "gain": {"mean": 0.0, "low": -0.1, "high": 0.1}}
    markup = drawn(gates=[{**gate, "guard": {**GUARD, "passed": passed, "margin": margin}}])
    assert f"{word} on 40 tasks, may lose at most 3 points" in words(markup)
    row = markup[markup.index(f'<li class="row {kind}"><div class="name"><b>Guard') :]
    # one axis from −11.2 to +11.2 points: 3 points below zero stand at 36.61 %
    assert '<line class="limit" x1="36.61%" x2="36.61%"' in row


def test_a_decision_of_which_little_is_known_is_dashes_not_zeros() -> None:
    text = words(drawn(gates=[{"verdict": "need_more"}]))
    assert "… needs more – over –" in text and "No task was played" in text
    assert "Gain cannot be told from zero – " in text
    assert not {"proposal", "alpha", "nan", "None"} & set(text.split())


def test_decisions_are_counted_and_old_ones_folded_or_left_out() -> None:
    few = drawn(gates=[{**GATE, "candidate": f"c{i}", "verdict": "reject"} for i in range(OPEN + 2)])
    assert f"{OPEN + 2} decisions, from the oldest to the latest: {OPEN + 2} rejected." in words(few)
    folded = few[few.index("<summary>2 older decisions</summary>") : few.index("</details>")]
    assert "c0" in folded and "c1" in folded and "c2" not in folded
    many = drawn(gates=[{**GATE, "candidate": f"c{i}!"} for i in range(2000)])
    assert len(many.encode()) < MAX_BYTES
    assert "c1999!" in many and "c0!" not in many
    assert re.search(r"1,9\d\d more decisions are not shown", words(many)) and "they are the latest" in words(many)


def test_versions_are_a_line_through_time() -> None:
    text = words(drawn(versions=VERSIONS))
    assert text == (
        "What was adopted 1 14 lessons ↑ promoted · 2026-03-04 11:21 · evidence g-7f21 "
        "2 21 lessons ↑ promoted · 2026-03-04 12:31 · without a decision of the gate "
        "3 14 lessons ● in use ↩ rolled back · 2026-03-05 08:05"
    )
    assert drawn(versions=VERSIONS).count('<li class="active">') == 1
    many = words(drawn(versions=[{**VERSIONS[0], "number": i} for i in range(500)]))
    assert "300 more versions are not shown." in many and " 499 14 lessons" in many and " 299 14 lessons" not in many


def test_each_use_of_the_sealed_test_is_a_line() -> None:
    once = words(drawn(sealed=SEALED))
    assert "Version 1 2026-03-05 00:00 · run-a91 · 120 tasks" in once and "64.1 % [57.0, 71.0]" in once
    assert "The sealed test was used once." in once
    assert "used 3 times" in words(drawn(sealed=SEALED * 3))
    assert "Version – – – " in words(drawn(sealed=[{"mean": math.nan}]))


def test_cost_against_gain_in_dollars() -> None:
    markup = drawn(cost_gain=COSTS)
    text = words(markup)
    for part in (
        "1 base +0.0 – $0.0400 – 61,200 120",
        "2 With memory +40.0 [+33.0, +49.0] $0.12 $0.0030 182,311 241",
        "3 distilled +22.0 [+12.0, +31.0] no price known – 99,000 120",
        "1 without a known cost or gain is not drawn.",
    ):
        assert part in text, part
    assert "Gain in points against US dollars: 1 at $0.0400, +0.0 points; 2 at $0.12, +40.0 points" in labels(markup)
    assert len(re.findall(r'<g class="dot ', markup)) == 2 and '<g class="dot c-memory"' in markup
    # 0.12 dollars of 0.1296
    assert '<circle cx="92.59%"' in markup


def test_cost_against_gain_in_tokens_when_nothing_is_paid() -> None:
    markup = drawn(cost_gain=[{**arm, "cost": 0.0} for arm in COSTS])
    assert "2 at 182,311 tokens, +40.0 points" in " ".join(labels(markup))
    assert "Cost per point" not in words(markup) and "100k" in words(markup) and "not drawn" not in words(markup)


def test_nothing_to_draw_leaves_the_table() -> None:
    markup = drawn(cost_gain=[{"name": "memory", "gain": None}, {"name": "base", "gain": math.inf, "tokens": 3}])
    assert "<figure" not in markup and "1 memory – – no price known – –" in words(markup)


def test_shares_of_roles_are_of_cost_or_of_tokens() -> None:
    paid = words(drawn(usage=USAGE))
    assert "Share of cost" in paid and "solver 79 % 190" in paid and "all together 100 % 241" in paid
    free = words(drawn(usage={role: {**use, "cost": None} for role, use in USAGE.items()}))
    assert "Share of tokens" in free and "solver 60 % 190" in free and "reflector 40 % 51" in free
    assert "solver – 0" in words(drawn(usage={"solver": {"calls": 0}}))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "Estimated 220 to 260 calls, 0.31 to 0.44 USD; used 241 calls, 0.38 USD. ✓ within the estimate"),
        ({"cost_low": 0.1, "cost_high": 0.2}, "0.10 to 0.20 USD; used 241 calls, 0.38 USD. above the estimate"),
        ({"cost_low": 0.5, "cost_high": 0.5}, "calls, 0.50 USD; used 241 calls, 0.38 USD. ✓ within the estimate"),
        ({"calls_low": 250, "cost_low": 0.4}, "0.40 to 0.44 USD; used 241 calls, 0.38 USD. below the estimate"),
        ({"cost_low": 0, "cost_high": 0}, "220 to 260 calls, no cost; used 241 calls, 0.38 USD. above the estimate"),
        ({"cost_low": None, "cost_high": None}, "no price known; used 241 calls, 0.38 USD. ✓ within"),
        ({"cost_low": math.nan, "calls_high": math.inf}, "Estimated 220 calls, 0.44 USD; used"),
    ],
)
def test_the_estimate_stands_beside_what_was_used(change: dict[str, Any], line: str) -> None:
    assert line in words(drawn(usage=USAGE, estimate={**ESTIMATE, **change}))


def test_an_estimate_that_says_nothing_is_left_out() -> None:
    assert "stimate" not in words(drawn(usage=USAGE)) and drawn(estimate=ESTIMATE) == drawn()
    assert "stimate" not in words(drawn(usage=USAGE, estimate={"minutes_low": 3}))


def _poison(value: Any) -> Any:
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, list):
        return [_poison(v) for v in value]
    return {k: _poison(v) for k, v in value.items()} if isinstance(value, dict) else value


def test_hostile_text_stays_text() -> None:
    results = {"gates": [copy.deepcopy(GATE)], "versions": VERSIONS, "sealed": SEALED, "cost_gain": COSTS}
    markup = drawn(**_poison(results), usage={HOSTILE: USAGE["solver"]}, estimate=ESTIMATE)
    assert "<script" not in markup and not {"\x1b", "\u202e"} & set(markup)
    assert not re.search(r"<[^>]*\sonload=", re.sub(r'"[^"]*"', '""', markup))
    assert words(markup).count("<script>alert(1)</script>") > 10 and "␛[2J" in markup


_NUMBER = (
    st.floats(-1e12, 1e12) | st.sampled_from([math.nan, math.inf, -math.inf]) | st.none() | st.integers(-(10**6), 10**6)
)


@settings(max_examples=80, deadline=None)
@given(st.lists(_NUMBER, max_size=12), _NUMBER, _NUMBER, _NUMBER, st.integers(0, 99), st.text(max_size=20))
def test_any_number_makes_sound_marks(wealth: list[Any], a: Any, b: Any, c: Any, count: int, text: str) -> None:
    three = {"mean": a, "low": b, "high": c}
    gate = {"wealth": wealth, "threshold": a, "gain": three, "margin": b, "alpha": c, "tasks": count, "verdict": text}
    markup = drawn(
        gates=[{**gate, "guard": {"name": text, "margin": a, **three}}],
        sealed=[{"version": text, "at": text, **three}],
        cost_gain=[{"name": text, "cost": a, "gain": b, "low": c, "high": a, "tokens": count}],
        versions=[{"number": a, "at": text, "action": text, "policy": text}],
    )
    for value in re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|points|width)="([^"]*)"', markup):
        assert re.fullmatch(r"[-\d. ,%]*", value), value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gates", [{"wealth": ["much"]}]),
        ("gates", 3),
        ("gates", [{"cost": {"cents": 3}}]),
        ("versions", ["v1"]),
        ("sealed", [{"mean": "most"}]),
        ("cost_gain", [{"gain": "x"}]),
        ("cost_gain", [{"gain": 1e308, "low": -1e308, "high": 1e308, "cost": 1}]),
        ("usage", {"solver": 3}),
    ],
)
def test_evidence_of_the_wrong_kind_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(DataError) as caught:
        drawn(**{key: value})
    assert f"'{key}'" in caught.value.what
