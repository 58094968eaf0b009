"""A memory as an Agent Skill (a folder with SKILL.md), and skills of others as candidate lessons.

SKILL.md begins with front matter, a few `key: value` lines of YAML between two `---`. It is read by the small parser
here: names, quoted texts and blocks, nothing else; anchors, tags and nested values are never expanded, so that a skill
from anywhere costs no more than its length. Nothing of a skill is run, links are not followed, and a folder's name
never becomes a path.

Source: the Agent Skills specification (agentskills.io): `name` of at most 64 small letters, digits and hyphens, as its
folder; `description` of at most 1,024 characters; a body that is short, with more under `references/`.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from verbal.errors import DataError
from verbal.types import Reflection

from .playbooks import best_first, read_playbook, write_playbook

IN_BODY = 100
"""Lessons in SKILL.md itself, the best ones; the others stand in `references/`, to be read when needed."""
LARGEST = 1_000_000
"""Bytes of a file that are read."""

_KEY = re.compile(r"([A-Za-z][\w-]{0,63}):(?:[ \t]+(.*?))?[ \t]*")
_OWN = "verbal-memory"
_MOST, _DEEP = 1000, 4
_GUIDE = (
    "Each line is one lesson: `[id] helpful=N harmful=N :: words`, with counts of tasks that went well or badly when "
    "it was shown. A lesson is a hint and no order: follow it where `when` fits and `not for` does not."
)


class Skill(NamedTuple):
    """A skill as it was read."""

    name: str
    description: str
    body: str
    generated: bool
    """Whether this module wrote it."""
    path: Path


def skill_name(name: str) -> str:
    """A name as skills may have it.

    >>> skill_name("../My Shop (v2)"), skill_name("Café"), skill_name("会")
    ('my-shop-v2', 'cafe', 'memory')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:64].strip("-") or "memory"


def skill_files(items: Sequence[Reflection], name: str, description: str = "") -> dict[str, str]:
    """The files of a skill, by their path below the folder of skills.

    Args:
        items: Its lessons.
        name: Of the memory.
        description: What the skill is for and when to use it; made from the name if not given.
    """
    slug, ranked = skill_name(name), best_first(items)
    told = " ".join((description or f"Lessons that an agent learned from outcomes ({name}).").split())
    head = [
        "---",
        f"name: {slug}",
        f"description: {json.dumps(told[:1024], ensure_ascii=False)}",
        "metadata:",
        f'  generator: "{_OWN}"',
        f'  lessons: "{len(ranked)}"',
        "---",
        "",
    ]
    body = write_playbook(ranked[:IN_BODY], name, bullet="- ").split("\n")
    body[1:1] = ["", _GUIDE] + (
        ["", "More lessons: [references/more.md](references/more.md)"] if ranked[IN_BODY:] else []
    )
    files = {f"{slug}/SKILL.md": "\n".join([*head, *body])}
    if ranked[IN_BODY:]:
        files[f"{slug}/references/more.md"] = write_playbook(ranked[IN_BODY:], name, bullet="- ")
    return files


def read_skills(path: Path) -> tuple[list[Reflection], list[tuple[str, str]]]:
    """The lessons of a SKILL.md, a skill's folder or a folder of skills, and what was left out: (file, why).

    A skill that this module wrote gives its lessons back. Of any other each section is one lesson, under the skill's
    name, to be used when its description says.
    """
    items: list[Reflection] = []
    wrong: list[tuple[str, str]] = []
    for file in _skill_files(path):
        try:
            skill = read_skill(file)
        except DataError as error:
            wrong.append((str(file), error.what))
            continue
        if not skill.generated:
            items += _sections(skill)
            continue
        for part in (file, *sorted((file.parent / "references").glob("*.md"))):
            if part != file and (part.is_symlink() or part.parent.is_symlink()):
                continue
            try:
                found, odd = read_playbook(skill.body if part == file else _text(part))
            except DataError as error:
                wrong.append((str(part), error.what))
                continue
            items += found
            wrong += [(f"{part}, {place}", why) for place, why in odd]
    return items, wrong


def read_skill(file: Path) -> Skill:
    """One SKILL.md.

    Raises:
        DataError: it cannot be read, has no front matter, or that has no name and description.
    """
    fields, body = front_matter(_text(file), where=str(file))
    name, description = fields.get("name", "").strip(), fields.get("description", "").strip()
    if not name or not description:
        missing = "name" if not name else "description"
        raise DataError(
            f"the skill has no {missing}", where=str(file), todo=f"add `{missing}: ...` to its front matter"
        )
    generated = f'generator: "{_OWN}"' in fields.get("metadata", "")
    return Skill(name, description, body, generated, file)


