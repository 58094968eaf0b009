"""Prompt records to the embedded model's words, and its words back to answers.

A prompt is `<schema> ... <links> ... <question> ... [<sql> ... <result> ...] <role>`. The schema part lists tables with
their own slots; the links part says which column and table each alias of the question stands for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from verbal.models.embedded.ast import (
    CLAUSES,
    Query,
    Unsupported,
    columns_in,
    expressions,
    subqueries,
    to_sql,
    used_tables,
)
from verbal.models.embedded.fields import Fields
from verbal.models.embedded.hints import insert_hints
from verbal.models.embedded.index import SchemaIndex, index_of
from verbal.models.embedded.lexicon import ASKING, CLOSED
from verbal.models.embedded.link import Item, Linker
from verbal.models.embedded.phrase import read_hint, read_question, write_hint, write_question
from verbal.models.embedded.slotread import Reader
from verbal.models.embedded.slots import STABLE, Binding, SlotOrder, is_number
from verbal.models.embedded.slotsql import Writer
from verbal.models.embedded.vocabulary import DIGITS, INDEX, KNOWN, SYNTAX, VOCABULARY
from verbal.models.embedded.words import atoms

MAX_TABLES = 12
"""Most tables a prompt shows; of a larger schema those nearest to the question."""

MAX_COLUMNS = 80
"""Most columns a prompt shows, unless the question itself speaks of more."""

_STARTS = {"solver": "<solve>", "critic": "<criticise>", "judge": "<criticise>", "reflector": "<reflect>"}
_SQL_WORDS = frozenset((*SYNTAX, *DIGITS, "<eos>"))


@dataclass(frozen=True, slots=True)
class Encoded:
    """One prompt in the model's words."""

    role: str
    tokens: tuple[str, ...]
    schema_tokens: int
    """How many of `tokens` are the schema part: equal for prompts of one schema and slot order (see `MAX_TABLES`)."""
    binding: Binding
    """What each slot stands for."""

    @property
    def ids(self) -> list[int]:
        """Token ids."""
        return [INDEX[token] for token in self.tokens]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says, as far as its role says it: the fields it does not use are empty."""

    sql: str = ""
    verdict: str = ""
    """`right` or `wrong`."""
    clauses: tuple[str, ...] = ()
    """Parts of the query that are wrong (of `ast.CLAUSES`)."""
    hint: str = ""
    question: str = ""


def encode(fields: Fields, *, slots: SlotOrder | None = None, trees: Mapping[str, Query] | None = None) -> Encoded:
    """The prompt in the model's words, up to the word that starts the role's answer.

    Args:
        fields: what the prompt says.
        slots: how slots are given out; stable by default.
        trees: trees of the SQL texts in `fields` where they are known, else sqlglot parses them.

    Raises:
        Unsupported: when the schema or the SQL is outside the model's limits.
    """
    if not fields.schema.tables:
        raise Unsupported("the prompt describes no table")
    index = index_of(fields.schema)
    queries = [_tree(sql, fields, trees) for sql in _sql_parts(fields)]
    question = insert_hints(atoms(fields.question), fields.hints, index.name_words)
    linker = Linker(index, fields.values)
    items = _proper_names(linker.link(question) if question else [])
    order = slots or STABLE
    binding = Binding(index, order, spellings=linker.spellings)
    columns, tables = _shown(index, items, [query for query in queries if query])
    binding.show(columns, tables)
    schema = _schema(index, binding, columns, tables)
    if fields.role == "proposer":
        level = ["<level>", f"#{max(0, min(9, fields.level))}"]
        return Encoded("proposer", (*schema, *level, "<propose>"), len(schema), binding)
    spoken = _spoken(items, binding, mentions=fields.role == "reflector")
    tokens = [*schema, *_links(items, binding), "<question>", *spoken]
    if fields.role in ("critic", "judge", "reflector"):
        _name(queries[1:], binding)
        tokens += ["<sql>", *_query(queries[0], binding), "<result>", *_result(fields.result)]
    if fields.role == "reflector":
        if queries[1] is None:
            raise Unsupported("the right SQL cannot be read")
        tokens += ["<right>", *Writer(binding, new=True).query(queries[1])]
    return Encoded(fields.role, (*tokens, _STARTS[fields.role]), len(schema), binding)


def _sql_parts(fields: Fields) -> list[str]:
    if fields.role in ("critic", "judge"):
        return [fields.sql]
    return [fields.sql, fields.right] if fields.role == "reflector" else []


def _tree(sql: str, fields: Fields, trees: Mapping[str, Query] | None) -> Query | None:
    """The tree of an SQL text; None when it cannot be read (the prompt then shows `?`)."""
    if trees and sql in trees:
        return trees[sql]
    from verbal.models.embedded.foreign import from_sql

    try:
        return from_sql(sql, fields.schema)
    except Unsupported:
        return None


def _name(queries: Sequence[Query | None], binding: Binding) -> None:
    """Gives aliases to the columns of the right SQL that the question does not speak of, so that a hint can."""
    for query in queries:
        for part in _parts(query) if query is not None else []:
            for item in expressions(part):
                for column in columns_in(item):
                    if column in binding.index.column_ids:
                        binding.alias("a", binding.index.column_ids[column])


def _query(query: Query | None, binding: Binding) -> list[str]:
    if query is None:
        return ["?"]
    try:
        return Writer(binding, new=True).query(query)
    except Unsupported:
        return ["?"]


def _proper_names(items: list[Item]) -> list[Item]:
    """Capitalised unknown words inside a sentence become values: they are most likely cells nobody looked up."""
    capital = [item.kind == "word" and item.surface[:1].isupper() and not item.surface.isupper() for item in items]
    words = sum(item.kind == "word" for item in items)
    if sum(capital) * 2 > words:
        return items
    found: list[Item] = []
    names: list[str] = []
    for place, item in enumerate(items):
        linked = place + 1 < len(items) and items[place + 1].kind in ("table", "column")
        if place and capital[place] and item.sure and item.text not in KNOWN and not linked:
            names.append(item.surface)
            continue
        if names:
            found.append(Item("value", " ".join(names), "quoted"))
            names = []
        found.append(item)
    return [*found, Item("value", " ".join(names), "quoted")] if names else found


def _shown(index: SchemaIndex, items: Sequence[Item], queries: Sequence[Query]) -> tuple[list[int], list[int]]:
    """Numbers of the columns and tables that the prompt shows, in schema order."""
    if len(index.tables) <= MAX_TABLES and len(index.columns) <= MAX_COLUMNS:
        return list(range(len(index.columns))), list(range(len(index.tables)))
    wanted = [item.target for item in items if item.kind == "table" and item.sure]
    needed = {item.target for item in items if item.kind == "column"}
    for query in queries:
        for part in _parts(query):
            wanted += [index.table_ids[name] for name in used_tables(part) if name in index.table_ids]
            found = [column for item in expressions(part) for column in columns_in(item)]
            needed |= {index.column_ids[column] for column in found if column in index.column_ids}
    wanted += [item.target for item in items if item.kind == "table" and not item.sure]
    wanted += sorted(index.table_of[place] for place in needed)
    first = list(dict.fromkeys(wanted))
    near = [other for table in first for other in sorted(index.neighbours[table])]
    by_links = sorted(range(len(index.tables)), key=lambda table: -len(index.neighbours[table]))
    tables = list(dict.fromkeys((*first, *near, *by_links)))[: max(MAX_TABLES, len(first))]
    own = {place for table in tables for place in index.columns_of[table]}
    keep = {place for place in own if place in needed or place in index.keys or place in index.refs}
    keep |= {label for table in tables if (label := index.labels[table]) is not None}
    for table in tables:
        for place in index.columns_of[table]:
            if len(keep) < MAX_COLUMNS:
                keep.add(place)
    return sorted(keep), sorted(tables)


def _parts(query: Query) -> list[Query]:
    return [query, *(part for inner in subqueries(query) for part in _parts(inner))]


def _schema(index: SchemaIndex, binding: Binding, columns: list[int], tables: list[int]) -> list[str]:
    tokens = ["<bos>", "<schema>"]
    kept = set(columns)
    for table in tables:
        tokens += [binding.own_tables[table], *(word for word in index.table_words[table] if word in KNOWN), ":"]
        for place in index.columns_of[table]:
            if place not in kept:
                continue
            tokens.append(binding.own_columns[place])
            kind = index.kinds[place]
            if kind == "ref":
                target = binding.own_tables.get(index.refs[place])
                tokens += [*_role_words(index, place), "ref", *([target] if target else [])]
            elif kind == "key":
                tokens.append("key")
            else:
                tokens += [*(word for word in index.words[place] if word in KNOWN), kind]
    return tokens


def _role_words(index: SchemaIndex, place: int) -> list[str]:
    """Known words of a foreign key's name that say more than the table it refers to (`winner_id`: winner)."""
    target = index.table_words[index.refs[place]]
    return [word for word in index.words[place] if word in KNOWN and word not in target and word not in ("id", "code")]


