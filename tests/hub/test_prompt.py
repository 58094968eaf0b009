"""Prompts: what is wrong with a file is found when it is read; what is filled in is data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import ConfigError, UnknownName
from verbal.prompt import load_prompt, parse_prompt, prompt_names

GOOD = '---\npurpose: ask\nvariables: name, rows\n---\nHello {{name}}, {"json": $1}\n{{ rows }}\n'


def test_a_prompt_is_read_filled_and_hashed() -> None:
    prompt = parse_prompt("greet", GOOD)
    assert (prompt.purpose, prompt.variables) == ("ask", ("name", "rows"))
    assert prompt.fill(name="Ada", rows="1|2") == 'Hello Ada, {"json": $1}\n1|2\n'
    assert prompt.hash == hashlib.sha256(GOOD.encode()).hexdigest()[:12]
    assert parse_prompt("greet", GOOD + "x\n").hash != prompt.hash


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello", "has no header"),
        ("---\npurpose: x\nHello", "has no header"),
        ("---\nvariables: a\n---\n{{a}}", "states no purpose"),
        ("---\npurpose: x\nvariables: a, b\n---\n{{a}}", r"declares \['a', 'b'\] but uses \['a'\]"),
        ("---\npurpose: x\n---\n{{a}}", r"declares \[\] but uses \['a'\]"),
    ],
)
def test_a_malformed_prompt_is_refused_at_load(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_prompt("bad", text, where="bad.md")
    assert caught.value.where == "bad.md"
    assert caught.value.todo


def test_a_missing_or_extra_value_is_refused() -> None:
    prompt = parse_prompt("greet", GOOD)
    with pytest.raises(ConfigError, match=r"missing \['rows'\], not declared \['row'\]") as caught:
        prompt.fill(name="x", row="y")
    assert "declared: name, rows" in caught.value.todo


@given(st.text(), st.text())
def test_values_are_never_scanned_again(name: str, rows: str) -> None:
    filled = parse_prompt("greet", GOOD).fill(name=name + "{{rows}}", rows=rows + "{{name}}\\1\\g<0>")
    assert filled == f'Hello {name}{{{{rows}}}}, {{"json": $1}}\n{rows}{{{{name}}}}\\1\\g<0>\n'


def test_an_unknown_prompt_lists_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown prompt 'text2sql/solvr'") as caught:
        load_prompt("text2sql/solvr")
    assert "'text2sql/solver'" in caught.value.todo


def test_only_an_explicit_folder_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompts" / "text2sql").mkdir(parents=True)
    (tmp_path / "prompts" / "text2sql" / "solver.md").write_text("---\npurpose: mine\n---\nHi\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    load_prompt.cache_clear()
    assert load_prompt("text2sql/solver").purpose != "mine"
    assert load_prompt("text2sql/solver", str(tmp_path / "prompts")).purpose == "mine"
    assert load_prompt("text2sql/judge", str(tmp_path / "prompts")) == load_prompt("text2sql/judge")


def test_names_are_sorted_and_load() -> None:
    assert prompt_names() == sorted(prompt_names())
    assert "text2sql/solver" in prompt_names()
    assert all(load_prompt(name).name == name for name in prompt_names())
