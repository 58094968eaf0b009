"""MySQL and MariaDB for `server.py`: PyMySQL, unbuffered cursors, READ ONLY transactions.

A READ ONLY transaction covers neither SET nor KILL nor FLUSH nor files: those never get here (`words.refusal` lets
only queries pass, the driver sends one statement at a time), and accounts with such rights are refused.
"""

from __future__ import annotations

import re
from typing import Any

from .server import CONNECT_SECONDS

_HARMLESS = {
    "USAGE", "SELECT", "SHOW VIEW", "SHOW DATABASES", "EXECUTE", "PROCESS", "LOCK TABLES", "REPLICATION CLIENT",
    "BINLOG MONITOR", "SLAVE MONITOR",
}  # fmt: skip
_POWERFUL = {"ALL PRIVILEGES", "SUPER", "FILE", "SHUTDOWN", "RELOAD", "CREATE USER", "CONNECTION ADMIN"}
_QUOTING = {"NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "ANSI", "ORACLE", "POSTGRESQL", "MSSQL", "DB2", "MAXDB"}
"""Modes in which a text ends elsewhere than the guard sees it end."""
_NUMBERS = {
    "no_such_table": (1146, 1109), "no_such_column": (1054,), "no_such_function": (1305, 1630, 1128),
    "ambiguous_column": (1052,), "syntax": (1064, 1149), "not_a_query": (1065,), "timeout": (1317, 1969, 3024),
    "misuse_of_aggregate": (1111, 1055, 1140, 1056), "misuse": (3593, 4015, 4016),
    "denied": (1792, 1142, 1143, 1044, 1227, 1290, 1370), "locked": (1205, 1213), "missing": (1049,),
    "login": (1045, 1698), "unreachable": (2002, 2003, 2006, 2013, 2055, 1053, 1040, 0),
    "wrong_arguments": (1582, 1583, 1318, 1107), "set_columns": (1222,), "division_by_zero": (1365,),
    "too_big": (1038, 1041, 1037, 1153, 1301, 1114, 1104, 4031), "type_mismatch": (1366, 1292, 1525),
}  # fmt: skip
_CLASSES = {number: name for name, numbers in _NUMBERS.items() for number in numbers}


def _grants(connection: Any) -> str:
    """The statement that lists rights, those of active roles included (MariaDB lists them anyway)."""
    if connection.dialect.is_mariadb:
        return "SHOW GRANTS"
    roles = connection.exec_driver_sql("SELECT CURRENT_ROLE()").scalar()  # names as the server quotes them
    return "SHOW GRANTS" if roles in (None, "NONE") else f"SHOW GRANTS FOR CURRENT_USER() USING {roles}"


class MySql:
    """MySQL 8 or newer, MariaDB 10.5 or newer."""

    hashes = True
    stops = False

    def connect(self, server: dict[str, Any]) -> Any:
        """A PyMySQL connection without LOCAL INFILE and without several statements."""
        return self._connect(server, CONNECT_SECONDS)

    @staticmethod
    def _connect(server: dict[str, Any], seconds: float) -> Any:
        import pymysql

        options = {name: value for name, value in server["options"].items() if name.startswith("ssl")}
        place = {"unix_socket": server["host"]} if server["host"].startswith("/") else {"host": server["host"]}
        return pymysql.connect(
            **place, **options, port=server["port"], user=server["user"] or None, password=server["password"] or "",
            database=server["database"], charset=server["options"].get("charset", "utf8mb4"), autocommit=True,
            connect_timeout=seconds, local_infile=False,
        )  # fmt: skip

    def engine(self, creator: Any) -> Any:
        """The SQLAlchemy engine on a PyMySQL connection."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        return create_engine(
            "mysql+pymysql://", creator=creator, poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )  # fmt: skip

    def account(self, connection: Any, server: dict[str, Any]) -> tuple[str, list[str]]:
        """Refuses accounts that may reach files, settings or other accounts, unless `allow_superuser=1`."""
        connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
        modes = str(connection.exec_driver_sql("SELECT @@sql_mode").scalar() or "").split(",")
        kept = ",".join(mode for mode in modes if mode not in _QUOTING)
        connection.exec_driver_sql("SET SESSION sql_mode = %s", (kept,))
        name = connection.exec_driver_sql("SELECT CURRENT_USER()").scalar()
        powerful, writing = False, False
        for (line,) in connection.exec_driver_sql(_grants(connection)):
            if found := re.match(r"GRANT (.+?) ON (\S+) TO ", line):
                rights = {re.sub(r"\s*\(.*", "", right).strip() for right in found[1].split(",")}
                powerful |= found[2] == "*.*" and bool(rights & _POWERFUL)
                writing |= bool(rights - _HARMLESS)
        if powerful and server["options"].get("allow_superuser") != "1":
            return f"the account {name} has rights over the server; use one that may only read", []
        warning = f"the account {name} may write; only READ ONLY transactions keep it from that"
        return "", [warning] if writing else []

    def begin(self, connection: Any, seconds: float, wait: float) -> None:
        """Time limits of the session, then the transaction."""
        lock = max(1, round(wait))
        waits = f"innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}"
        if connection.dialect.is_mariadb:
            limits = f"max_statement_time = {max(seconds, 0.001):.3f}"
        else:
            limits = f"max_execution_time = {max(1, int(seconds * 1000))}"
        connection.exec_driver_sql(f"SET SESSION {limits}, {waits}")
        connection.exec_driver_sql("START TRANSACTION READ ONLY")

    def end(self, connection: Any) -> None:
        """Rolls back; locks of the session are given up too."""
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("DO RELEASE_ALL_LOCKS()")

    def cancel(self, raw: Any, server: dict[str, Any]) -> None:
        """KILL, over a connection of its own: the session is not used again."""
        if (unread := getattr(raw, "_result", None)) is not None:
            unread.unbuffered_active = False  # or the driver would read the rest of the rows when it is collected
        other = self._connect(server, 1.0)
        try:
            with other.cursor() as cursor:
                cursor.execute(f"KILL {int(raw.thread_id())}")
        finally:
            other.close()

    def error(self, error: Any) -> tuple[str, str]:
        """By the server's number."""
        number, message = (*error.args, "", "")[:2] if error.args else (-1, "")
        text = str(message or error).partition("\n")[0]
        return text, _CLASSES.get(number, "other") if isinstance(number, int) else "other"

    def schema(self, server: dict[str, Any]) -> str | None:
        """The URL's database."""
        return None