def _spoken(items: Sequence[Item], binding: Binding, mentions: bool = False) -> list[str]:
    """The question's tokens; gives out aliases and values by order of mention."""
    tokens: list[str] = []
    for place, item in enumerate(items):
        if item.kind == "word":
            if mentions:
                tokens += [item.text] * (item.text in KNOWN)
                if item.sure and item.text not in CLOSED | ASKING:
                    tokens.append(binding.mention(item.text, item.surface))
            elif item.sure or item.text in KNOWN:
                tokens.append(binding.word(item.text, item.surface))
            else:
                binding.word(item.text, item.surface)
        elif item.kind == "mark":
            tokens += [item.text] * (item.text in INDEX)
        elif item.kind == "value":
            slot = binding.value(item.text)
            columns = takewhile(lambda one: one.kind == "column", items[place + 1 :])
            if slot and not binding.found.get(item.text) and item.surface == "quoted":
                binding.found[item.text] = tuple(one.target for one in columns)
            tokens += [slot, *_value_kind(item)] if slot else []
        else:
            alias = binding.alias("b" if item.kind == "table" else "a", item.target)
            if alias:
                tokens += [alias] if item.sure else ["~", alias]
    return tokens


def _value_kind(item: Item) -> list[str]:
    if item.surface == "date":
        return ["day"]
    if not is_number(item.text) or item.surface == "quoted":
        return []
    return ["yr"] if len(item.text) == 4 and "1000" <= item.text <= "2100" else ["num"]


