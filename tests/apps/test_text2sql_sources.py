"""Sources: what a user wrote becomes a place with rows, or a clear error; passwords stay where they are."""

from __future__ import annotations

import os
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from verbal.apps.text2sql import sources
from verbal.apps.text2sql.sources import Source, kind_of_path, request_of
from verbal.apps.text2sql.worker import Pool
from verbal.errors import DataError, MissingExtra

SECRET = "s3cr3t/p@ss"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (a)")
    return path


def test_files_and_folders(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source.of(f"  {shop} ")
    assert (source.kind, source.dialect, source.location, source.name) == ("sqlite", "sqlite", str(shop), "shop")
    monkeypatch.chdir(tmp_path)
    assert Source.of("shop.db") == Source.of(f"sqlite:///{shop}") == Source.of("sqlite:///shop.db") == source
    assert Source.of(source) is source and len({source, Source.of(shop)}) == 1
    (tmp_path / "a.csv").write_text("x\n1\n")
    for text in (tmp_path, tmp_path / "a.csv"):
        files = Source.of(text)
        assert (files.kind, files.dialect) == ("files", "duckdb")
        assert files.request()["files"] == [str(tmp_path / "a.csv")]
    (tmp_path / "old.sqlite").write_bytes(b"\0" * 8 + b"DUCK" + b"\0" * 20)
    assert Source.of(tmp_path / "old.sqlite").kind == "duckdb"
    assert kind_of_path(str(tmp_path / "none")) == kind_of_path("a\0b") == "sqlite"


def test_a_mark_changes_with_the_files(shop: Path, tmp_path: Path) -> None:
    first = Source.of(shop).mark()
    assert Source.of(shop).mark() == first
    with closing(sqlite3.connect(shop)) as db:
        db.execute("CREATE TABLE u (a)")
    assert Source.of(shop).mark() != first
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.csv").write_text("x\n1\n")
    source = Source.of(folder)
    before = source.mark()
    (folder / "b.csv").write_text("x\n1\n")
    assert source.mark() != before
    shop.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Source("sqlite", str(shop)).mark()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.sqlite", None, "does not exist"),
        ("empty.sqlite", b"", "empty \\(0 bytes\\)"),
        ("empty.csv", b"", "empty \\(0 bytes\\)"),
        ("text.sqlite", b"hello " * 10, "neither an SQLite nor a DuckDB database"),
        ("book.xlsx", b"PK\3\4" * 10, "neither an SQLite nor a DuckDB database"),
        ("", None, "holds no tables"),
    ],
)
def test_files_that_hold_no_tables(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        Source.of(tmp_path / name)
    assert caught.value.where and caught.value.todo


def test_a_folder_of_databases_names_one(shop: Path) -> None:
    with pytest.raises(DataError, match=r"name one file in it, such as shop\.db"):
        Source.of(shop.parent)


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    monkeypatch.setattr(sources, "FILES_BYTES", 3)
    with pytest.raises(DataError, match="make a DuckDB file"):
        Source.of(tmp_path)


def test_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source.of("postgres://ann@db.example:5433/shop?schema=s&sslmode=require")
    assert source.location == "postgresql://ann@db.example:5433/shop?schema=s&sslmode=require"
    assert (source.kind, source.dialect, source.name, source.mark()) == ("postgresql", "postgres", "shop", "")
    assert Source.of("postgresql+psycopg://ann@DB.example:5433/shop?sslmode=require&schema=s") == source
    assert Source.of("mariadb://ann@db/shop").location == "mysql://ann@db:3306/shop"
    assert Source.of("postgresql:///shop").request()["server"]["host"] == "localhost"
    assert Source.of("postgresql://%2Frun%2Fpg/shop").request()["server"]["host"] == "/run/pg"
    assert Source.of("mysql://[::1]/shop").location == "mysql://[::1]:3306/shop"
    monkeypatch.setenv("SHOP", "mysql://ann@db/shop")
    assert Source.of("${SHOP}").location == "mysql://ann@db:3306/shop"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cr3t%2Fp%40ss@h{}/shop",
        "postgresql://ann@h{}/shop?password=s3cr3t%2Fp%40ss",
        "mysql://ann:${{SHOP_PASSWORD}}@h{}/shop",
    ],
)
def test_a_password_is_known_and_shown_nowhere(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", SECRET)
    source = Source.of(url.format(abs(hash(url))))
    again = pickle.loads(pickle.dumps(source))
    for told in (source, again, Source.of(source.location)):
        assert told.request()["server"]["password"] == SECRET
    shown = f"{source!r} {source.location} {source} {source.mark()}".encode() + pickle.dumps(source)
    assert b"s3cr3t" not in shown and b"p%40ss" not in shown


def test_a_password_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "one")
    monkeypatch.setenv("MYSQL_PWD", "two")
    assert Source.of("postgresql://ann@h7/shop").request()["server"]["password"] == "one"
    assert Source.of("mysql://ann@h7/shop").request()["server"]["password"] == "two"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no database is named"),
        ("mssql://h/shop", "no engine reads mssql://"),
        ("postgresql://ann:s3cr3t@h:99999/shop", "host or port is wrong"),
        ("postgresql://ann:s3cr3t@h:port/shop", "host or port is wrong"),
        ("mysql://ann:s3cr3t@[h/shop", "host or port is wrong"),
        ("mysql://ann:s3cr3t@h/", "names no database"),
        ("postgresql://ann:s3cr3t@h/shop?options=-cx", "unknown option 'options'"),
        ("mysql://ann:s3cr3t@h/shop?local_infile=1", "unknown option 'local_infile'"),
        ("mysql://ann:${NOT_SET}@h/shop", "no variable NOT_SET"),
        ("${NOT_SET}", "no variable NOT_SET"),
    ],
)
def test_urls_that_name_nothing(url: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        Source.of(url)
    assert caught.value.todo
    assert "s3cr3t" not in f"{caught.value} {caught.value.__cause__}"


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    sources._need.cache_clear()
    try:
        with pytest.raises(MissingExtra, match="sqlalchemy"):
            Source.of("postgresql://ann@h/shop")
    finally:
        sources._need.cache_clear()


def test_what_a_worker_is_told(shop: Path, tmp_path: Path) -> None:
    assert request_of(shop) == {"engine": "sqlite", "db": str(shop)}
    assert request_of(Source("files", str(tmp_path / "gone")))["files"] == [str(tmp_path / "gone")]
    with pytest.raises(DataError):
        request_of("mssql://h/shop")


def test_a_worker_has_no_key_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_KEY", SECRET)
    pool = Pool(1)
    try:
        assert pool.run_now("", "SELECT 1").error_class == "missing"
        (worker,) = pool._workers
        told = Path(f"/proc/{worker.process.pid}/environ").read_bytes()
        assert b"PATH=" in told and b"SHOP_API_KEY" not in told
        assert "SHOP_API_KEY" in os.environ
        assert pool.run_now("mssql://h/shop", "SELECT 1").error_class == "missing"
    finally:
        pool.close()