def front_matter(text: str, *, where: str = "") -> tuple[dict[str, str], str]:
    r"""The keys of the front matter and the text after it. The value of a key with indented lines below is these lines.

    >>> front_matter("---\nname: a\ndescription: 'b: c'\n---\nbody")
    ({'name': 'a', 'description': 'b: c'}, 'body')

    Raises:
        DataError: there is none, it does not end, a key comes twice, or a value is written in a way that is not read.
    """
    if text.partition("\n")[0].endswith("\r"):
        text = text.replace("\r\n", "\n")
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[0].rstrip() != "---":
        raise DataError("there is no front matter", where=where, todo="begin the file with a line ---")
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    if not end or end > 500:
        raise DataError("the front matter does not end", where=where, todo="close it with a line ---")
    fields: dict[str, str] = {}
    at = 1
    while at < end:
        line = lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not (match := _KEY.fullmatch(line)):
            raise DataError(f"line {at} of the front matter is no `key: value`: {line[:80]!r}", where=where)
        below = []
        while at < end and (lines[at].startswith((" ", "\t", "- ")) or not lines[at].strip()):
            below.append(lines[at])
            at += 1
        if match[1] in fields:
            raise DataError(f"the key {match[1]!r} comes twice in the front matter", where=where)
        fields[match[1]] = _value(match[2] or "", below, f"line {at} of the front matter", where)
    return fields, "\n".join(lines[end + 1 :])


def _value(text: str, below: list[str], place: str, where: str) -> str:
    """A scalar: plain, in quotes, or a block; lists and mappings stay the text they are."""
    kept = [line for line in below if line.strip()]
    if re.fullmatch(r"[|>][+-]?(?:\s+#.*)?", text):
        indent = len(kept[0]) - len(kept[0].lstrip()) if kept else 0
        rows = [line[indent:] for line in below]
        return ("\n" if text[0] == "|" else " ").join(rows).strip()
    if text[:1] == '"' and not kept:
        try:
            found, end = json.JSONDecoder(strict=False).raw_decode(text)
        except ValueError:
            raise DataError(f"{place}: a text in quotes that cannot be read: {text[:80]}", where=where) from None
        if isinstance(found, str) and not text[end:].split("#")[0].strip():
            return found
    elif text[:1] == "'" and not kept:
        if match := re.fullmatch(r"'((?:[^']|'')*)'(?:\s+#.*)?", text):
            return match[1].replace("''", "'")
    elif not text:
        return "\n".join(below)
    elif text[0] in "&*!%@`":
        raise DataError(f"{place}: values with {text[0]!r} are not read", where=where, todo="write it in quotes")
    elif text[:1] in "[{":
        return "\n".join([text, *below])
    else:
        return " ".join([re.split(r"\s#", text)[0].strip(), *(line.strip() for line in kept)]).strip()
    raise DataError(f"{place}: a text in quotes that does not end: {text[:80]}", where=where)


def _skill_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    found = 0
    for folder, below, files in os.walk(path):  # links are not followed
        depth = len(Path(folder).relative_to(path).parts)
        below[:] = sorted(b for b in below if not b.startswith(".")) if depth < _DEEP else []
        file = Path(folder) / "SKILL.md"
        if "SKILL.md" in files and not file.is_symlink():
            below[:] = []
            found += 1
            yield file
        if found >= _MOST:
            return


def _sections(skill: Skill) -> Iterator[Reflection]:
    """Each part of a body between headings as a lesson; fences become moved-in lines, since a lesson may hold none."""
    heading, rows, fenced = "", list[str](), ""
    parts: list[tuple[str, str]] = []
    for line in [*skill.body.split("\n"), "# "]:
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        if mark and (not fenced or line.strip().startswith(fenced)):
            fenced = "" if fenced else mark[1]
            continue
        if not fenced and re.match(r"#{1,6}\s", line):
            parts.append((heading, "\n".join(rows).strip()))
            heading, rows = line.lstrip("#").strip(), []
        else:
            rows.append(f"    {line}" if fenced else line)
    parts += [(heading, "\n".join(rows).strip())] if fenced else []
    for i, (title, text) in enumerate(parts):
        if text:
            name = f"{skill.name}: {title}" if title else skill.name
            yield Reflection(
                id=f"{skill_name(skill.name)}-{i}", kind="strategy", title=name, text=text, when=skill.description
            )


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            text = opened.read(LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the file cannot be read: {error}", where=str(file)) from error
    if len(text) > LARGEST:
        raise DataError(f"the file is longer than {LARGEST:,} characters", where=str(file), todo="split it")
    return text


__all__ = ["Skill", "front_matter", "read_skill", "read_skills", "skill_files", "skill_name"]
