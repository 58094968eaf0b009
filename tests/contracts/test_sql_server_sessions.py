"""SQL servers: nothing is left running there, lost sessions are made again, dangerous accounts are refused."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from sql_places import SERVERS, Place

from verbal.apps.text2sql import pipe
from verbal.apps.text2sql.worker import Limits, Pool
from verbal.errors import DataError


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(1, Limits(seconds=10))
    yield made
    made.close()


def gone(place: Place) -> bool:
    for _ in range(400):
        if place.running() == 0:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[Place]:
    with SERVERS[request.param]() as found:
        yield found


def hang(pool: Pool, place: Place, seconds: float) -> threading.Thread:
    """A query that runs for long, once it runs."""
    assert pool.run_now(place.db, "SELECT 1").error is None  # the session stands
    thread = threading.Thread(target=pool.run_now, args=(place.db, place.endless[0], Limits(seconds=seconds)))
    thread.start()
    while place.running() == 0 and thread.is_alive():
        time.sleep(0.02)
    return thread


def test_a_closed_pool_leaves_nothing_on_the_server(server: Place) -> None:
    pool = Pool(1)
    thread = hang(pool, server, 60)
    pool.close()
    thread.join()
    assert gone(server)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_leaves_nothing_on_the_server_for_long(server: Place, sign: signal.Signals) -> None:
    if sign == signal.SIGSTOP and server.kind == "mysql":
        pytest.skip("shown with PostgreSQL: what the parent does with a worker that is deaf")
    pool = Pool(1)
    try:
        thread = hang(pool, server, 1)
        (worker,) = pool._workers
        os.kill(worker.process.pid, sign)
        thread.join()
        assert gone(server)
        assert pool.run_now(server.db, "SELECT COUNT(*) FROM u").rows == ((2,),)
    finally:
        pool.close()


def test_a_session_that_the_server_ended_is_made_again(server: Place, pool: Pool) -> None:
    number = "pg_backend_pid()" if server.kind == "postgresql" else "CONNECTION_ID()"
    session = pool.run_now(server.db, f"SELECT {number}").rows[0][0]
    server.end(session)
    again = pool.run_now(server.db, f"SELECT {number}")
    assert again.error is None and again.rows[0][0] != session


def test_accounts_with_too_many_rights_and_wrong_logins_are_refused(pool: Pool) -> None:
    urls = [url for url in (os.environ.get("VERBAL_TEST_POSTGRES"), os.environ.get("VERBAL_TEST_MYSQL")) if url]
    if not urls:
        pytest.skip("no server: set VERBAL_TEST_POSTGRES or VERBAL_TEST_MYSQL")
    for url in urls:
        assert pool.run_now(url, "SELECT 1").error_class == "refused_account"
        parts = urlsplit(url)
        wrong = url.replace(f"{parts.username}:{parts.password}", "nobody:s3cret")
        found = pool.run_now(wrong, "SELECT 1")
        assert found.error_class == "login" and "s3cret" not in str(found.error)
        with pytest.raises(DataError) as caught:
            pool.catalog_now(wrong)
        assert "s3cret" not in str(caught.value)
        assert pool.run_now(wrong.replace(str(parts.port), "9"), "SELECT 1").error_class == "unreachable"


def test_a_server_that_does_not_answer_is_unreachable(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipe.OPENING, "server", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/shop"
        result = pool.run_now(url, "SELECT 1", Limits(seconds=60))
    assert (result.error_class, result.error) == ("unreachable", "the database did not open within 0.3 s")