def _links(items: Sequence[Item], binding: Binding) -> list[str]:
    """Columns and tables behind the aliases, and the naming column of each table that is spoken of."""
    index = binding.index
    aliased = [place for place, slot in binding.column_slots.items() if slot[0] == "a"]
    for place in sorted(aliased, key=lambda place: int(binding.column_slots[place][1:])):
        binding.alias("b", index.table_of[place])
    labels: dict[int, int] = {}
    for item in items:
        label = index.labels[item.target] if item.kind == "table" else None
        if label is not None and label in binding.own_columns and binding.alias("a", label):
            labels[item.target] = label
    tokens = ["<links>"]
    aliased = [place for place, slot in binding.column_slots.items() if slot[0] == "a"]
    for place in sorted(aliased, key=lambda place: int(binding.column_slots[place][1:])):
        table = binding.table_slots[index.table_of[place]]
        tokens += [binding.column_slots[place], binding.own_columns[place], table, index.kinds[place]]
    spoken = [place for place, slot in binding.table_slots.items() if slot[0] == "b"]
    for place in sorted(spoken, key=lambda place: int(binding.table_slots[place][1:])):
        tokens += [binding.table_slots[place], binding.own_tables[place]]
        if place in labels:
            tokens.append(binding.column_slots[labels[place]])
    return tokens


_ERRORS = (
    ("no_column", re.compile(r"no such column|unknown column|column .* (?:not found|does not exist)", re.IGNORECASE)),
    ("no_table", re.compile(r"no such table|unknown table|table .* (?:not found|does not exist)", re.IGNORECASE)),
    ("ambiguous", re.compile(r"ambiguous", re.IGNORECASE)),
    ("syntax", re.compile(r"syntax|incomplete input|unrecognized token", re.IGNORECASE)),
    ("timeout", re.compile(r"time ?-?out|too long|interrupted", re.IGNORECASE)),
)


def _result(result: str) -> list[str]:
    """What execution said, as tokens."""
    rows = re.search(r"(\d+) rows?\b", result)
    if rows is None:
        if not result.strip():
            return ["none"]
        return ["error", *(name for name, pattern in _ERRORS if pattern.search(result))][:2]
    number = int(rows[1])
    sizes = ((0, "rows_0"), (1, "rows_1"), (2, "rows_2"), (9, "rows_few"), (99, "rows_some"))
    tokens = [next((name for size, name in sizes if number <= size), "rows_many")]
    columns = re.search(r"(\d+) columns?\b", result)
    if columns:
        tokens.append(f"cols_{columns[1]}" if columns[1] in ("1", "2", "3") else "cols_many")
    if re.search(r"\b(?:all|only) (?:null|none)|\(None,?\)|^\s*null\s*$", result, re.IGNORECASE | re.MULTILINE):
        tokens.append("nulls")
    return tokens


