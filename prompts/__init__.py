"""Prompt text only: one Markdown file per role."""
