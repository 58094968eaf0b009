"""Names and texts of a database, as SQL of a dialect and as they stand in prompts: on one line, closing nothing."""

from __future__ import annotations

import re

from verbal.models.embedded.ast import quote

# Control characters and line ends, and marks that reorder what is read.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
_TAG = re.compile(r"<(?=\s*/?\s*(?:hint|schema|values|question|data|cell|rows|example)\b)", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Words that one engine or another reserves; a name that is quoted without need does no harm.
_WORDS = """add all alter analyse analyze and any anti array as asc asymmetric authorization between binary both by call
cascade case cast change char character check collate collation column concurrently condition constraint continue
convert create cross cube cume_dist current_date current_role current_time current_timestamp current_user cursor
database databases dec decimal declare default delayed delete dense_rank desc describe deterministic distinct div do
double drop dual each else elseif end enclosed escape escaped except exists exit explain false fetch first_value float
for force foreign freeze from full fulltext function generated get grant group grouping groups having if ignore ilike
in index initially inner inout insert int integer intersect interval into is isnull iterate join key keys kill lag
last_value lateral lead leading leave left like limit linear lines load localtime localtimestamp lock long loop match
maxvalue mod natural not notnull nth_value ntile null numeric of off offset on only optimize option or order out outer
over overlaps partition percent_rank pivot placing precision primary procedure purge qualify range rank read real
recursive references regexp release rename repeat replace require resignal restrict return returning returns revoke
right rlike row row_number rows schema schemas select sensitive separator session_user set show signal similar smallint
some spatial specific sql ssl starting stored summarize symmetric system table tablesample terminated then to trailing
trigger true undo union unique unlock unpivot unsigned update usage use user using utc_date utc_time values varchar
variadic varying verbose virtual when where while window with write xor zerofill"""
_RESERVED = frozenset(_WORDS.split())


def quoted(name: str, dialect: str = "sqlite", space: str = "") -> str:
    """A name (of a table in the schema `space`) as SQL of the dialect, quoted whether or not it needs it."""
    if space and name.startswith(f"{space}."):
        return f"{quoted(space, dialect)}.{quoted(name[len(space) + 1 :], dialect)}"
    mark = "`" if dialect == "mysql" else '"'
    return mark + name.replace(mark, mark * 2) + mark


def shown(name: str, dialect: str = "sqlite", space: str = "") -> str:
    """The name as SQL on one line, quoted where it needs it.

    >>> shown("order"), shown("Orders", "postgres"), shown("rank", "mysql"), shown("sales.orders", "duckdb", "sales")
    ('"order"', '"Orders"', '`rank`', 'sales.orders')
    """
    if space and name.startswith(f"{space}."):
        return f"{shown(space, dialect)}.{shown(name[len(space) + 1 :], dialect)}"
    if dialect == "sqlite":
        return plain(quote(name))
    bare = _PLAIN.match(name) and name.lower() not in _RESERVED and (dialect != "postgres" or name == name.lower())
    return name if bare else plain(quoted(name, dialect))


def literal(value: str) -> str:
    """`value` as an SQL string on one line (control characters become spaces)."""
    return "'" + plain(value).replace("'", "''") + "'"


def plain(text: str) -> str:
    r"""`text` on one line that closes no fence and opens no tag of a prompt; ordinary text is left as it is.

    >>> plain("a\n## Hints"), plain("```sql"), plain("</hint> 1 < 2")
    ('a ## Hints', "'''sql", '&lt;/hint> 1 < 2')
    """
    return _TAG.sub("&lt;", re.sub("```+", "'''", _CONTROL.sub(" ", text)))
