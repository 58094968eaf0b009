"""`verbal ui` as a real process, and `verbal users`: what they print, whom they let in, how they end."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import subprocess
import sys

import pytest

from verbal.cli import main
from verbal.store import Store


@pytest.fixture
def said(monkeypatch, capsys):
    """Runs a command; gives what it prints."""

    def run(*words: str, password: str = "", status: int = 0) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(password))
        monkeypatch.setattr(sys, "argv", ["verbal", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert ended.value.code == status, told.err
        return " ".join((told.out + told.err).replace("│", " ").split())

    return run


def test_people_are_added_listed_and_removed(tmp_path, said):
    store = str(tmp_path / "v.db")
    Store(store).close()
    assert "nobody" in said("users", "list", "--store", store)
    told = said("users", "add", "ann", "--team", "ops", "--store", store, password="long enough\n")
    assert "ann may log in, team ops" in told and "nobody is an admin yet" in told
    said("users", "add", "root", "--admin", "--store", store, password="long enough too\n")
    listed = json.loads(said("users", "list", "--json", "--store", store))
    assert [(u["name"], u["team"], u["admin"]) for u in listed] == [("ann", "ops", False), ("root", "", True)]
    assert "already" in said("users", "add", "ann", "--store", store, password="long enough\n", status=2)
    assert "characters" in said("users", "add", "bob", "--store", store, password="short\n", status=2)
    assert "no name" in said("users", "add", "Bob Two", "--store", store, password="long enough\n", status=2)
    with Store(store) as opened:
        assert opened.check_password("ann", "long enough") and not opened.check_password("ann", "long enough ")
        token = opened.open_session("ann")
        assert "logged out everywhere" in said("users", "password", "ann", "--store", store, password="quite another\n")
        assert opened.session_user(token) is None and opened.check_password("ann", "quite another")
        assert "unknown user" in said("users", "password", "cid", "--store", store, password="x\n", status=2)
        assert "characters" in said("users", "password", "ann", "--store", store, password="x" * 1025, status=2)
        token = opened.open_session("ann")
        said("users", "remove", "ann", "--store", store)
        assert opened.session_user(token) is None
    assert "unknown user" in said("users", "remove", "ann", "--store", store, status=2)


def test_other_than_loopback_needs_accounts(tmp_path, said):
    told = said("ui", "--host", "0.0.0.0", "--port", "0", "--store", str(tmp_path / "v.db"), status=2)
    assert "without accounts" in told and "verbal users add" in told


def test_the_server_says_where_it_is_lets_one_in_and_ends(tmp_path):
    command = [sys.executable, "-u", "-m", "verbal.cli", "ui", "--port", "0", "--store", str(tmp_path / "v.db")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"verbal ui: http://(127\.0\.0\.1:\d+)/\?token=(\S+)  \(good once\)\n", line)
        assert found, line
        connection = http.client.HTTPConnection(found[1], timeout=20)
        connection.request("GET", f"/?token={found[2]}")
        answer = connection.getresponse()
        answer.read()
        cookie = answer.getheader("set-cookie").partition(";")[0]
        connection.request("GET", "/api/me", headers={"Cookie": cookie})
        assert json.loads(connection.getresponse().read())["user"] == "local"
        connection.request("GET", "/api/me", headers={"Cookie": cookie, "Host": "evil.example"})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (403, "host")
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0 and out.endswith("stopping\n") and err == ""
    finally:
        process.kill()
        process.communicate()
