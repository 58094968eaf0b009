"""Prompts as text to records, and answers to text: the same prompts and replies as any other model's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from verbal.models.embedded.ast import Unsupported
from verbal.models.embedded.codec import Answer
from verbal.models.embedded.fields import ROLES, Column, Fields, ForeignKey, Schema, Table, Value

_ROLE = re.compile(r"^# Role: *(\w+)", re.MULTILINE)
_SECTION = re.compile(r"^## ([A-Z][A-Za-z ]*?) *$", re.MULTILINE)
_FENCE = re.compile(
    r"^[ \t]*```(?:sql|sqlite)?[ \t]*\n(.*?)\n?[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL | re.IGNORECASE
)
_HINT = re.compile(r"<hint\b[^>]*>(.*?)</hint>", re.DOTALL)
_BOUNDARY = re.compile(r" \(not for: .*\)$")
_NAME = r'(?:"(?:[^"]|"")+"|`[^`]+`|\[[^\]]+\]|[^\s(),."`]+)'
_VALUE = re.compile(rf"^'((?:[^']|'')*)' in ({_NAME})\.({_NAME})$")
_TABLE = re.compile(rf"CREATE TABLE ({_NAME}) \(\n(.*?)\n\);?", re.DOTALL | re.IGNORECASE)
_COLUMN = re.compile(rf"^\s*({_NAME})(.*)$")
_COMMENT = re.compile(r"^(.*?),?(?: -- (.*))?$")
_KEY = re.compile(r"^\s*PRIMARY KEY \((.*)\),?$", re.IGNORECASE)
_FOREIGN = re.compile(rf"^\s*FOREIGN KEY \((.*?)\) REFERENCES ({_NAME}) \((.*?)\),?$", re.IGNORECASE)
_LITERAL = re.compile(r"'((?:[^']|'')*)'")
_DATE = re.compile(r"'\d{4}-\d\d-\d\d[^']*' to '")
_CANDIDATE = re.compile(r"^SQL\d+: *(.*)(?:\n  result: *(.*))?$", re.MULTILINE)


def read_prompt(contents: Sequence[tuple[str, str]]) -> Fields:
    """What a conversation asks. Queries in earlier answers of the model count as tried.

    Args:
        contents: (role, text) of each message.

    Raises:
        Unsupported: when no message is one of the prompts that the embedded model knows.
    """
    place = next((place for place, (_, text) in enumerate(contents) if _ROLE.search(text)), None)
    if place is None:
        raise Unsupported("a prompt without '# Role: ...' (the embedded model reads the text2sql prompts only)")
    text = contents[place][1].replace("\r\n", "\n")
    match = _ROLE.search(text)
    role = match[1].lower() if match else ""
    if role not in ROLES:
        raise Unsupported(f"role {role!r} (the embedded model knows {', '.join(ROLES)})")
    parts = _SECTION.split(text)
    sections = {name.lower(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    earlier = [text for author, text in contents[place + 1 :] if author == "assistant"]
    tried = [sql for part in (sections.get("tried", ""), *earlier) for sql in fences(part)]
    level = sections.get("level", "")
    candidates = _CANDIDATE.findall(sections.get("candidates", ""))
    return Fields(
        role=role,
        schema=read_schema(sections.get("schema", "")),
        question=_text(sections, "question"),
        hints=tuple(_BOUNDARY.sub("", hint).replace("&lt;", "<") for hint in _HINT.findall(sections.get("hints", ""))),
        values=tuple(_values(sections.get("values", ""))),
        sql=_sql(sections, "sql"),
        result=_text(sections, "result"),
        right=_sql(sections, "right sql"),
        level=int(level) if level.isdigit() else 0,
        tried=tuple(tried),
        candidates=tuple(sql for sql, _ in candidates),
        results=tuple(result for _, result in candidates),
    )


def _text(sections: dict[str, str], name: str) -> str:
    text = sections.get(name, "")
    return "" if text.lower() == "none" else text


def _sql(sections: dict[str, str], name: str) -> str:
    found = fences(sections.get(name, ""))
    return found[-1] if found else _text(sections, name)


def fences(text: str) -> list[str]:
    """The contents of the fenced blocks of a text."""
    return [body.strip() for body in _FENCE.findall(text) if body.strip()]


def _values(text: str) -> list[Value]:
    found = []
    for line in text.splitlines():
        match = _VALUE.match(line.strip())
        if match:
            found.append(Value(match[1].replace("''", "'"), _unquoted(match[2]), _unquoted(match[3])))
    return found


@lru_cache(maxsize=64)
def read_schema(text: str) -> Schema:
    """The tables of CREATE TABLE statements as `apps/text2sql` writes them, what a column holds in its comment.

    Raises:
        Unsupported: when there is no table.
    """
    tables: list[Table] = []
    keys: list[ForeignKey] = []
    for name, body in _TABLE.findall(text):
        table = _unquoted(name)
        columns: list[Column] = []
        primary: list[str] = []
        for line in body.splitlines():
            key, foreign = _KEY.match(line), _FOREIGN.match(line)
            if key:
                primary = _names(key[1])
            elif foreign:
                near, far = _names(foreign[1]), _names(foreign[3])
                if len(near) == len(far) == 1:
                    keys.append(ForeignKey(table, near[0], _unquoted(foreign[2]), far[0]))
            elif (halves := _COMMENT.match(line)) and (column := _COLUMN.match(halves[1])):
                declared = column[2].upper()
                columns.append(_column(_unquoted(column[1]), declared, halves[2] or ""))
                primary += [columns[-1].name] if "PRIMARY KEY" in declared else []
        if columns:
            tables.append(Table(table, tuple(columns), tuple(primary)))
    if not tables:
        raise Unsupported("a prompt without CREATE TABLE statements under '## Schema'")
    known = _known(keys, tables)
    return Schema(tuple(tables), (*known, *_inferred(known, tables)))


def _known(keys: Sequence[ForeignKey], tables: Sequence[Table]) -> tuple[ForeignKey, ...]:
    """The keys with names spelled as their tables and columns are; those that name anything else are left out."""
    names = {table.name.lower(): table.name for table in tables}
    columns = {(t.name, c.name.lower()): c.name for t in tables for c in t.columns}
    found = []
    for key in keys:
        target = names.get(key.target.lower(), "")
        near = columns.get((key.table, key.column.lower()))
        far = columns.get((target, key.target_column.lower()))
        if near and far:
            found.append(ForeignKey(key.table, near, target, far))
    return tuple(found)


def _inferred(known: Sequence[ForeignKey], tables: Sequence[Table]) -> list[ForeignKey]:
    """Keys that nobody declared: named like the primary key of one other table, or TABLE_id."""
    taken = {(key.table, key.column) for key in known}
    linked = {frozenset((key.table, key.target)) for key in known}
    targets: dict[str, list[tuple[Table, str]]] = {}
    for table in tables:
        if len(table.primary_key) == 1:
            key = table.primary_key[0]
            short = key.lower() in ("id", "code")
            names = {f"{table.name}_{key}", f"{table.name.rstrip('s')}_{key}"} if short else {key}
            for name in names:
                targets.setdefault(name.lower().replace("_", ""), []).append((table, key))
    found = []
    for table in tables:
        for column in table.columns:
            near = targets.get(column.name.lower().replace("_", ""), [])
            new = len(near) == 1 and near[0][0] is not table and (table.name, column.name) not in taken
            if new and frozenset((table.name, near[0][0].name)) not in linked and table.primary_key != (column.name,):
                found.append(ForeignKey(table.name, column.name, near[0][0].name, near[0][1]))
    return found


def _unquoted(name: str) -> str:
    if name[:1] == '"':
        return name[1:-1].replace('""', '"')
    return name[1:-1] if name[:1] in "`[" else name


def _names(text: str) -> list[str]:
    return [_unquoted(name) for name in re.findall(_NAME, text)]


def _column(name: str, declared: str, comment: str) -> Column:
    values: tuple[str, ...] = ()
    if comment.startswith("one of "):
        values = tuple(value.replace("''", "'") for value in _LITERAL.findall(comment))
    if _DATE.match(comment):
        return Column(name, "date")
    if values or comment.startswith("such as "):
        return Column(name, "text", values)
    number = re.match(r"(-?[\d.e+]+) to (-?[\d.e+]+)$", comment)
    if number:
        whole = all(re.fullmatch(r"-?\d+", end) for end in number.groups())
        real = any(word in declared for word in ("REAL", "FLOA", "DOUB", "NUMERIC", "DECIMAL"))
        return Column(name, "int" if whole and not real else "real")
    if any(word in declared for word in ("INT", "BOOL", "SERIAL")):
        return Column(name, "int")
    if any(word in declared for word in ("REAL", "FLOA", "DOUB", "NUM", "DEC", "MONEY")):
        return Column(name, "real")
    return Column(name, "date" if any(word in declared for word in ("DATE", "TIME")) else "text")


def write_reply(role: str, answer: Answer) -> str:
    """The answer as the text that a prompt of this role asks for."""
    fence = f"```sql\n{answer.sql}\n```" if answer.sql else ""
    if role == "critic":
        lines = [f"VERDICT: {answer.verdict}"]
        if answer.verdict == "wrong":
            lines += [f"CLAUSES: {', '.join(answer.clauses)}"] if answer.clauses else []
            lines += [fence] if fence else []
        return "\n".join(lines)
    if role == "reflector":
        return f"HINT: {answer.hint or 'none'}"
    if role == "proposer":
        return f"QUESTION: {answer.question}\n{fence}"
    return fence
