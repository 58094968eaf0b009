"""The chat agent: it learns from being corrected, and shows what it learned."""
