"""The SQL assistant as an MCP server: the app `mcp_sql`, which `verbal mcp --db DATABASE` runs."""

from .server import SqlServer
from .tools import SqlTools

__all__ = ["SqlServer", "SqlTools"]