def encode_answer(
    encoded: Encoded, answer: Answer, *, trees: Mapping[str, Query] | None = None, fields: Fields | None = None
) -> tuple[str, ...]:
    """The answer in the model's words, `<eos>` included.

    Args:
        encoded: the prompt it answers.
        answer: what should be said.
        trees: trees of SQL texts where they are known.
        fields: unused except for its schema when a text has to be parsed; taken from `encoded` when absent.

    Raises:
        Unsupported: when the answer needs a column, a value or a construct that the prompt cannot offer.
    """
    binding = encoded.binding
    schema = fields.schema if fields else binding.index.schema
    if encoded.role in ("critic", "judge") and answer.verdict == "right":
        return ("right", "<eos>")
    if encoded.role == "reflector":
        return (*write_hint(answer.hint, binding), "<eos>")
    tree = (trees or {}).get(answer.sql)
    if tree is None:
        from verbal.models.embedded.foreign import from_sql

        tree = from_sql(answer.sql, schema)
    sql = Writer(binding).query(tree)
    if encoded.role in ("critic", "judge"):
        return ("wrong", *(f"clause_{name}" for name in CLAUSES if name in answer.clauses), *sql, "<eos>")
    if encoded.role == "proposer":
        return (*write_question(answer.question, tree, binding), "<sql>", *sql, "<eos>")
    return (*sql, "<eos>")


def decode_answer(encoded: Encoded, tokens: Sequence[str]) -> Answer:
    """What the tokens say, with real SQL text; tokens after `<eos>` are left out.

    Raises:
        Unsupported: when they are no well-formed answer to this prompt.
    """
    words = list(tokens[: tokens.index("<eos>")] if "<eos>" in tokens else tokens)
    if encoded.role == "reflector":
        return Answer(hint=read_hint(words, encoded.binding))
    if encoded.role in ("critic", "judge"):
        if words[:1] == ["right"]:
            return Answer(verdict="right")
        if words[:1] != ["wrong"]:
            raise Unsupported(f"a verdict expected, found {words[:1]}")
        named = [word for word in words[1:] if word.startswith("clause_")]
        sql = _sql(words[1 + len(named) :], encoded)
        return Answer(sql, "wrong", tuple(word.removeprefix("clause_") for word in named))
    if encoded.role == "proposer":
        if "<sql>" not in words:
            raise Unsupported("a proposed question without SQL")
        at = words.index("<sql>")
        return Answer(_sql(words[at + 1 :], encoded), question=read_question(words[:at], encoded.binding))
    return Answer(_sql(words, encoded))


def _sql(words: list[str], encoded: Encoded) -> str:
    reader = Reader(encoded.binding, words)
    query = reader.query()
    if reader.place != len(words):
        raise Unsupported(f"slot SQL: unexpected {words[reader.place]!r} at {reader.place}")
    return to_sql(query, encoded.binding.index.schema)


def allowed(encoded: Encoded) -> set[str]:
    """Tokens that may occur in an answer to this prompt."""
    binding = encoded.binding
    slots = {f"v{place}" for place in range(len(binding.values))}
    slots |= set(binding.column_slots.values()) | set(binding.table_slots.values())
    most = max((len(binding.index.details[place].values) for place in binding.own_columns), default=0)
    slots |= {f"u{place}" for place in range(min(9, most))}
    if encoded.role == "solver":
        return slots | _SQL_WORDS
    if encoded.role in ("critic", "judge"):
        return slots | _SQL_WORDS | {"right", "wrong", *(f"clause_{name}" for name in CLAUSES)}
    if encoded.role == "reflector":
        return slots | _SQL_WORDS | set(binding.words) | {"means", "table", "column"}
    return slots | _SQL_WORDS | KNOWN | {"<sql>"}


__all__ = [
    "MAX_COLUMNS", "MAX_TABLES", "VOCABULARY", "Answer", "Encoded", "SlotOrder", "Unsupported",
    "allowed", "decode_answer", "encode", "encode_answer",
]  # fmt: skip
