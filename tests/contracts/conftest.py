"""Stores to keep the contract on: a file, and a schema of its own on the PostgreSQL server of VERBAL_TEST_POSTGRES."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest


@pytest.fixture
def postgres_url():
    """The URL of a store in a schema that nobody else uses; it is dropped afterwards."""
    server = os.environ.get("VERBAL_TEST_POSTGRES", "")
    if not server:
        pytest.skip("no PostgreSQL: set VERBAL_TEST_POSTGRES to the URL of a throw-away server (.ci/run starts one)")
    import psycopg

    schema = f"test_{uuid.uuid4().hex}"
    yield f"{server}{'&' if '?' in server else '?'}schema={schema}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"SET client_min_messages = warning; DROP SCHEMA IF EXISTS {schema} CASCADE")  # type: ignore[arg-type]
    db.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, of each kind of database in turn."""
    if request.param == "sqlite":
        return str(tmp_path / "verbal.db")
    return str(request.getfixturevalue("postgres_url"))
