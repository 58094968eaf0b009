"""The store in PostgreSQL: what a file does not know. Sessions that end, rights, schemas; passwords in no message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from verbal.errors import ConfigError, StoreError
from verbal.store import Store
from verbal.types import Attempt

SECRET = "s3cr3t/p@ss"


def attempt(key: str) -> Attempt:
    return Attempt(id=key, run="r", task="t")


def schema_of(url: str) -> str:
    return url.rpartition("schema=")[2]


@pytest.fixture
def admin(postgres_url: str) -> Iterator[Any]:
    """Another session on the same server."""
    import psycopg

    with psycopg.connect(postgres_url.partition("?schema=")[0].partition("&schema=")[0], autocommit=True) as db:
        yield db
    db.close()


def backend(store: Store) -> int:
    return int(store._database.read("SELECT pg_backend_pid()")[0][0])


def end(admin: Any, store: Store) -> None:
    """The server ends the session of a store, as on a restart; it is gone when this returns."""
    admin.execute("SELECT pg_terminate_backend(%s, 10000)", (backend(store),))


def changed(url: str, *, user: str | None = None, password: str | None = None, **fields: str) -> str:
    """A URL with parts of it replaced."""
    parts = urlsplit(url)
    host = f"{parts.hostname}:{fields.pop('port', parts.port)}"
    login = f"{user or parts.username}:{password if password is not None else parts.password}"
    return urlunsplit(parts._replace(netloc=f"{login}@{host}", **fields))


def test_a_store_says_where_it_is_without_the_password(postgres_url: str) -> None:
    with Store(postgres_url) as store:
        parts = urlsplit(postgres_url)
        assert store.where.startswith(f"postgresql://{parts.username}@")
        assert store.where.endswith(f"schema={schema_of(postgres_url)}")
        assert parts.password is None or parts.password not in store.where
        assert store.folder == Path("runs")
        assert store.memory_folder == Path("runs") / f"{parts.path[1:]}.{schema_of(postgres_url)}.memory"
        with pytest.raises(ConfigError, match="is no file"):
            _ = store.path
        assert "verbal" in str(store._database.read("SHOW application_name"))


def test_no_message_shows_the_password(postgres_url: str) -> None:
    urls = {
        "no such role, or not this password": changed(postgres_url, user="nobody", password="s3cr3t%2Fp%40ss"),
        "no such database": changed(postgres_url, path="/nowhere"),
        "nobody listens": changed(postgres_url, port="1", password="s3cr3t%2Fp%40ss"),
        "a broken escape": changed(postgres_url, password="s3cr3t%zz"),
        "an option that does not exist": f"{changed(postgres_url, password='s3cr3t%2Fp%40ss')}&nothing=s3cr3t",
        "a bracket": "postgresql://me:s3cr3t[@localhost/x",
        "a schema that is SQL": "postgresql://me:s3cr3t@localhost/x?schema=a;b",
    }
    password = urlsplit(postgres_url).password
    for case, url in urls.items():
        with pytest.raises((StoreError, ConfigError)) as caught:
            Store(url)
        assert caught.value.todo and caught.value.todo != "check the server and its log", (case, str(caught.value))
        shown = f"{caught.value} {caught.value!r}"
        assert "s3cr3t" not in shown and (not password or password not in shown), case
        hidden = caught.value.__suppress_context__ or caught.value.__context__ is None
        assert hidden and caught.value.__cause__ is None, f"{case}: a traceback would show the original"


def test_a_session_that_was_ended_between_statements_is_opened_again(postgres_url: str, admin: Any) -> None:
    with Store(postgres_url) as store:
        store.put_attempt(attempt("a"))
        end(admin, store)
        assert [a.id for a in store.attempts()] == ["a"]
        end(admin, store)
        assert store.put_attempt(attempt("b")) is True
        end(admin, store)
        with store.transaction():
            store.put_attempt(attempt("c"))
        assert [a.id for a in store.attempts()] == ["a", "b", "c"]
        assert store._database.read("SHOW lock_timeout") == [("30s",)]


def test_a_session_that_was_ended_inside_a_transaction_undoes_it(postgres_url: str, admin: Any) -> None:
    with Store(postgres_url) as store:
        with pytest.raises(StoreError) as caught, store.transaction():
            store.put_attempt(attempt("a"))
            end(admin, store)
            with pytest.raises(StoreError):
                store.put_attempt(attempt("b"))
            store.put_attempt(attempt("c"))
        assert "use --resume" in caught.value.todo
        assert caught.value.where == store.where
        assert store.attempts() == []
        assert store.put_attempt(attempt("a")) is True


def test_a_statement_that_failed_and_was_swallowed_is_never_called_kept(postgres_url: str) -> None:
    """The server gives up a whole transaction after a failed statement, and ends it without an error."""
    with Store(postgres_url) as store:
        with pytest.raises(StoreError, match="so it was undone"), store.transaction():
            store.put_attempt(attempt("a"))
            with pytest.raises(StoreError, match='relation "nowhere" does not exist'):
                store._database.read("SELECT nothing FROM nowhere")
        assert store.attempts() == []
        assert store.put_attempt(attempt("a")) is True


def test_a_locked_store_is_waited_for_and_then_named(postgres_url: str) -> None:
    with Store(postgres_url) as store, Store(postgres_url) as other:
        other._database.read("SELECT set_config('lock_timeout', '100ms', false)")
        with store.transaction():
            with pytest.raises(StoreError, match="lock timeout") as caught:
                other.put_attempt(attempt("a"))
            assert "another process holds the store" in caught.value.todo
            assert other.attempts() == [], "who only reads waits for nobody"
        assert other.put_attempt(attempt("a")) is True


def test_writers_of_single_rows_do_not_wait_for_each_other(postgres_url: str) -> None:
    with Store(postgres_url) as store, Store(postgres_url) as other:
        with store._database.write():
            store.put_attempt(attempt("a"))
            assert other.put_attempt(attempt("b")) is True
        assert len(store.attempts()) == 2


def test_a_schema_of_someone_else_is_left_alone(postgres_url: str, admin: Any) -> None:
    schema = schema_of(postgres_url)
    admin.execute(f"CREATE SCHEMA {schema}")
    admin.execute(f"CREATE TABLE {schema}.customer (id INT)")
    with pytest.raises(StoreError, match="not a store of verbal, so it is left alone"):
        Store(postgres_url)
    assert admin.execute("SELECT COUNT(*) FROM pg_tables WHERE schemaname = %s", (schema,)).fetchone() == (1,)


def test_a_store_of_another_version(postgres_url: str, admin: Any) -> None:
    Store(postgres_url).close()
    admin.execute(f"UPDATE {schema_of(postgres_url)}.meta SET value = '99'")
    with pytest.raises(StoreError, match="the store is of version 99"):
        Store(postgres_url)


def test_a_user_who_may_only_read_reads(postgres_url: str, admin: Any) -> None:
    schema, role = schema_of(postgres_url), f"reader_{schema_of(postgres_url)[-12:]}"
    admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
    try:
        reader = changed(postgres_url, user=role, password="s3cr3t%2Fp%40ss")
        for _ in range(2):  # the schema is not there, then it is and he may not use it
            with pytest.raises(StoreError) as caught:
                Store(reader)
            assert "let this user use the schema" in caught.value.todo
            with Store(postgres_url) as store:
                store.put_attempt(attempt("a"))
        admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
        with Store(reader) as store:
            assert [a.id for a in store.attempts()] == ["a"]
            with pytest.raises(StoreError, match="permission denied for table attempts"):
                store.put_attempt(attempt("b"))
    finally:
        admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_database_of_another_encoding_is_refused(postgres_url: str, admin: Any) -> None:
    name = f"latin_{schema_of(postgres_url)[-12:]}"
    admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(StoreError, match="encoding is LATIN1") as caught:
            Store(changed(postgres_url, path=f"/{name}"))
        assert "--encoding=UTF8" in caught.value.todo
    finally:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_closed_store_stays_closed(postgres_url: str) -> None:
    store = Store(postgres_url)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.runs()
    with pytest.raises(StoreError, match="closed"):
        store.put_attempt(attempt("a"))
