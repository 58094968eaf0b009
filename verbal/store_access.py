"""Who may use what the store serves: keys of programs, and people with their passwords and sessions.

Nothing here can be turned back into what it was made from. A key and a session are 256 random bits, so their plain
SHA-256 is enough: there is nothing to guess, and a slow hash would only slow each request down. A password is chosen by
a person and can be guessed, so it is hashed with scrypt and a salt of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from verbal.database import Records
from verbal.errors import ConfigError, UnknownName

ACCESS_TABLES = """
CREATE TABLE IF NOT EXISTS api_keys (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, project TEXT NOT NULL,
    made REAL NOT NULL, expires REAL, revoked REAL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS key_uses (id TEXT NOT NULL, period TEXT NOT NULL, owner TEXT NOT NULL,
    calls INTEGER NOT NULL, tokens INTEGER NOT NULL, cost REAL NOT NULL, PRIMARY KEY (id, period, owner));
CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, team TEXT NOT NULL, admin INTEGER NOT NULL,
    password TEXT NOT NULL, made REAL NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, name TEXT NOT NULL, opened REAL NOT NULL,
    expires REAL NOT NULL);
CREATE INDEX IF NOT EXISTS sessions_by_name ON sessions (name);
"""
"""The tables of this file, in the order they are made."""
KEY_PREFIX = "sk-verbal-"
"""How a key begins: as scanners for secrets, and `redact`, know keys."""
SHORTEST_PASSWORD = 8
"""Characters of a password."""
LONGEST_PASSWORD = 1024
"""The most of them."""
SESSION_SECONDS = 30 * 86400.0
"""How long a session lasts when nobody says otherwise."""

_KEY = "id, project, made, expires, revoked, record"
_NAME = re.compile(r"[a-z0-9](?:(?!.*\.\.)[a-z0-9._-]{0,62}[a-z0-9])?")
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}  # 32 MB and about a tenth of a second for each guess
_NOBODY = f"scrypt${_SCRYPT['n']}${_SCRYPT['r']}${_SCRYPT['p']}${'00' * 16}${'00' * 32}"


class AccessRecords(Records):
    """Keys, what they used, people and sessions."""

    # keys of programs ---------------------------------------------------------------------------------------------

    def add_key(self, project: str, record: Mapping[str, Any] | None = None, *, days: float | None = None) -> str:
        """Makes a key and gives it; it is kept nowhere and cannot be shown again.

        Args:
            project: What is captured under it is filed there.
            record: What it may do (`routes`, `rpm`, `max_cost`, `max_tokens`, `per`), as plain JSON types.
            days: How long it is good; for ever when None.
        """
        key, now = KEY_PREFIX + secrets.token_urlsafe(32), time.time()
        values = (
            f"key-{secrets.token_hex(4)}", digest_of(key), checked_name(project, "project"), now,
            None if days is None else now + days * 86400.0, None, json.dumps(dict(record or {})),
        )  # fmt: skip
        with self._database.write() as db:
            db.change("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        return key

    def api_keys(self) -> list[dict[str, Any]]:
        """Every key, oldest first: id, hash, project, made, expires, revoked, and what it may do."""
        rows = self._database.read(f"SELECT hash, {_KEY} FROM api_keys ORDER BY made, id")
        names = ("hash", *_KEY.split(", ")[:-1])
        return [{**json.loads(r[-1]), **dict(zip(names, r[:-1], strict=True))} for r in rows]

    def revoke_key(self, id: str) -> bool:
        """Ends a key; False when it had ended before.

        Raises:
            UnknownName: no key of that id.
        """
        with self._database.write(alone=True) as db:
            if not db.read("SELECT 1 FROM api_keys WHERE id = ?", (id,)):
                raise UnknownName.of("key", id, [k["id"] for k in self.api_keys()], where=self.where)
            sql = "UPDATE api_keys SET revoked = ? WHERE id = ? AND revoked IS NULL"
            return bool(db.change(sql, (time.time(), id)))

    def put_key_use(self, id: str, period: str, owner: str, calls: int, tokens: int, cost: float) -> None:
        """Keeps what one server (`owner`) let a key use in a period; its later figures replace its earlier ones."""
        with self._database.write() as db:
            db.change(
                "INSERT INTO key_uses VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id, period, owner) DO UPDATE SET "
                "calls = excluded.calls, tokens = excluded.tokens, cost = excluded.cost",
                (id, period, owner, calls, tokens, cost),
            )

    def key_uses(self, *, but: str = "") -> dict[tuple[str, str], tuple[int, int, float]]:
        """(key, period) -> calls, tokens and cost of all servers together, without those of the server `but`."""
        rows = self._database.read(
            "SELECT id, period, SUM(calls), SUM(tokens), SUM(cost) FROM key_uses WHERE owner <> ? "
            "GROUP BY id, period ORDER BY id, period",
            (but,),
        )
        return {(r[0], r[1]): (int(r[2]), int(r[3]), float(r[4])) for r in rows}

    # people -------------------------------------------------------------------------------------------------------

    def add_user(self, name: str, password: str, *, team: str = "", admin: bool = False) -> None:
        """Adds a person.

        Raises:
            ConfigError: the name is taken or not allowed, or the password is short.
        """
        values = (
            checked_name(name, "user"), checked_name(team, "team") if team else "", int(admin),
            hash_password(password), time.time(),
        )  # fmt: skip
        with self._database.write() as db:
            if not db.change("INSERT INTO users VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values):
                todo = "take another name, or remove this user first"
                raise ConfigError(f"there is a user {name!r} already", where=self.where, todo=todo)

    def users(self) -> list[dict[str, Any]]:
        """Every person by name: name, team, admin, made."""
        rows = self._database.read("SELECT name, team, admin, made FROM users ORDER BY name")
        return [{"name": r[0], "team": r[1], "admin": bool(r[2]), "made": r[3]} for r in rows]

    def user(self, name: str) -> dict[str, Any] | None:
        """The person of that name (name, team, admin, made), or None."""
        rows = self._database.read("SELECT name, team, admin, made FROM users WHERE name = ?", (name,))
        return {"name": rows[0][0], "team": rows[0][1], "admin": bool(rows[0][2]), "made": rows[0][3]} if rows else None

    def check_password(self, name: str, password: str) -> bool:
        """Whether that is the password of that person; it takes as long for a name that nobody has."""
        rows = self._database.read("SELECT password FROM users WHERE name = ?", (name,))
        same = _same_password(password, rows[0][0] if rows else _NOBODY)
        return bool(rows) and same

    def set_password(self, name: str, password: str) -> None:
        """Gives a person another password and ends their sessions.

        Raises:
            UnknownName: nobody of that name. ConfigError: the password is short.
        """
        hashed = hash_password(password)
        with self._database.write() as db:
            if not db.change("UPDATE users SET password = ? WHERE name = ?", (hashed, name)):
                raise UnknownName.of("user", name, [u["name"] for u in self.users()], where=self.where)
            db.change("DELETE FROM sessions WHERE name = ?", (name,))

    def remove_user(self, name: str) -> None:
        """Removes a person and ends their sessions; what they said stays.

        Raises:
            UnknownName: nobody of that name.
        """
        with self._database.write() as db:
            if not db.change("DELETE FROM users WHERE name = ?", (name,)):
                raise UnknownName.of("user", name, [u["name"] for u in self.users()], where=self.where)
            db.change("DELETE FROM sessions WHERE name = ?", (name,))

    # sessions -----------------------------------------------------------------------------------------------------

    def open_session(self, name: str, seconds: float = SESSION_SECONDS) -> str:
        """Opens a session for a person and gives its token, which is kept nowhere; drops those that are over."""
        token, now = secrets.token_urlsafe(32), time.time()
        with self._database.write() as db:
            db.change("DELETE FROM sessions WHERE expires < ?", (now,))
            db.change("INSERT INTO sessions VALUES (?, ?, ?, ?)", (digest_of(token), name, now, now + seconds))
        return token

    def session_user(self, token: str) -> str | None:
        """Name of the person whose session this is; None when there is none or it is over."""
        sql = "SELECT name FROM sessions WHERE token = ? AND expires >= ?"
        rows = self._database.read(sql, (digest_of(token), time.time()))
        return str(rows[0][0]) if rows else None

    def touch_session(self, token: str, idle: float, most: float) -> None:
        """Lets a session that is in use last `idle` seconds from now, but `most` seconds from its opening at most."""
        digest, now = digest_of(token), time.time()
        with self._database.write(alone=True) as db:
            for (opened,) in db.read("SELECT opened FROM sessions WHERE token = ? AND expires >= ?", (digest, now)):
                until = min(now + idle, opened + most)
                db.change("UPDATE sessions SET expires = ? WHERE token = ?", (until, digest))

    def close_session(self, token: str) -> None:
        """Ends a session, if there is one."""
        with self._database.write() as db:
            db.change("DELETE FROM sessions WHERE token = ?", (digest_of(token),))


def digest_of(secret: str) -> str:
    """SHA-256 of a random secret, in hex: what is kept of it, and by which it is found."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hash_password(password: str) -> str:
    """A password as it is kept: scrypt, its numbers, a salt of its own and the hash.

    Raises:
        ConfigError: it is short, or longer than what is taken.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        what = f"the password has {len(password):,} characters"
        raise ConfigError(what, todo=f"take one of {SHORTEST_PASSWORD} to {LONGEST_PASSWORD:,}")
    salt = secrets.token_bytes(16)
    numbers = f"{_SCRYPT['n']}${_SCRYPT['r']}${_SCRYPT['p']}"
    return f"scrypt${numbers}${salt.hex()}${_scrypt(password, salt, **_SCRYPT).hex()}"


def checked_name(name: str, what: str) -> str:
    """The name of a user, a team or a project: it becomes part of the names of memories and runs.

    It is one that the chat agent takes, too.

    Raises:
        ConfigError: it holds something else than small letters, digits and `._-`, does not begin and end with a letter
            or digit, has two dots in a row, or is empty or long.
    """
    if _NAME.fullmatch(name):
        return name
    todo = "take small letters, digits, dots, dashes and underscores, a letter or digit first and last, at most 64"
    raise ConfigError(f"the {what} {name[:80]!r} is no name", todo=todo)


def _same_password(password: str, kept: str) -> bool:
    _, n, r, p, salt, hashed = kept.split("$")
    found = _scrypt(password, bytes.fromhex(salt), n=int(n), r=int(r), p=int(p))
    return hmac.compare_digest(found, bytes.fromhex(hashed))


def _scrypt(password: str, salt: bytes, *, n: int, r: int, p: int) -> bytes:
    text = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(text, salt=salt, n=n, r=r, p=p, maxmem=2 * 128 * n * r * p, dklen=32)


__all__ = [
    "ACCESS_TABLES", "KEY_PREFIX", "LONGEST_PASSWORD", "SESSION_SECONDS", "SHORTEST_PASSWORD", "AccessRecords",
    "checked_name", "digest_of", "hash_password",
]  # fmt: skip
