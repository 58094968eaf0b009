"""The part of a prompt that may change: split off, cleaned, put back; nothing of a task may stand in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.instructions import cleaned, copies, data, split_prompt
from verbal.prompt import load_prompt, parse_prompt, prompt_names
from verbal.testing import TinyApp


@pytest.mark.parametrize("name", [n for n in prompt_names() if n.startswith("text2sql/") and n != "text2sql/lesson"])
def test_every_prompt_of_a_role_has_an_instruction_that_can_be_put_back(name: str) -> None:
    prompt = load_prompt(name)
    parts = split_prompt(prompt)
    body = parts.body(parts.instruction)
    head = f"---\npurpose: x\nvariables: {', '.join(prompt.variables)}\n---\n"
    assert parse_prompt(name, head + body).variables == prompt.variables
    assert [line for line in body.splitlines() if line] == [line for line in prompt.body.splitlines() if line]


def test_an_instruction_may_not_open_a_section_or_bring_fields() -> None:
    assert cleaned("## Rules\nCount.\n# End:", "x") == "Rules:\nCount.\nEnd:"
    assert cleaned("  ", "x") is None and cleaned("{{sql}}", "x") is None and cleaned("none", "{{guidance}}") is None
    assert cleaned("Do.\n{{guidance}}", "Old {{guidance}}") == "Do.\n{{guidance}}"


@given(st.text(max_size=200))
def test_whatever_is_cleaned_parses_as_a_prompt_and_keeps_its_sections(text: str) -> None:
    made = cleaned(text, "Old.")
    if made is not None:
        parts = split_prompt(load_prompt("text2sql/solver"))
        body = parts.body(made)
        assert re.findall(r"^## .*$", body, re.MULTILINE) == re.findall(r"^## .*$", parts.frame, re.MULTILINE)
        variables = ", ".join(load_prompt("text2sql/solver").variables)
        parse_prompt("x", f"---\npurpose: x\nvariables: {variables}\n---\n{body}")


@given(st.text(max_size=200))
def test_data_is_one_line_that_opens_nothing(text: str) -> None:
    line = data(text)
    assert "\n" not in line and "```" not in line and "<" not in line and not line.startswith("#")


def test_copies_are_found_whatever_their_spaces_and_short_ones_are_words() -> None:
    task = TinyApp().tasks("train")[0]
    assert copies(f"x {task.info['question'].upper().replace(' ', '  ')} y", [task])
    assert not copies(f"The code {task.gold} counts.", [task])
