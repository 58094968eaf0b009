"""The store: idempotent by key, shared by processes, intact after kill -9, clear about what it cannot do."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import ConfigError, StoreError, UnknownName
from verbal.store import Store
from verbal.types import Attempt, Feedback, Group, MemoryOp, Message, Reflection, Step, Task, Usage

ROOT = Path(__file__).resolve().parents[2]
WRITER = textwrap.dedent("""
    import sys
    from verbal.store import Store
    from verbal.types import Attempt, Feedback, MemoryOp, Reflection
    path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with Store(path) as store:
        for i in range(count):
            key = f"{name}-{i}"
            store.put_attempt(Attempt(id=key, run="r", task="t"), [Feedback(attempt=key, critic="c", value=0.5)])
            store.log_ops("m", [MemoryOp(op="ADD", item=Reflection(id=key, text="x" * 200))] * 2)
            print(key, flush=True)
""")


def attempt(key: str, **fields: object) -> Attempt:
    return Attempt(id=key, run="r", task="t", **fields)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "verbal.db") as opened:
        yield opened


def writer(path: Path, name: str, count: int, **options: object) -> subprocess.Popen[str]:
    """Another process that writes attempts and operations, and says each key once it is acknowledged."""
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def whole(path: Path) -> tuple[set[str], list[int]]:
    """Attempt ids (each with its feedback) and versions of the memory log of a store whose file is sound."""
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    with Store(path) as store:
        ids = [a.id for a in store.attempts()]
        assert len(ids) == len(set(ids))
        assert all(len(found) == 1 for found in store.feedback(ids).values())
        return set(ids), [v for v, _ in store.ops("m")]


# idempotence --------------------------------------------------------------------------------------------------------


def test_an_attempt_is_kept_once_with_its_first_feedback(store: Store) -> None:
    first = Feedback(attempt="a", critic="c", value=1.0)
    assert store.put_attempt(attempt("a", answer="one"), [first]) is True
    assert store.put_attempt(attempt("a", answer="two"), [first.replace(value=0.0)]) is False
    assert [a.answer for a in store.attempts()] == ["one"]
    assert store.feedback(["a", "none"]) == {"a": [first], "none": []}
    assert store.attempt("a") == attempt("a", answer="one")
    assert store.attempt("none") is None


def test_later_feedback_replaces_the_same_critics_only(store: Store) -> None:
    store.put_attempt(attempt("a"))
    for value in (0.1, 0.2):
        store.put_feedback([Feedback(attempt="a", critic=c, value=value) for c in ("x", "y")])
    store.put_feedback([Feedback(attempt="a", critic="x", value=0.9, scope="step:1")])
    assert [(f.critic, f.value, f.scope) for f in store.feedback(["a"])["a"]] == [
        ("x", 0.2, "attempt"), ("x", 0.9, "step:1"), ("y", 0.2, "attempt")
    ]  # fmt: skip


def test_attempts_come_in_order_and_narrowed(store: Store) -> None:
    for key, arm in (("b", "main"), ("a", "retry"), ("c", "main")):
        store.put_attempt(attempt(key, arm=arm))
    assert [a.id for a in store.attempts("r")] == ["b", "a", "c"]
    assert [a.id for a in store.attempts("r", arm="main")] == ["b", "c"]
    assert store.attempts("other") == []
    assert store.attempts(task="none") == []


def test_groups_tasks_steps_calls_and_checkpoints_are_idempotent(store: Store, tmp_path: Path) -> None:
    group = Group(task="t", attempts=("a", "b"), preferences=(("a", "b"),), chosen="a")
    task = Task(id="t", kind="k", messages=(Message(role="user", content="Grüße, 世界"),), gold="1")
    step = Step(author="guide", text="because", role="critic")
    for _ in range(2):
        store.put_group("r", group)
        store.put_tasks([task])
        store.put_call("c1", "r", "solver", "m", Usage(calls=1, prompt_tokens=3, cost=0.5))
        store.put_checkpoint("sft", str(tmp_path), {"loss": 1.0})
        assert store.put_step("a", "critique", step) == step
    assert store.put_step("a", "critique", step.replace(text="other")) == step
    assert store.step("a", "critique") == step
    assert store.step("a", "none") is None
    assert store.groups() == store.groups("r") == [group]
    assert store.group("r", "t", "0") == group
    assert store.tasks() == store.tasks(["t", "gone"]) == {"t": task}
    assert store.usage("r") == {"solver": Usage(calls=1, prompt_tokens=3, cost=0.5)}
    assert store.usage("other") == {}
    assert [c["info"] for c in store.checkpoints()] == [{"loss": 1.0}]
    with pytest.raises(UnknownName, match="unknown checkpoint 'sf'") as caught:
        store.checkpoint("sf")
    assert "did you mean 'sft'" in caught.value.todo


def test_a_run_resumes_with_its_own_recipe_only(store: Store) -> None:
    assert store.start_run("one", {"k": 3, "model": "a"}) is True
    store.finish_run("one", "stopped", {"done": 1})
    assert store.start_run("one", {"model": "a", "k": 3}) is False
    with pytest.raises(ConfigError, match=r"another recipe \(differs in: k, seed\)"):
        store.start_run("one", {"model": "a", "k": 4, "seed": 1})
    store.finish_run("one", "done", {"score": 2})
    (run,) = store.runs()
    assert (run["status"], run["info"]) == ("done", {"done": 1, "score": 2})


@given(st.lists(st.lists(st.sampled_from(["ADD", "RETIRE", "NOOP"]), max_size=3), max_size=5))
def test_the_log_counts_versions_without_gaps(batches: list[list[str]]) -> None:
    with Store(":memory:") as store:
        ops = [[MemoryOp(op=op, reflection=f"r{i}") for op in batch] for i, batch in enumerate(batches)]  # type: ignore[arg-type]
        for batch in ops:
            store.log_ops("m", batch)
        assert store.ops("m") == list(enumerate([op for batch in ops for op in batch], 1))
        assert store.ops("m", after=1) == store.ops("m")[1:]
        assert store.memories() == ({"m": sum(map(len, ops))} if any(ops) else {})


def test_the_log_refuses_a_writer_that_read_an_older_version(store: Store) -> None:
    op = MemoryOp(op="ADD", item=Reflection(id="r1", text="x"))
    assert store.log_ops("m", [op], expect=0) == 1
    with pytest.raises(StoreError, match="memory 'm' is at version 1, not 0"):
        store.log_ops("m", [op], expect=0)
    assert store.memories() == {"m": 1}


def test_a_failed_write_leaves_nothing_and_the_store_goes_on(store: Store) -> None:
    bad = Feedback(attempt="a", critic=object(), value=1.0)  # type: ignore[arg-type]
    with pytest.raises((TypeError, StoreError)):
        store.put_attempt(attempt("a"), [bad])
    assert store.attempts() == []
    assert store.put_attempt(attempt("a")) is True


@pytest.mark.parametrize("text", ["nul \x00 inside", "emoji 🙂", "lone \ud800 surrogate", "\r\n\t"])
def test_any_text_a_model_may_write_is_kept(store: Store, text: str) -> None:
    one = attempt("a", answer=text, steps=(Step(author="policy", text=text),), error=text)
    store.put_attempt(one, [Feedback(attempt="a", critic="c", text=text)])
    assert store.attempt("a") == one
    assert store.feedback(["a"])["a"][0].text == text


# threads and processes ----------------------------------------------------------------------------------------------


def test_threads_share_one_store(store: Store) -> None:
    def write(name: str) -> None:
        for i in range(50):
            store.put_attempt(attempt(f"{name}-{i}"))
            store.log_ops("m", [MemoryOp(op="NOOP")])

    threads = [threading.Thread(target=write, args=(n,)) for n in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.attempts()) == 200
    assert [v for v, _ in store.ops("m")] == list(range(1, 201))


def test_processes_write_side_by_side_without_loss(tmp_path: Path) -> None:
    path, count = tmp_path / "verbal.db", 150
    writers = [writer(path, name, count) for name in ("a", "b", "c")]
    for process in writers:
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
    ids, versions = whole(path)
    assert ids == {f"{name}-{i}" for name in ("a", "b", "c") for i in range(count)}
    assert versions == list(range(1, 2 * 3 * count + 1))


def test_kill_9_loses_no_acknowledged_write(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "verbal.db", set()
    for trial in range(5):
        process = writer(path, f"t{trial}", 100_000)
        assert process.stdout is not None and process.stderr is not None
        for _ in range(3 + 17 * trial):
            acknowledged.add(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
        process.wait()
        process.stdout.close()
        process.stderr.close()
        ids, versions = whole(path)
        assert acknowledged - {""} <= ids
        assert len(ids) <= len(acknowledged) + trial + 1
        assert versions == list(range(1, len(versions) + 1))
        assert len(versions) % 2 == 0, "a batch of operations was kept by half"
        assert len(versions) >= 2 * len(acknowledged)
