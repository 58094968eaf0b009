"""Memories of a store as an MCP server: the app `mcp_memory`, which `verbal mcp` runs."""

from .server import MemoryServer
from .tools import MemoryTools

__all__ = ["MemoryServer", "MemoryTools"]
