"""The Text-to-SQL assistant for any MCP client: ask, schema, explain, feedback."""
