"""PostgreSQL for `server.py`: psycopg, server-side cursors, READ ONLY transactions.

A query is sent as DECLARE CURSOR in the extended protocol: the server takes one statement, and only one that reads.
Dates, times, intervals and JSON come as the server writes them, so that infinity and years before 1 are text as well.
"""

from __future__ import annotations

from typing import Any

from .server import CONNECT_SECONDS

_OPTIONS = "-c default_transaction_read_only=on -c standard_conforming_strings=on"
"""The second keeps a text's end where the guard sees it, whatever the account's own setting is."""
_TEXT_TYPES = ("date", "timestamp", "timestamptz", "time", "timetz", "interval", "json", "jsonb")
_POWERFUL = ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files")
_LIMITS = """BEGIN READ ONLY;
SET LOCAL statement_timeout = {time}; SET LOCAL lock_timeout = {lock};
SET LOCAL idle_in_transaction_session_timeout = {idle}; SET LOCAL cursor_tuple_fraction = 1"""
_GONE = "; SET LOCAL client_connection_check_interval = 500"
"""A server from 14 on looks so often, in milliseconds, whether the client of a running query still stands."""
_STATES = {
    "42P01": "no_such_table", "3F000": "no_such_table", "42703": "no_such_column", "42883": "no_such_function",
    "42702": "ambiguous_column", "42725": "wrong_arguments", "42601": "syntax", "42803": "misuse_of_aggregate",
    "42P20": "misuse", "57014": "timeout", "55P03": "locked", "25006": "denied", "25001": "denied", "42501": "denied",
    "53200": "too_big", "54000": "too_big", "54001": "too_big", "22012": "division_by_zero",
    "22P02": "type_mismatch", "22007": "type_mismatch", "22003": "type_mismatch",
    "42804": "type_mismatch", "42846": "type_mismatch", "42809": "wrong_arguments",
    "0A000": "unsupported", "3D000": "missing", "28P01": "login", "28000": "login",
}  # fmt: skip
_LOST_STATES = ("08", "57P")
_WORDS = (
    ("password authentication failed", "login"), ("no password supplied", "login"), ("does not exist", "missing"),
    ("timeout expired", "unreachable"),
)  # fmt: skip

_BETTER = (("same number of columns", "set_columns"), ("data-modifying", "denied"))


class PostgreSql:
    """PostgreSQL 12 or newer (before 14 what a killed process leaves there runs on until its time limit)."""

    hashes = False
    stops = True

    def connect(self, server: dict[str, Any]) -> Any:
        """A psycopg connection; without a password libpq looks into its password file."""
        import psycopg
        from psycopg.types.string import TextLoader

        given = {name: server[name] for name in ("host", "port", "user", "password") if server[name]}
        options = {name: value for name, value in server["options"].items() if name.startswith("ssl")}
        raw = psycopg.connect(
            **given, **options, dbname=server["database"], connect_timeout=CONNECT_SECONDS, application_name="verbal",
            client_encoding="utf8", options=_OPTIONS, autocommit=True,
            prepare_threshold=None,
        )  # fmt: skip
        for name in _TEXT_TYPES:
            raw.adapters.register_loader(name, TextLoader)
        return raw

    def engine(self, creator: Any) -> Any:
        """The SQLAlchemy engine on a psycopg connection."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        return create_engine(
            "postgresql+psycopg://", creator=creator, poolclass=NullPool, use_native_hstore=False,
            isolation_level="AUTOCOMMIT",
        )  # fmt: skip

    def account(self, connection: Any, server: dict[str, Any]) -> tuple[str, list[str]]:
        """Refuses superusers and those who may touch the server's files, unless `allow_superuser=1`."""
        from sqlalchemy import text

        if schema := server["options"].get("schema"):
            connection.execute(text("SELECT set_config('search_path', quote_ident(:name), false)"), {"name": schema})
        name, powerful = connection.execute(
            text(
                "SELECT current_user, rolsuper OR EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = ANY(:roles)"
                " AND pg_has_role(current_user, r.oid, 'MEMBER')) FROM pg_roles WHERE rolname = current_user"
            ),
            {"roles": list(_POWERFUL)},
        ).one()
        if powerful and server["options"].get("allow_superuser") != "1":
            return f"the account {name} is a superuser; use one that may only read (or add allow_superuser=1)", []
        (writable,) = connection.execute(
            text(
                "SELECT COUNT(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE relkind IN"
                " ('r', 'p') AND nspname !~ '^pg_' AND nspname <> 'information_schema' AND"
                " has_schema_privilege(n.oid, 'USAGE') AND"
                " has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"
            )
        ).one()
        warning = f"the account {name} may write to {writable} tables; only READ ONLY transactions keep it from that"
        return "", [warning] if writable else []

    def begin(self, connection: Any, seconds: float, wait: float) -> None:
        """One round trip; the settings end with the transaction."""
        time, lock = max(1, int(seconds * 1000)), max(1, int(wait * 1000))
        raw = connection.connection.dbapi_connection
        looking = _GONE if raw.info.server_version >= 140_000 else ""
        raw.execute(_LIMITS.format(time=time, lock=lock, idle=time + 5000) + looking)

    def end(self, connection: Any) -> None:
        """Rolls back; locks of the session are given up too."""
        connection.connection.dbapi_connection.execute("ROLLBACK; SELECT pg_advisory_unlock_all()")

    def cancel(self, raw: Any, server: dict[str, Any]) -> None:
        """The cancel request of libpq, over a connection of its own."""
        raw.cancel_safe(timeout=1.0)

    def error(self, error: Any) -> tuple[str, str]:
        """By SQLSTATE, or by words where a connection failed before there was one."""
        diagnosis = getattr(error, "diag", None)
        message = (diagnosis and diagnosis.message_primary) or str(error).strip().partition("\n")[0]
        state = getattr(error, "sqlstate", None) or ""
        if name := _STATES.get(state):
            better = next((name for words, name in _BETTER if words in message), name)
            return message, better
        if state.startswith(_LOST_STATES):
            return message, "unreachable"
        if state:  # of a statement, which can put any words into a message
            return message, "other"
        lower = str(error).lower()
        if found := next((name for words, name in _WORDS if words in lower), ""):
            return message, found
        return message, "unreachable" if type(error).__name__ in ("OperationalError", "ConnectionTimeout") else "other"

    def schema(self, server: dict[str, Any]) -> str | None:
        """The option `schema`, else the session's own."""
        name: str | None = server["options"].get("schema")
        return name
