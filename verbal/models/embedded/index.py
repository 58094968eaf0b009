"""What the linker looks up in a schema, computed once for each schema."""

from __future__ import annotations

from collections import defaultdict

from verbal.models.embedded.ast import Col
from verbal.models.embedded.fields import Column, Schema
from verbal.models.embedded.lexicon import ASKING, CLOSED, root
from verbal.models.embedded.vocabulary import KNOWN
from verbal.models.embedded.words import atoms, identifier_words

_LABELS = ("name", "title", "full name", "label", "detail", "description")


class SchemaIndex:
    """Columns and tables of one schema by number, and the words that speak of them."""

    def __init__(self, schema: Schema) -> None:
        """Numbers all tables and columns in schema order and indexes their words."""
        self.schema = schema
        self.tables = tuple(table.name for table in schema.tables)
        self.table_ids = {name: place for place, name in enumerate(self.tables)}
        self.columns: list[Col] = []
        self.details: list[Column] = []
        self.table_of: list[int] = []
        self.columns_of: list[list[int]] = []
        for place, table in enumerate(schema.tables):
            self.columns_of.append([])
            for column in table.columns:
                self.columns_of[place].append(len(self.columns))
                self.columns.append(Col(table.name, column.name))
                self.details.append(column)
                self.table_of.append(place)
        self.column_ids = {column: place for place, column in enumerate(self.columns)}
        self.words = [_own_words(column) for column in self.columns]
        self.table_words = [identifier_words(name) for name in self.tables]
        self.name_words = frozenset(word for words in self.table_words for word in words)
        self.refs: dict[int, int] = {}
        self.neighbours: list[set[int]] = [set() for _ in self.tables]
        for key in schema.foreign_keys:
            source = self.column_ids.get(Col(key.table, key.column))
            target = self.table_ids.get(key.target)
            if source is not None and target is not None:
                self.refs.setdefault(source, target)
                self.neighbours[self.table_of[source]].add(target)
                self.neighbours[target].add(self.table_of[source])
        self.keys = {
            self.column_ids[Col(table.name, table.primary_key[0])]: place
            for place, table in enumerate(schema.tables)
            if len(table.primary_key) == 1 and Col(table.name, table.primary_key[0]) in self.column_ids
        }
        self.labels = [self._label(place) for place in range(len(self.tables))]
        self.kinds = [self._kind(place) for place in range(len(self.columns))]
        self._index_words()

    def _kind(self, place: int) -> str:
        if place in self.keys:
            return "key"
        if place in self.refs:
            return "ref"
        return "cat" if self.details[place].values and place not in self.labels else self.details[place].type

    def _label(self, table: int) -> int | None:
        """The column that names a row of the table, if one does."""
        texts = [place for place in self.columns_of[table] if self.details[place].type == "text"]
        for place in texts:
            if self.words[place] == self.table_words[table]:
                return place
        for label in _LABELS[:4]:
            for place in texts:
                words = " ".join(self.words[place])
                if words == label or words == " ".join((*self.table_words[table], label)):
                    return place
        for label in (*_LABELS[:2], *_LABELS[4:]):
            for place in texts:
                if self.words[place] and self.words[place][-1] == label:
                    return place
        return None

    def _index_words(self) -> None:
        self.exact: dict[str, list[int]] = defaultdict(list)
        self.partial: dict[str, list[int]] = defaultdict(list)
        self.roots: dict[str, list[int]] = defaultdict(list)
        self.exact_tables: dict[str, list[int]] = defaultdict(list)
        self.partial_tables: dict[str, list[int]] = defaultdict(list)
        self.root_tables: dict[str, list[int]] = defaultdict(list)
        self.whole: dict[str, list[int]] = defaultdict(list)
        self.cells: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for place, words in enumerate(self.words):
            own = self.table_words[self.table_of[place]]
            names = {"".join(words), "".join(word for word in words if word not in ("of", "the"))}
            if len(words) > len(own) and words[: len(own)] == own:
                names.add("".join(words[len(own) :]))
            names |= {"name"} if place in self.labels else set()
            names |= {"id"} if place in self.keys else set()
            for name in names - CLOSED - {""}:
                self.exact[name].append(place)
            parts = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
            for part in parts - names - CLOSED - ASKING - {"id"}:
                self.partial[part].append(place)
            for word in {root(word) for word in words if word not in CLOSED and word not in ASKING}:
                self.roots[word].append(place)
            name = self.columns[place].name.lower()
            for whole in (name, f"{self.columns[place].table.lower()}.{name}"):
                self.whole[whole].append(place)
            for value in self.details[place].values:
                self.cells[cell_key(value)].append((place, value))
        for place, words in enumerate(self.table_words):
            self.exact_tables["".join(words)].append(place)
            for word in {"".join(words[i:]) for i in range(1, len(words))} | set(words) - CLOSED - ASKING:
                if word != "".join(words):
                    self.partial_tables[word].append(place)
            for word in {root(word) for word in words if word not in CLOSED and word not in ASKING}:
                self.root_tables[word].append(place)


def _own_words(column: Col) -> tuple[str, ...]:
    """Words of a column's name, without the initial of its table before them (`cName` of college: name)."""
    words = identifier_words(column.name)
    initial = column.table[:1].lower()
    if len(words) > 1 and words[0] == initial:
        return words[1:]
    if (
        len(words) == 1
        and words[0] not in KNOWN
        and words[0][:1] == initial
        and words[0][1:] in ("name", "id", "title")
    ):
        return (words[0][1:],)
    return words


def cell_key(text: str) -> str:
    """The form in which cells are compared with the words of a question."""
    return " ".join(atom.surface.lower() for atom in atoms(text)) or text.lower()


_INDEXES: dict[int, SchemaIndex] = {}


def index_of(schema: Schema) -> SchemaIndex:
    """The index of a schema, from a small cache."""
    found = _INDEXES.get(id(schema))
    if found is None or found.schema is not schema:
        while len(_INDEXES) >= 64:
            _INDEXES.pop(next(iter(_INDEXES)))
        found = _INDEXES[id(schema)] = SchemaIndex(schema)
    return found
