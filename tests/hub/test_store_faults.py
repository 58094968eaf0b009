"""What the store cannot do, it says in three parts, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from verbal.errors import StoreError
from verbal.store import Store
from verbal.types import Attempt, Feedback

ROOT = Path(__file__).resolve().parents[2]


def attempt(key: str, **fields: object) -> Attempt:
    return Attempt(id=key, run="r", task="t", **fields)  # type: ignore[arg-type]


def whole(path: Path) -> set[str]:
    """Attempt ids of a store whose file is sound."""
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    with Store(path) as store:
        ids = [a.id for a in store.attempts()]
        assert all(len(found) == 1 for found in store.feedback(ids).values())
        return set(ids)


def parts(error: StoreError, what: str, where: Path) -> None:
    """All three parts are there."""
    assert what in error.what, str(error)
    assert error.where == str(where)
    assert error.todo


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello " * 1000, encoding="utf-8")
    with pytest.raises(StoreError) as caught:
        Store(path)
    parts(caught.value, "file is not a database", path)
    assert path.read_text(encoding="utf-8").startswith("hello hello"), "the user's file must not be touched"


def test_a_store_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "verbal.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    db.close()
    with pytest.raises(StoreError) as caught:
        Store(path)
    parts(caught.value, "version 99", path)


def test_a_folder_and_a_path_below_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Store(tmp_path)
    parts(caught.value, "unable to open database file", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "file" / "verbal.db")
    parts(caught.value, "the store failed", tmp_path / "file" / "verbal.db")


def in_child(work: Callable[[], None], *, user: int | None = None) -> str:
    """What `work` raised in a forked child (which may become another user, since root may write everywhere)."""
    reader, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if user is not None and os.getuid() == 0:
                os.setuid(user)
            work()
            said = "nothing raised"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(sender, said.encode())
        os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    with os.fdopen(reader, encoding="utf-8") as stream:
        return stream.read()


@pytest.fixture
def open_folder():
    """A folder that any user can reach (pytest's own is closed to others)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_folder(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    said = in_child(lambda: Store(open_folder / "verbal.db").close(), user=65534)
    assert said.startswith("StoreError: the store failed: unable to open database file\n  where: "), said
    assert "to do: check that the folder exists and may be written: --store PATH" in said
    said = in_child(lambda: Store(open_folder / "new" / "verbal.db").close(), user=65534)
    assert said.startswith("StoreError: the store failed: Permission denied"), said


def test_a_read_only_file(open_folder: Path) -> None:
    path = open_folder / "verbal.db"
    with Store(path) as store:
        store.put_attempt(attempt("kept"))
    path.chmod(0o444)
    open_folder.chmod(0o555)

    def write() -> None:
        with Store(path) as store:
            store.put_attempt(attempt("new"))

    said = in_child(write, user=65534)
    assert said.startswith("StoreError: the store failed: attempt to write a readonly database\n  where: "), said
    assert "to do: give a folder you may write to" in said


def test_a_locked_store(tmp_path: Path) -> None:
    path = tmp_path / "verbal.db"
    with Store(path) as store:
        store._database._db.execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as caught:
            store.put_attempt(attempt("a"))
        parts(caught.value, "database is locked", path)
        other.execute("ROLLBACK")
        other.close()
        assert store.put_attempt(attempt("a")) is True


def test_a_full_database_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """SQLite's own limit on pages is what a full disk looks like to it: SQLITE_FULL in the middle of a write."""
    path, kept = tmp_path / "verbal.db", []
    with Store(path) as store:
        store._database._db.execute("PRAGMA max_page_count = 60")
        with pytest.raises(StoreError) as caught:
            for i in range(1000):
                store.put_attempt(attempt(f"a{i}", answer="x" * 3000), [Feedback(attempt=f"a{i}", critic="c")])
                kept.append(f"a{i}")
        parts(caught.value, "database or disk is full", path)
        assert "--resume" in caught.value.todo
        store._database._db.execute("PRAGMA max_page_count = 100000")
        assert store.put_attempt(attempt("later"), [Feedback(attempt="later", critic="c")]) is True
    assert kept
    assert whole(path) == {*kept, "later"}


def test_a_limit_of_the_system_on_file_size(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stops writes from below SQLite; a forked child has the limit, so that this process does not."""
    import resource

    path = tmp_path / "verbal.db"
    with Store(path) as store:
        store.put_attempt(attempt("before"), [Feedback(attempt="before", critic="c")])

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        with Store(path) as store:
            for i in range(1000):
                store.put_attempt(attempt(f"a{i}", answer="x" * 3000), [Feedback(attempt=f"a{i}", critic="c")])

    said = in_child(write)
    assert said.startswith("StoreError: the store failed: "), said
    assert f"where: {path}" in said
    assert "to do:" in said
    ids = whole(path)
    assert "before" in ids
    assert len(ids) > 3


def test_a_full_disk(tmp_path: Path) -> None:
    """A real full disk: a small tmpfs in a mount namespace of its own, which goes away with the process."""
    code = textwrap.dedent("""
        import sys
        from verbal.errors import StoreError
        from verbal.store import Store
        from verbal.types import Attempt
        kept = []
        try:
            with Store(sys.argv[1]) as store:
                for i in range(5000):
                    store.put_attempt(Attempt(id=f"a{i}", run="r", task="t", answer="x" * 3000))
                    kept.append(f"a{i}")
        except StoreError as error:
            with Store(sys.argv[1]) as store:
                assert {a.id for a in store.attempts()} == set(kept), "an acknowledged attempt is lost"
            print(len(kept), error)
    """)
    mounted = f'mount -t tmpfs -o size=700k tmpfs {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}/verbal.db'
    options = ["--mount"] if os.getuid() == 0 else ["--mount", "--user", "--map-root-user"]
    try:
        command = ["unshare", *options, "sh", "-c", mounted, code]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no unshare here: {error}")
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    count, _, said = done.stdout.partition(" ")
    assert int(count) > 5
    assert "free some space; everything acknowledged so far is kept, then use --resume" in said, said


def test_a_database_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        Store(path)
    parts(caught.value, "not a store", path)
    assert path.read_bytes() == before
