"""Questions about SQLite databases: the app `text2sql`."""

from .app import Text2Sql
from .environment import SqlEnvironment
from .replies import Proposal, Verdict
from .worker import Limits, Pool, Result

__all__ = ["Text2Sql", "SqlEnvironment", "Proposal", "Verdict", "Limits", "Pool", "Result"]  # noqa: RUF022  (the part comes first)
