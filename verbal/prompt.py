"""Prompts: Markdown text with declared variables, read, checked, filled and hashed.

A prompt file starts with a header between two `---` lines (purpose, variables, optional source); the body uses
`{{name}}`. A variable that is declared but unused, or used but undeclared, is an error at load, not at call.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from verbal.errors import ConfigError, UnknownName

_VARIABLE = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt template."""

    name: str
    purpose: str
    variables: tuple[str, ...]
    body: str
    hash: str
    """First 12 hex digits of the SHA-256 of the file."""

    def fill(self, **values: str) -> str:
        """The text with every variable replaced (values are not scanned again, so braces in data are safe).

        Raises:
            ConfigError: a value is missing or not declared.
        """
        if set(values) != set(self.variables):
            missing, extra = set(self.variables) - set(values), set(values) - set(self.variables)
            raise ConfigError(
                f"prompt {self.name!r}: missing {sorted(missing)}, not declared {sorted(extra)}",
                todo=f"declared: {', '.join(self.variables)}",
            )
        return _VARIABLE.sub(lambda match: values[match.group(1)], self.body)


def parse_prompt(name: str, text: str, *, where: str = "") -> Prompt:
    """The prompt that `text` holds.

    Raises:
        ConfigError: no header, no purpose, or declared and used variables differ.
    """
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if not match:
        raise ConfigError(f"prompt {name!r} has no header", where=where, todo="start the file with --- lines")
    header = dict(line.split(":", 1) for line in match.group(1).splitlines() if ":" in line)
    purpose = header.get("purpose", "").strip()
    declared = tuple(v.strip() for v in header.get("variables", "").split(",") if v.strip())
    body = text[match.end() :].strip() + "\n"
    used = set(_VARIABLE.findall(body))
    if not purpose:
        raise ConfigError(f"prompt {name!r} states no purpose", where=where, todo="add `purpose: ...` to its header")
    if used != set(declared):
        raise ConfigError(
            f"prompt {name!r} declares {sorted(declared)} but uses {sorted(used)}",
            where=where,
            todo="make the header's `variables:` and the {{...}} of the body agree",
        )
    return Prompt(name, purpose, declared, body, hashlib.sha256(text.encode()).hexdigest()[:12])


@cache
def load_prompt(name: str, folder: str | None = None) -> Prompt:
    """The prompt `name` (such as `text2sql/solver`) of the package, or of a folder of the user's that overrides it.

    Raises:
        UnknownName: no such prompt. ConfigError: the file is malformed.
    """
    if folder is not None and (path := Path(folder) / f"{name}.md").is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"the prompt is not UTF-8: {error}", where=str(path), todo="save it as UTF-8") from error
        return parse_prompt(name, text, where=str(path))
    root = resources.files("verbal.prompts")
    file = root.joinpath(*f"{name}.md".split("/"))
    if not file.is_file():
        raise UnknownName.of("prompt", name, prompt_names())
    return parse_prompt(name, file.read_text(encoding="utf-8"), where=f"prompts/{name}.md")


def prompt_names() -> list[str]:
    """The names of all prompts of the package, sorted."""
    root = Path(str(resources.files("verbal.prompts")))
    return sorted(str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.md"))
