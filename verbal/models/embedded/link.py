"""Schema linking: which words of a text speak of which table, column or cell. Plain lookups, no learning.

A sure link is the whole name; an unsure one is part of a name, a synonym, or a word that hints at a kind of column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from verbal.models.embedded.fields import Value
from verbal.models.embedded.index import SchemaIndex, cell_key
from verbal.models.embedded.lexicon import ABBREVIATIONS, ASKING, CLOSED, CUES, SEXES, SYNONYMS, noun, root
from verbal.models.embedded.words import Atom, atoms

_LONGEST = 6
_STARTERS = """show list find give name state order rank report count record return display sort place number group
describe select"""
_AT_START = frozenset(_STARTERS.split())
_VERBS_AND_NAMES = frozenset(("start", "end", "rank", "time", "record"))
_SORTING = frozenset(("ascend", "descend", "alphabetical", "increase", "decrease", "reverse", "lexicographical"))


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of a linked text."""

    kind: str
    """word, mark, table, column or value."""
    text: str = ""
    """Base form of a word, the mark, or the value."""
    surface: str = ""
    """The word as written; for a value: number, date or quoted."""
    target: int = -1
    """Number of the table or column."""
    sure: bool = True


class Linker:
    """Links one text (atoms of a question with its hints) to a schema."""

    def __init__(self, index: SchemaIndex, values: Sequence[Value]) -> None:
        """Prepares lookups of the cells that this prompt names."""
        self.index = index
        self.cells: dict[str, list[tuple[int, str]]] = {}
        self.spellings: dict[tuple[str, int], str] = {}
        """How a value (as its item's text) is spelled in a column, where that differs."""
        for value in values:
            place = next((c for c in index.whole.get(f"{value.table}.{value.column}".lower(), ())), None)
            if place is not None:
                self.cells.setdefault(cell_key(value.text), []).append((place, value.text))

    def link(self, text: Sequence[Atom]) -> list[Item]:
        """The text as words, marks, values and links, in order."""
        text = self.text = self._full_names(text)
        self.keys = [noun(atom.surface.lower()) if atom.kind == "word" and not atom.explained else "" for atom in text]
        self.spans: dict[int, tuple[int, list[Item], bool]] = {}
        self._columns_at: list[tuple[int, int, list[int]]] = []
        self.mentioned: dict[int, list[int]] = {}
        covered = [False] * len(text)
        for length in range(min(_LONGEST, len(text)), 0, -1):
            for start in range(len(text) - length + 1):
                if not any(covered[start : start + length]) and self._exact(start, length):
                    covered[start : start + length] = [True] * length
        for length in (3, 2, 1):
            for start in range(len(text) - length + 1):
                if not any(covered[start : start + length]) and self._partial(start, length):
                    covered[start : start + length] = [True] * length
        self._years()
        self._columns_at = [one for one in self._columns_at if not self._explained(one[0])]
        for start, length, places in self._columns_at:
            exact = self.spans[start][2]
            self.spans[start][1].extend(self._choose(start, places, exact))
            self.spans[start] = (length, self.spans[start][1], exact)
        return self._items()

    def _full_names(self, text: Sequence[Atom]) -> Sequence[Atom]:
        """The text with `full name` as first name and last name where the schema has only these."""
        exact = self.index.exact
        if "fullname" in exact or "firstname" not in exact or "lastname" not in exact:
            return text
        found: list[Atom] = []
        for place, atom in enumerate(text):
            if atom.stem == "full" and place + 1 < len(text) and text[place + 1].stem == "name":
                found += [*atoms("first name and last")]
            else:
                found.append(atom)
        return found

    def _years(self) -> None:
        """Links a year that no column name stands before to the columns that hold years or dates."""
        index = self.index
        for place, atom in enumerate(self.text):
            linked = any(place - 2 < at + size <= place and self._named(at) for at, size, _ in self._columns_at)
            year = atom.kind == "number" and _is_year(atom.surface)
            if place in self.spans or linked or not (year or atom.kind == "date"):
                continue
            dated = [
                c for c, one in enumerate(index.details) if one.type == "date" or (year and "year" in index.words[c])
            ]
            near = [c for c in dated if index.table_of[c] in self.mentioned] or dated
            if near:
                self.spans[place] = (1, [Item("value", atom.surface, atom.kind)], False)
                self._columns_at.append((place, 1, near[:2]))

    def _explained(self, start: int) -> bool:
        """Whether a number that also is a cell follows the name of the column that it is about."""
        before = any(start - 3 < at + size <= start and self._named(at) for at, size, _ in self._columns_at)
        return self.text[start].kind == "number" and not self._named(start) and before

    def _named(self, start: int) -> bool:
        items = self.spans[start][1]
        return not (items and items[0].kind == "value")

    def _exact(self, start: int, length: int) -> bool:
        """Finds a cell or a whole name at these atoms."""
        span = self.text[start : start + length]
        cells = self._cells(span, start)
        words = self.keys[start : start + length]
        whole = self._whole(span) if length > 1 or span[0].whole else None
        if whole is not None:
            self._columns_at.append((start, length, whole))
            self.spans[start] = (length, [], True)
            return True
        named = all(words) and words[0] not in CLOSED and words[-1] not in CLOSED and not self._asks(start, length)
        tables: list[int] = []
        columns: list[int] = []
        if named:
            inner = [w for i, w in enumerate(words) if i in (0, length - 1) or w not in ("of", "the", "a", "an")]
            joined = "".join(inner)
            joined = "".join(ABBREVIATIONS.get(joined, (joined,)))
            tables = self.index.exact_tables.get(joined, [])
            columns = self.index.exact.get(joined, [])
            if not columns and not tables and length > 2 and "of" in words:
                at = words.index("of")
                after = [w for w in words[at + 1 :] if w not in ("the", "a", "an")]
                if "".join(after) not in self.index.exact_tables:
                    columns = self.index.exact.get("".join((*after, *words[:at])), [])
        if cells and length == 1 and span[0].kind == "word" and not (span[0].surface[:1].isupper() and start > 0):
            listed = any(text.lower() == span[0].surface.lower() for _, text in cells) and self.index.cells
            parts = words[0] in self.index.partial or words[0] in self.index.partial_tables
            cells = [] if parts and not (listed and span[0].surface.lower() in self.index.cells) else cells
        proper = (span[0].surface[:1].isupper() and start > 0) or span[0].kind == "quoted"
        if cells and (proper or not (tables or columns)):
            self.spans[start] = (length, self._value(cells, span), True)
            self._note_value(start, cells)
            return True
        if not tables and not columns:
            return False
        items = [Item("table", target=table, sure=place == 0) for place, table in enumerate(tables[:2])]
        self.spans[start] = (length, items, True)
        for table in tables:
            self.mentioned.setdefault(table, []).append(start)
        if columns:
            self._columns_at.append((start, length, list(columns)))
            for place in columns:
                table = self.index.table_of[place]
                if length > 1 and "".join(words).startswith("".join(self.index.table_words[table])):
                    self.mentioned.setdefault(table, []).append(start)
        return True

    def _whole(self, span: Sequence[Atom]) -> list[int] | None:
        """Columns whose identifier (`unit_price`, `item.unit_price`) is written out here."""
        name = span[0].whole
        if not name or any(atom.whole != name for atom in span):
            return None
        return self.index.whole.get(name.lower())

    def _asks(self, start: int, length: int) -> bool:
        """Whether a word that could be a name is a verb or a sorting word here."""
        if length > 1:
            return False
        word = self.keys[start]
        after = self.keys[start + 1] if start + 1 < len(self.keys) else ""
        before = self.keys[start - 1] if start else ""
        if word == "year" and after == "old":
            return True
        if start == 0 and word in _AT_START and after not in ("of", "and", "for"):
            return True
        if word == "order" and (after == "by" or (before or "").rstrip("ing") in _SORTING or before in _BEFORE_ORDER):
            return True
        return word in ("number", "total", "count", "average", "maximum", "minimum") and (
            after == "of" or before == "total" or after in self.index.exact
        )

    def _cells(self, span: Sequence[Atom], start: int) -> list[tuple[int, str]]:
        if any(atom.explained or (atom.kind == "mark" and atom.surface in "(),") for atom in span):
            return []
        surface = " ".join(atom.surface.lower() for atom in span)
        if len(span) == 1 and span[0].kind == "quoted":
            surface = cell_key(span[0].surface)
        found = [*self.cells.get(surface, ()), *self.index.cells.get(surface, ())]
        if not found and span[-1].kind == "word":
            single = surface[: len(surface) - len(span[-1].surface)] + noun(span[-1].surface.lower())
            found = [*self.cells.get(single, ()), *self.index.cells.get(single, ())]
        if len(span) == 1 and span[0].kind == "word" and (len(surface) <= 2 or surface in CLOSED or surface in ASKING):
            found = [cell for cell in found if cell[1] == span[0].surface and start > 0]
        return list(dict.fromkeys(found))

    def _value(self, cells: list[tuple[int, str]], span: Sequence[Atom]) -> list[Item]:
        kind = span[0].kind if len(span) == 1 and span[0].kind in ("number", "date") else "quoted"
        self.spellings |= {(cells[0][1], place): text for place, text in cells if text != cells[0][1]}
        return [Item("value", cells[0][1], kind)]

    def _note_value(self, start: int, cells: list[tuple[int, str]]) -> None:
        self._columns_at.append((start, self.spans[start][0], [place for place, _ in cells]))

    def _partial(self, start: int, length: int) -> bool:
        """Finds part of a name, a synonym or a hint at a column at these atoms."""
        words = self.keys[start : start + length]
        if not all(words) or words[0] in CLOSED or words[-1] in CLOSED or self._asks(start, length):
            return False
        joined = "".join(words)
        tables = list(self.index.partial_tables.get(joined, ()))
        columns = list(self.index.partial.get(joined, ())) if len(joined) > 1 else []
        if length == 1 and words[0] in SEXES and self._sex(start, words[0]):
            return True
        if length == 1 and not (tables or columns):
            tables, columns = self._loose(words[0], self.text[start].stem)
        if not tables and not columns:
            return False
        tables.sort(key=lambda table: (len(self.index.table_words[table]), table))
        if tables:
            columns = [place for place in columns if self.index.kinds[place] not in ("key", "ref")]
        items = [Item("table", target=table, sure=False) for table in tables[:2]]
        self.spans[start] = (length, items, False)
        if tables and not columns:
            for table in tables[:1]:
                self.mentioned.setdefault(table, []).append(start)
        if columns:
            self._columns_at.append((start, length, columns))
        return True

    def _sex(self, start: int, word: str) -> bool:
        """Reads `female` as the cell that says so (`F`) where a column of sexes has one."""
        index = self.index
        cells = [
            (place, value)
            for place in (*index.exact.get("gender", ()), *index.exact.get("sex", ()))
            for value in index.details[place].values
            if value.lower() in SEXES[word]
        ]
        if cells:
            self.spans[start] = (1, self._value(cells, self.text[start : start + 1]), False)
            self._columns_at.append((start, 1, [place for place, _ in cells]))
        return bool(cells)

    def _loose(self, word: str, base: str) -> tuple[list[int], list[int]]:
        index = self.index
        cues = CUES.get(word, ()) or CUES.get(base, ())
        first: list[int] = []
        for tier in cues:
            columns = list(dict.fromkeys(place for cue in tier for place in index.exact.get(cue, ())))
            columns += [place for cue in tier for place in index.partial.get(cue, ()) if place not in columns]
            near = [place for place in columns if index.table_of[place] in self.mentioned]
            if near:
                return [], near
            first = first or columns
        if cues:
            return [], first
        if base in _VERBS_AND_NAMES:
            return [], list(index.exact.get(base, ())) or list(index.roots.get(base, ()))
        if word in ASKING or base in ASKING:
            return [], []
        tables: list[int] = []
        columns = []
        for other in dict.fromkeys((base, *SYNONYMS.get(word, ()), *SYNONYMS.get(base, ()))):
            tables += [table for table in index.exact_tables.get(other, ()) if table not in tables]
            columns += [place for place in index.exact.get(other, ()) if place not in columns]
        if not tables and not columns:
            for other in SYNONYMS.get(word, ()):
                tables += [table for table in index.partial_tables.get(other, ()) if table not in tables]
                columns += [place for place in index.partial.get(other, ()) if place not in columns]
        if not tables and not columns and len(word) > 4:
            tables, columns = list(index.root_tables.get(root(word), ())), list(index.roots.get(root(word), ()))
        return tables, columns

    def _choose(self, start: int, places: Sequence[int], exact: bool) -> Iterable[Item]:
        """The likeliest columns, best first: near a mention of their table, then one key away from one."""
        index = self.index
        value = bool(self.spans[start][1]) and self.spans[start][1][0].kind == "value"

        def score(place: int) -> tuple[float, int]:
            table = index.table_of[place]
            at = self.mentioned.get(table)
            if at:
                near = 1000.0 - min(abs(here - start) - (0.5 if here > start else 0) for here in at)
            else:
                near = 100.0 if any(other in self.mentioned for other in index.neighbours[table]) else 0.0
            return (-near - (0 if place in index.refs else 0.1), places.index(place))

        if exact and not value and not any(index.table_of[place] in self.mentioned for place in places):
            joined = "".join(self.keys[start : start + self.spans[start][0]])
            near = [place for place in index.partial.get(joined, ()) if index.table_of[place] in self.mentioned]
            places, exact = [*places, *near], exact and not near
        ranked = sorted(dict.fromkeys(places), key=score)
        if ranked and index.table_of[ranked[0]] in self.mentioned:
            ranked = [place for place in ranked if index.table_of[place] in self.mentioned][: 2 if exact else 3]
        most = 2 if value and not exact else 3
        sure = exact and (len(ranked) == 1 or index.table_of[ranked[0]] in self.mentioned)
        return [Item("column", target=place, sure=sure and rank == 0) for rank, place in enumerate(ranked[:most])]

    def _items(self) -> list[Item]:
        found: list[Item] = []
        place = 0
        while place < len(self.text):
            span = self.spans.get(place)
            if span is None:
                found.append(self._plain(self.text[place], place))
                place += 1
                continue
            length, items, exact = span
            if not (items and items[0].kind == "value"):
                for atom in self.text[place : place + length]:
                    if atom.kind == "word":
                        found.append(Item("word", atom.stem, atom.surface, sure=not exact))
            found.extend(items)
            place += length
        return found

    def _plain(self, atom: Atom, place: int) -> Item:
        if atom.kind in ("number", "date", "quoted"):
            return Item("value", atom.surface, atom.kind)
        if atom.kind == "mark":
            return Item("mark", atom.surface)
        return Item("word", atom.stem, atom.surface)


_BEFORE_ORDER = frozenset(
    ("ascending", "descending", "alphabetical", "increasing", "decreasing", "in", "sort", "sorted")
)


def _is_year(text: str) -> bool:
    return len(text) == 4 and text.isdigit() and "1000" <= text <= "2100"
