"""What a parser and an engine may read differently: whatever passes the guard calls nothing that is not on its list."""

from __future__ import annotations

import os
import re
import sqlite3
import uuid
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.apps.text2sql.guard import Guard
from verbal.apps.text2sql.worker import Pool

GUARDS = {dialect: Guard({"t": ["a", "b", "c"]}, dialect) for dialect in ("sqlite", "duckdb", "postgres", "mysql")}

_SIGNS = "/* */ -- -- ' '' \" ` [ ] \\ \\' $$ $a$ { } {# #} # {% 1 a E' x' /*! + | ( ) % ; * / {x evil() 'x' ,1"
_SPACES = ["\n", "\r", " ", "\t", "\x0b", "\x00", "\u00a0", "-- ", " AS a", " AS a$x$", ", evil() "]
PIECES = st.sampled_from([*re.split(" ", _SIGNS), *_SPACES])
SOUPS = st.lists(PIECES, min_size=1, max_size=9).map(lambda pieces: "SELECT 1" + "".join(pieces))


@settings(max_examples=400, deadline=None)
@given(SOUPS, st.sampled_from([", evil()", "\n, evil()", " evil() --'", ", evil() */", "{x evil()} -- #}"]))
def test_what_passes_calls_nothing_that_is_not_on_the_list(soup: str, end: str) -> None:
    sql = soup + end
    if GUARDS["sqlite"].check(sql) is None:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.create_function("evil", 0, lambda: "EVIL")
            assert "EVIL" not in _rows(connection, sql), sql
    if GUARDS["duckdb"].check(sql) is None:
        duckdb = pytest.importorskip("duckdb")
        with duckdb.connect() as connection:
            connection.execute("CREATE MACRO evil() AS 'EV' || 'IL'")
            assert "EVIL" not in _rows(connection, sql), sql


def _rows(connection: Any, sql: str) -> str:
    try:
        return repr(connection.execute(sql).fetchall())
    except Exception:  # most soups are no SQL
        return ""


@pytest.mark.parametrize("variable", ["VERBAL_TEST_POSTGRES", "VERBAL_TEST_MYSQL"])
def test_what_passes_calls_nothing_on_a_server(variable: str) -> None:
    if not os.environ.get(variable):
        pytest.skip(f"no server: set {variable} to the URL of a throw-away one")
    from sqlalchemy import create_engine

    postgres = variable.endswith("POSTGRES")
    _, _, address = os.environ[variable].partition("://")
    engine = create_engine(f"{'postgresql+psycopg' if postgres else 'mysql+pymysql'}://{address}")
    guard, body = GUARDS["postgres" if postgres else "mysql"], "'EV' || 'IL'" if postgres else "CONCAT('EV', 'IL')"
    name = f"evil_{uuid.uuid4().hex[:8]}"
    made = (
        f"RETURNS text LANGUAGE sql AS $$ SELECT {body} $$" if postgres else f"RETURNS text DETERMINISTIC RETURN {body}"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE FUNCTION {name}() {made}")
        raw = connection.connection.dbapi_connection
        try:

            @settings(max_examples=300, deadline=None)
            @given(SOUPS, st.sampled_from([", evil()", "\n, evil()", ", evil() */", "{x evil()} -- #}", "{x evil()}"]))
            def passes(soup: str, end: str) -> None:
                sql = (soup + end).replace("evil", name)
                if guard.check(sql) is None:
                    assert raw is not None
                    with closing(raw.cursor()) as cursor:
                        assert "EVIL" not in _answer(cursor, sql), sql

            passes()
        finally:
            connection.exec_driver_sql(f"DROP FUNCTION {name}{'()' if postgres else ''}")
    engine.dispose()


def _answer(cursor: Any, sql: str) -> str:
    try:
        cursor.execute(sql)
        return repr(cursor.fetchall())
    except Exception:  # most soups are no SQL
        return ""


@pytest.mark.parametrize("variable", ["VERBAL_TEST_POSTGRES", "VERBAL_TEST_MYSQL"])
def test_texts_end_on_a_server_where_the_guard_sees_them_end(variable: str) -> None:
    if not os.environ.get(variable):
        pytest.skip(f"no server: set {variable} to the URL of a throw-away one")
    from sqlalchemy import create_engine

    postgres, url, name = variable.endswith("POSTGRES"), os.environ[variable], f"guard_{uuid.uuid4().hex[:8]}"
    _, _, address = url.partition("://")
    engine = create_engine(f"{'postgresql+psycopg' if postgres else 'mysql+pymysql'}://{address}")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as owner, closing(Pool(1)) as pool:
        try:
            if postgres:  # the account's own setting, from before 2010
                sql = r"SELECT 'a\' || ' , 1 --'"
                owner.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
                owner.exec_driver_sql(f"ALTER ROLE {name} SET standard_conforming_strings = off")
            else:
                sql = r"SELECT 'a\' , 1 -- '"
                mode = owner.exec_driver_sql("SELECT @@GLOBAL.sql_mode").scalar()
                owner.exec_driver_sql(f"CREATE USER {name} IDENTIFIED BY '{name}'")
                owner.exec_driver_sql(f"GRANT SELECT ON {address.rpartition('/')[2]}.* TO {name}")
                owner.exec_driver_sql("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI'")
            own = f"{name}:{name}@{address.rpartition('@')[2]}"
            result = pool.run_now(f"{'postgresql' if postgres else 'mysql'}://{own}", sql)
            assert result.error is None and len(result.columns) == 1, "the text ended early: 1 stood outside of it"
        finally:
            if postgres:
                owner.exec_driver_sql(f"DROP ROLE IF EXISTS {name}")
            else:
                owner.exec_driver_sql("SET GLOBAL sql_mode = %s", (mode,))
                owner.exec_driver_sql(f"DROP USER IF EXISTS {name}")
    engine.dispose()
