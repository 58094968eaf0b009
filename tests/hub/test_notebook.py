"""What a notebook shows of runs and records: sound HTML in which nothing of the data is markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_reader import Reader
from told_world import told_world

from verbal.errors import UnknownName
from verbal.notebook import LONGEST, Run
from verbal.types import (
    Attempt,
    Counters,
    Feedback,
    Group,
    MemoryOp,
    Message,
    Reflection,
    Step,
    Task,
    Usage,
)

HOSTILE = "</style></pre><script>alert(1)</script><img src=x onerror=a()>\x1b[31m"


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert not {"script", "img", "link"} & {tag for tag, _ in reader.tags}
    return reader


@given(st.text(max_size=60) | st.just(HOSTILE))
def test_every_record_shows_itself(text: str) -> None:
    step = Step(author="policy", text=text, observation=text, prompt=(Message(role="user", content=text),))
    records = [
        Attempt(id=text, run="r", task=text, answer=text, steps=(step,) * 20, error=text, model=text),
        Reflection(id=text, text=text, title=text, when=text, boundary=text, counters=Counters(shown=3, helped=2)),
        Task(id=text, kind=text, messages=(Message(role="user", content=text),), gold="the gold"),
        Feedback(attempt=text, critic=text, value=0.5, text=text), step, Message(role="user", content=text),
        Group(task=text, attempts=(text,)), MemoryOp(op="ADD", reason=text), Usage(calls=3),
    ]  # fmt: skip
    for record in records:
        words = read(record._repr_html_()).words()
        assert "the gold" not in words, "what no policy sees is not shown in passing"


def test_a_long_text_is_cut_and_hostile_text_stays_text() -> None:
    card = Reflection(id="r1", text="é" * 9000 + HOSTILE, status="quarantined")._repr_html_()
    assert len(card) < LONGEST + 2500 and "…" in card and "quarantined" in card
    assert "alert(1)" in read(Reflection(id="r1", text=HOSTILE)._repr_html_()).words()


def test_a_run_shows_itself_and_gives_its_page(tmp_path: Path) -> None:
    world = told_world(tmp_path)
    run = Run(world.store, "run")
    words = read(run._repr_html_()).words()
    for text in ("Run run", "retry-only", "memory", "100.0 %", "newest lessons", "the code of", "calls"):
        assert text in words, text
    other = Run(tmp_path / "v.db", "gate-1")  # a path is opened for each look
    assert "gate-1" in read(other._repr_html_()).words() and repr(other) == "Run('gate-1')"
    assert len(run.attempts(3)) == 3 and "arms" in run.figures() and run.results["run"] == "run:eval"
    assert run.report(tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
    with pytest.raises(UnknownName, match="rum"):
        Run(world.store, "rum")
