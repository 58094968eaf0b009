"""What a store promises, kept by every database: idempotent by key, in order, whole after kill -9, shared."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from verbal.errors import ConfigError, DataError, StoreError, UnknownName
from verbal.store import Store
from verbal.types import Attempt, Feedback, Group, MemoryOp, Message, Reflection, Step, Task, Usage

ROOT = Path(__file__).resolve().parents[2]
WRITER = textwrap.dedent("""
    import sys
    from verbal.store import Store
    from verbal.types import Attempt, Feedback, MemoryOp, Reflection, Usage
    url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with Store(url) as store:
        for i in range(count):
            key = f"{name}-{i}"
            store.open_call(key, "r", "solver", "m", Usage(calls=1, cost=9.0), name)
            store.close_call(key, "r", "solver", "m", Usage(calls=1, cost=0.5), key=key, request="q", reply="a" * 500)
            with store.transaction():
                store.put_attempt(Attempt(id=key, run="r", task="t"), [Feedback(attempt=key, critic="c", value=0.5)])
                store.log_ops("m", [MemoryOp(op="ADD", item=Reflection(id=key, text="x" * 200))] * 2)
            print(key, flush=True)
""")
ODD = ["nul \x00 inside", "emoji 🙂", "lone \ud800 surrogate", "\r\n\t", "mark \x1a0000 \x1a", "世界 % %s ? '\\"]


def attempt(key: str, **fields: object) -> Attempt:
    return Attempt(id=key, run="r", task="t", **fields)  # type: ignore[arg-type]


@pytest.fixture
def store(store_url: str):
    with Store(store_url) as opened:
        yield opened


def writer(url: str, name: str, count: int) -> subprocess.Popen[str]:
    """Another process that writes calls, attempts and operations, and says each key once all is acknowledged."""
    command = [sys.executable, "-c", WRITER, url, name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def whole(url: str) -> tuple[set[str], list[int]]:
    """Attempt ids (each with its feedback) and versions of the memory log of a store that is sound."""
    if "://" not in url:
        with sqlite3.connect(url) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
    with Store(url) as store:
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
    store.put_feedback([Feedback(attempt="a", critic="x", value=v) for v in (0.8, 0.3)])
    assert store.feedback(["a"])["a"][0].value == 0.3, "of two in one batch the later counts"


def test_attempts_come_in_order_and_narrowed(store: Store) -> None:
    for key, arm in (("b", "main"), ("a", "retry"), ("c", "main")):
        store.put_attempt(attempt(key, arm=arm))
    assert [a.id for a in store.attempts("r")] == ["b", "a", "c"]
    assert [a.id for a in store.attempts("r", arm="main")] == ["b", "c"]
    assert store.attempts("other") == []
    assert store.attempts(task="none") == []


def test_names_come_in_the_order_of_their_code_points(store: Store) -> None:
    names = ["b", "A", "a", "_", "é", "Z", "10", "9", "a b", "ab", "世"]
    store.put_tasks([Task(id=n, kind="k", messages=()) for n in names])
    assert list(store.tasks()) == sorted(names)


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
    store.put_tasks([task, task.replace(gold="2")])
    assert store.tasks()["t"].gold == "2"
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
    assert store.run("one") == run
    assert store.run("two") is None


def test_a_run_resumes_with_larger_limits(store: Store) -> None:
    store.start_run("one", {"k": 3, "limits": {"max_calls": 1}})
    assert store.start_run("one", {"k": 3, "limits": {"max_calls": 5}}) is False
    assert store.start_run("one", {"k": 3}) is False
    store.start_run("one", {"k": 3, "limits": {"max_calls": 9}})
    assert store.runs()[0]["recipe"] == {"k": 3, "limits": {"max_calls": 9}}


def test_what_is_known_of_a_run_is_merged_and_its_status_stays(store: Store) -> None:
    store.start_run("one", {}, {"a": 1, "b": 1})
    store.set_info("one", {"b": 2, "text": "\ud800 \x00"})
    found = store.run("one")
    assert found is not None
    assert (found["status"], found["info"]) == ("running", {"a": 1, "b": 2, "text": "\ud800 \x00"})
    with pytest.raises(UnknownName, match="unknown run 'on'"):
        store.set_info("on", {})


def test_the_log_refuses_a_writer_that_read_an_older_version(store: Store) -> None:
    op = MemoryOp(op="ADD", item=Reflection(id="r1", text="x"))
    assert store.log_ops("m", [op], expect=0) == 1
    with pytest.raises(StoreError, match="memory 'm' is at version 1, not 0"):
        store.log_ops("m", [op], expect=0)
    assert store.memories() == {"m": 1}
    assert store.ops("m", after=1) == []


@pytest.mark.parametrize("text", ODD)
def test_any_text_a_model_may_write_is_kept(store: Store, text: str) -> None:
    one = attempt(text, answer=text, steps=(Step(author="policy", text=text),), error=text)
    store.put_attempt(one, [Feedback(attempt=text, critic=text, text=text)])
    assert store.attempt(text) == one
    assert store.feedback([text])[text][0].text == text
    store.close_call(text, text, text, text, Usage(calls=1), error=text, key=text, request=text, reply=text)
    assert store.reply(text) == text
    assert store.used_replies(text) == [(text, text)]
    assert store.replies(text) == [{"key": text, "model": text, "request": text, "reply": text}]
    assert store.usage(text) == {text: Usage(calls=1)}


# calls, replies, evidence -------------------------------------------------------------------------------------------


def test_a_call_takes_the_place_of_its_reservation(store: Store) -> None:
    worst, used = Usage(calls=1, cost=2.0), Usage(calls=1, prompt_tokens=9, cost=0.25)
    store.open_call("c1", "r", "solver", "m", worst, "p1")
    store.open_call("c2", "s", "judge", "m", worst, "p1")
    first, second = store.open_calls()
    assert (first["call"], first["run"], first["role"], first["model"]) == ("c1", "r", "solver", "m")
    assert (first["worst"], first["owner"]) == (worst, "p1") and first["at"] <= second["at"]
    assert store.open_calls("s") == [second]
    store.open_call("c2", "s", "judge", "m", used, "p2")
    assert [(c["worst"], c["owner"]) for c in store.open_calls("s")] == [(used, "p2")]
    for _ in range(2):
        store.close_call("c1", "r", "solver", "m", used, key="k", request="q", reply="a")
    store.drop_call("c2")
    assert store.open_calls() == []
    assert store.usage() == {"solver": used}
    store.close_call("c3", "r", "judge", "m", used, "it broke")
    assert store.used_replies("r") == [("k", "solver")]
    with pytest.raises(DataError, match="the reply of call 'c4' has no key"):
        store.close_call("c4", "r", "judge", "m", used, reply="a")


def test_the_mean_call_of_a_model_leaves_failures_out(store: Store) -> None:
    for call, tokens, error in (("c1", 10, None), ("c2", 20, None), ("c3", 900, "it broke")):
        store.put_call(call, "r", "solver", "m", Usage(calls=1, prompt_tokens=tokens, cost=tokens / 10), error)
    assert store.mean_call("m") == Usage(calls=1, prompt_tokens=15, cost=1.5)
    assert store.mean_call("none") is None


def test_replies_are_found_by_key_run_and_model(store: Store) -> None:
    for call, reply in (("c0", '{"error": "busy"}'), ("c1", "a2"), ("c2", "late"), ("c2b", '{"error": "busy"}')):
        store.close_call(call, "r", "solver", "m", Usage(), key="k2", request="q2", reply=reply)
    store.close_call("c3", "s", "solver", "n", Usage(), key="k1", request="q1", reply="a1")
    for _ in range(2):
        store.use_reply("r", "k1", "solver")
        store.use_reply("r", "k1", "judge")
    assert (store.reply("k2"), store.reply("none")) == ("a2", None), "an error gives way, the first reply stays"
    assert store.used_replies("r") == [("k1", "judge"), ("k1", "solver"), ("k2", "solver")]
    rows = store.replies("r")
    assert [(r["key"], r["model"], r["request"], r["reply"]) for r in rows] == [
        ("k1", "n", "q1", "a1"), ("k2", "m", "q2", "a2")
    ]  # fmt: skip
    with Store(":memory:") as other:
        other.put_replies(rows)
        other.put_replies(iter(rows))
        assert other.reply("k1") == "a1"
    store.close_call("c4", "r", "solver", "m", Usage(), key="k9", request="q9", reply="a9")
    assert store.nearest_requests("m") == [("k9", "q9"), ("k2", "q2")]
    assert store.nearest_requests("m", 1) == [("k9", "q9")]
    assert store.nearest_requests("none") == []


def test_proposals_keep_their_place_and_their_last_state(store: Store) -> None:
    for key, status, record in (("b", "open", {"n": 1}), ("a", "open", {}), ("b", "adopted", {"n": 2, "at": "mine"})):
        store.put_proposal(key, status, record)
    found = store.proposals()
    assert [(p["id"], p["status"], p.get("n")) for p in found] == [("b", "adopted", 2), ("a", "open", None)]
    assert isinstance(found[0]["at"], float), "a record does not hide a column"
    assert (store.proposal("b"), store.proposal("none")) == (found[0], None)


def test_versions_are_numbered_and_refuse_who_read_an_older_one(store: Store) -> None:
    assert [store.add_version({"n": 1}), store.add_version({"n": 2}, expect=1)] == [1, 2]
    with pytest.raises(StoreError, match="the log of versions is at 2, not 1"):
        store.add_version({"n": 3}, expect=1)
    assert [(v["number"], v["n"]) for v in store.versions()] == [(1, 1), (2, 2)]


def test_a_sealed_set_is_used_once_by_a_version(store: Store) -> None:
    assert store.unseal(1, "d", "r", {"n": 1}) is True
    assert store.unseal(1, "d", "other", {"n": 2}) is False
    assert store.unseal(2, "d", "r", {}) is True
    store.update_sealed(1, "d", {"n": 3})
    with pytest.raises(StoreError, match="version 9 has not used the test set 'd'"):
        store.update_sealed(9, "d", {})
    uses = [(u["version"], u["digest"], u["run"], u.get("n")) for u in store.sealed_uses()]
    assert uses == [(1, "d", "r", 3), (2, "d", "r", None)]


# transactions -------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_nothing_and_the_store_goes_on(store: Store) -> None:
    bad = Feedback(attempt="a", critic=object(), value=1.0)  # type: ignore[arg-type]
    with pytest.raises((TypeError, StoreError)):
        store.put_attempt(attempt("a"), [bad])
    assert store.attempts() == []
    assert store.put_attempt(attempt("a")) is True


def test_a_transaction_is_kept_whole_or_not_at_all(store: Store, store_url: str) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.put_attempt(attempt("a"))
        with store.transaction():
            store.log_ops("m", [MemoryOp(op="NOOP")], expect=0)
        assert store.attempt("a") is not None, "it reads what it wrote"
        _ = 1 / 0
    assert (store.attempts(), store.memories()) == ([], {})
    with Store(store_url) as other, store.transaction():
        store.put_attempt(attempt("a"))
        store.start_run("r", {"k": 1})
        with pytest.raises(ConfigError):
            store.start_run("r", {"k": 2})
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.put_attempt(attempt("undone"))
            _ = 1 / 0
        store.put_attempt(attempt("b"))
        assert other.attempts() == [], "nobody sees half of it"
    assert [a.id for a in store.attempts()] == ["a", "b"]
    assert len(store.runs()) == 1


# threads and processes ----------------------------------------------------------------------------------------------


def test_threads_share_one_store(store: Store) -> None:
    def write(name: str) -> None:
        for i in range(50):
            with store.transaction():
                store.put_attempt(attempt(f"{name}-{i}"))
                store.log_ops("m", [MemoryOp(op="NOOP")])

    threads = [threading.Thread(target=write, args=(n,)) for n in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.attempts()) == 200
    assert [v for v, _ in store.ops("m")] == list(range(1, 201))


def test_stores_that_are_made_at_once_are_one(store_url: str) -> None:
    def write(name: str) -> None:
        try:
            with Store(store_url) as own:
                for i in range(20):
                    own.put_tasks([Task(id=n, kind="k", messages=()) for n in (("x", "y") if i % 2 else ("y", "x"))])
                    own.add_version({"by": name})
                    own.start_run("r", {"k": 1})
                    used.append(own.unseal(i, "d", name, {}))
        except StoreError as error:
            broken.append(error)

    used: list[bool] = []
    broken: list[StoreError] = []
    threads = [threading.Thread(target=write, args=(n,)) for n in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    with Store(store_url) as store:
        assert [v["number"] for v in store.versions()] == list(range(1, 81))
        assert (len(used), sum(used), len(store.sealed_uses())) == (80, 20, 20)
        assert (len(store.runs()), len(store.tasks())) == (1, 2)


def test_processes_write_side_by_side_without_loss(store_url: str) -> None:
    count = 60
    writers = [writer(store_url, name, count) for name in ("a", "b", "c")]
    for process in writers:
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
    ids, versions = whole(store_url)
    assert ids == {f"{name}-{i}" for name in ("a", "b", "c") for i in range(count)}
    assert versions == list(range(1, 2 * 3 * count + 1))
    with Store(store_url) as store:
        assert store.usage() == {"solver": Usage(calls=180, cost=90.0)}
        assert store.open_calls() == []


def test_kill_9_loses_no_acknowledged_write(store_url: str) -> None:
    acknowledged: set[str] = set()
    for trial in range(5):
        process = writer(store_url, f"t{trial}", 100_000)
        assert process.stdout is not None and process.stderr is not None
        for _ in range(3 + 17 * trial):
            acknowledged.add(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
        process.wait()
        process.stdout.close()
        process.stderr.close()
        with Store(store_url) as store:
            store.log_ops("other", [MemoryOp(op="NOOP")])  # waits for a server that has not yet seen who is gone
            ids, versions = whole(store_url)
            assert acknowledged - {""} <= ids
            assert len(ids) <= len(acknowledged) + trial + 1
            assert versions == list(range(1, 2 * len(ids) + 1)), "half a transaction was kept"
            paid = {r["key"] for r in store.replies("r")}
            assert ids <= paid and store.usage()["solver"].calls == len(paid)
            opened = {c["call"] for c in store.open_calls()}
            assert not opened & paid and len(opened) <= trial + 1
