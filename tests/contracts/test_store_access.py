"""Keys, people and sessions of a store, in SQLite and PostgreSQL: found, ended, and never kept as they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from verbal.errors import ConfigError, UnknownName
from verbal.store import Store


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store(store_url) as made:
        yield made


def test_a_key_is_shown_once_and_kept_as_its_digest(store: Store) -> None:
    key = store.add_key("shop", {"rpm": 5})
    assert key.startswith("sk-verbal-") and len(key) >= 10 + 43
    assert store.add_key("shop") != key
    found = store.api_keys()[0]
    assert (found["project"], found["rpm"], found["expires"], found["revoked"]) == ("shop", 5, None, None)
    assert key not in repr(store.api_keys())


def test_a_key_ends_once(store: Store) -> None:
    store.add_key("shop", days=1)
    row = store.api_keys()[0]
    assert row["expires"] - row["made"] == pytest.approx(86400)
    assert store.revoke_key(row["id"])
    assert not store.revoke_key(row["id"])
    assert store.api_keys()[0]["revoked"] is not None
    with pytest.raises(UnknownName, match="key"):
        store.revoke_key("key-nobody")


def test_uses_of_several_servers_add_up_and_a_later_figure_replaces(store: Store) -> None:
    store.put_key_use("k", "2026-01", "a", 1, 10, 0.5)
    store.put_key_use("k", "2026-01", "a", 2, 20, 1.0)
    store.put_key_use("k", "2026-01", "b", 1, 5, 0.25)
    assert store.key_uses() == {("k", "2026-01"): (3, 25, 1.25)}
    assert store.key_uses(but="a") == {("k", "2026-01"): (1, 5, 0.25)}


def test_a_person_logs_in_and_out(store: Store) -> None:
    store.add_user("ada", "correct horse", team="sales", admin=True)
    assert store.check_password("ada", "correct horse")
    assert not store.check_password("ada", "correct horsE")
    assert not store.check_password("bob", "correct horse")
    found = store.user("ada")
    assert found is not None and (found["team"], found["admin"]) == ("sales", True)
    assert "password" not in found and store.users() == [found]
    token = store.open_session("ada")
    assert store.session_user(token) == "ada"
    assert store.session_user("x" * 43) is None
    store.close_session(token)
    assert store.session_user(token) is None


def test_sessions_end_with_time_a_new_password_and_the_person(store: Store) -> None:
    store.add_user("ada", "correct horse")
    over, later = store.open_session("ada", seconds=-1.0), store.open_session("ada")
    assert (store.session_user(over), store.session_user(later)) == (None, "ada")
    store.set_password("ada", "battery staple")
    assert store.session_user(later) is None and store.check_password("ada", "battery staple")
    again = store.open_session("ada")
    store.remove_user("ada")
    assert store.session_user(again) is None and store.user("ada") is None
    for ends in (store.remove_user, lambda name: store.set_password(name, "battery staple")):
        with pytest.raises(UnknownName, match="user"):
            ends("ada")


@pytest.mark.parametrize("name", ["", "Ada", "../x", "a b", "-a", "a/b", "a" * 65, "ä"])
def test_names_that_would_not_do_in_the_names_of_memories_are_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name"):
        store.add_user(name, "correct horse")
    with pytest.raises(ConfigError, match="is no name"):
        store.add_key(name)


def test_a_short_password_and_a_name_twice_are_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="7 characters"):
        store.add_user("ada", "1234567")
    store.add_user("ada", "12345678")
    with pytest.raises(ConfigError, match="already"):
        store.add_user("ada", "12345678")
