"""How people speak of tables, columns, values and orders: the pieces every question is made of.

A `Namer` speaks of one database. It holds the private terms of the hints in play, so that any question may use
one, and notes which cells were mentioned. No torch, no numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from verbal.models.embedded.ast import Aggregate, Col, Expression, Literal, Order
from verbal.models.embedded.corpus.phrases import say
from verbal.models.embedded.corpus.terms import Term
from verbal.models.embedded.corpus.words import past, plural, third_person
from verbal.models.embedded.corpus.world import ColumnInfo, Link, TableInfo, World
from verbal.models.embedded.index import index_of

# Ways to say a comparison, an extreme, a number.
ABOVE = (
    "greater than",
    "more than",
    "larger than",
    "higher than",
    "above",
    "over",
    "bigger than",
    "exceeding",
    "greater than",
    "more than",
)
BELOW = ("less than", "smaller than", "lower than", "below", "under", "fewer than", "less than")
AT_LEAST = ("at least", "no less than", "not less than", "greater than or equal to", "a minimum of", "at least")
AT_MOST = ("at most", "no more than", "not more than", "less than or equal to", "up to", "a maximum of", "at most")
LARGEST = ("highest", "largest", "greatest", "maximum", "biggest", "most", "top", "max")
SMALLEST = ("lowest", "smallest", "minimum", "least", "min")
AGGREGATES = {
    "avg": ("average", "mean", "average", "avg"),
    "sum": ("total", "sum of the", "total", "combined", "total amount of", "sum of"),
    "max": ("maximum", "highest", "largest", "greatest", "max"),
    "min": ("minimum", "lowest", "smallest", "min", "least"),
}
"""Words for each aggregate function."""
# Numbers in words.
NUMBER_WORDS = dict(enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]))


_BARE = {
    "list": "bare_list",
    "which": "bare_list",
    "superlative": "bare_superlative",
    "per_parent": "bare_per_parent",
    "per_parent_last": "bare_per_parent",
    "agg_per_parent": "bare_agg_per_parent",
    "agg_per_parent_last": "bare_agg_per_parent",
    "most_children": "bare_most_children",
    "fewest_children": "bare_fewest_children",
    "top_children": "bare_top_children",
    "top_sum": "bare_top_sum",
    "children_having": "bare_children_having",
    "no_children": "bare_no_children",
    "with_children": "bare_with_children",
    "above_average": "bare_above_average",
}


class Namer:
    """Words for one database, one question."""

    def __init__(self, rng: Random, world: World, terms: Sequence[Term] = (), strangers: Sequence[str] = ()) -> None:
        """A namer.

        Args:
            rng: source of all choices.
            world: the database asked about.
            terms: private terms in play.
            strangers: words that now and then stand where the schema's own would, as with people who do not know it.
        """
        self.rng = rng
        self.strangers = strangers
        self.world = world
        self.terms = terms
        self.used: list[Term] = []
        self.mentioned: list[tuple[str, Col]] = []

    def pick(self, *options: str) -> str:
        """One of the options."""
        return self.rng.choice(options)

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.rng.random() < share

    def label(self, table: TableInfo) -> ColumnInfo | None:
        """The column that names the rows of a table, if one does; what `which singer` asks for."""
        index = index_of(self.world.schema)
        place = index.labels[index.table_ids[table.name]]
        if place is None:
            return None
        return next(column for column in table.columns if column.col == index.columns[place])

    def say(self, key: str, slots: Mapping[str, str], table: TableInfo, shown: Sequence[ColumnInfo]) -> str:
        """A sentence of `key`; where only the name of the rows is asked for, at times one that takes it for granted."""
        bare = _BARE.get(key)
        if bare and len(shown) == 1 and not slots.get("tail") and shown[0] is self.label(table) and self.chance(0.55):
            key = bare
        return say(self.rng, key, slots)

    def term(
        self, kind: str, table: str = "", column: Col | None = None, share: float = 0.9, fresh: bool = False
    ) -> Term | None:
        """A term in play of this kind that speaks of this table or column; it counts as used.

        Args:
            kind: kind of term.
            table: the table it must speak of, if any.
            column: the column it must stand for, if any.
            share: probability of using it.
            fresh: only one that was not used yet.
        """
        for term in self.terms:
            if term.kind != kind or (table and term.table != table) or (column is not None and term.column != column):
                continue
            if fresh and term in self.used:
                continue
            if not self.chance(share):
                return None
            if term not in self.used:
                self.used.append(term)
            return term
        return None

    def noun(self, table: TableInfo, many: bool = True) -> str:
        """What to call the rows of a table."""
        alias = self.term("table", table.name)
        noun = alias.phrase if alias else table.noun
        if not alias and " " in noun and self.chance(0.08):
            noun = noun.split()[-1]
        if not alias and not self.terms and self.strangers and self.chance(0.06):
            other = self.rng.choice(self.strangers)
            noun = other if self.chance(0.5) else f"{other} {noun}"
        return plural(noun) if many else noun

    def name(self, column: ColumnInfo, many: bool = False) -> str:
        """What to call a column."""
        alias = self.term("column", column=column.col)
        if alias:
            return plural(alias.phrase) if many else alias.phrase
        phrase = column.phrase
        if column.short and self.chance(0.8):
            phrase = column.short
        words = phrase.split()
        if len(words) > 1 and "of" not in words and column.kind not in ("key", "link", "name") and self.chance(0.1):
            short = " ".join(words[1:]) if self.chance(0.7) and words[-1] != "code" else " ".join(words[:-1])
            table = self.world.table(column.table)
            if not any(short in other.phrase for other in table.columns if other is not column):
                phrase = short
        return plural(phrase) if many else phrase

    def names(self, columns: Sequence[ColumnInfo], many: bool = False) -> str:
        """Several columns in one phrase: `name, age and country`."""
        phrases = [column.phrase for column in columns[:2]]
        if phrases == ["first name", "last name"] and not self.terms and self.chance(0.5):
            rest = [self.name(column, many) for column in columns[2:]]
            both = self.pick("first and last name", "full name", "first name and last name") + ("s" if many else "")
            return self.listed([both, *rest])
        return self.listed([self.name(column, many) for column in columns])

    def listed(self, items: Sequence[str]) -> str:
        """Items as a list in words."""
        if len(items) == 1:
            return items[0]
        last = self.rng.choices(
            (" and ", " and the ", ", and ", " as well as ", ", ", " along with the "), (60, 10, 18, 4, 5, 3)
        )[0]
        return ", ".join(items[:-1]) + last + items[-1]

    def article(self, phrase: str) -> str:
        """The phrase after `a` or `an`."""
        return ("an " if phrase[:1] in "aeiou" else "a ") + phrase

    def number(self, value: str) -> str:
        """A number as people write it."""
        if value.isdigit() and int(value) <= 10 and self.chance(0.25):
            return NUMBER_WORDS[int(value)]
        if value.isdigit() and len(value) > 4 and self.chance(0.2):
            return f"{int(value):,}"
        return value

    def quoted(self, value: str) -> str:
        """A text value as people write it: bare, or in one of two kinds of quotes."""
        roll = self.rng.random()
        if "'" in value:
            return f'"{value}"'
        return value if roll < 0.55 else f"'{value}'" if roll < 0.75 else f'"{value}"'

    def cell(self, column: ColumnInfo) -> str | None:
        """The text of one cell of a column, or None if it holds nothing."""
        cells = self.world.cells(column)
        return str(self.rng.choice(cells)) if cells else None

    def literal(self, column: ColumnInfo, value: str) -> Literal:
        """The value as SQL, noted as mentioned when it is text."""
        if column.type in ("text", "date"):
            if column.type == "text":
                self.mentioned.append((value, column.col))
            return Literal(value, True)
        return Literal(value)

    def related(self, link: Link, child: bool, person: bool = False) -> str:
        """Words from the child to its parent (`child`) or from the parent to its children."""
        verb = link.verb
        if child:
            return self.pick(
                "of",
                "for",
                "from",
                "of",
                "belonging to",
                "that belong to",
                "by",
                "in",
                "with",
                "associated with",
                "at",
                "related to",
                f"{past(verb)} by",
                f"that are {past(verb)} by",
                "on",
            )
        who = "who" if person else "that"
        return self.pick(
            "with",
            f"{who} have",
            f"{who} has",
            "having",
            f"{who} {verb}",
            f"{who} {third_person(verb)}",
            f"{who} {past(verb)}",
            "of",
            "associated with",
            f"{who} are associated with",
            f"{who} own",
        )

    def direction(self, column: ColumnInfo) -> tuple[Order, str]:
        """An order by one column and its words."""
        down = self.chance(0.45)
        name = self.name(column)
        if down:
            words = self.pick(
                "in descending order of {n}",
                "ordered by {n} in descending order",
                "sorted by {n} in descending order",
                "sorted by {n} descending",
                "in descending order of {n}",
                "from the highest {n} to the lowest",
                "in decreasing order of {n}",
                "ordered by descending {n}",
                "ordered by {n} from highest to lowest",
                "with the highest {n} first",
                "ranked by {n} from high to low",
                "sorted descending by {n}",
                "in descending order by {n}",
                "in reverse order of {n}",
            )
            if column.kind in ("name", "text") and self.chance(0.5):
                words = self.pick("in reverse alphabetical order of {n}", "in descending alphabetical order of {n}")
            if column.kind == "date" and self.chance(0.4):
                words = self.pick(
                    "from latest to earliest {n}", "from newest to oldest {n}", "with the most recent {n} first"
                )
        else:
            words = self.pick(
                "in ascending order of {n}",
                "ordered by {n}",
                "sorted by {n}",
                "sorted by {n} in ascending order",
                "ordered by {n} ascending",
                "by {n}",
                "in order of {n}",
                "in increasing order of {n}",
                "from the lowest {n} to the highest",
                "ordered by their {n}",
                "in ascending order of their {n}",
                "sorted in ascending order of {n}",
                "in the order of {n}",
            )
            if column.kind in ("name", "text") and self.chance(0.5):
                words = self.pick(
                    "in alphabetical order of {n}",
                    "sorted alphabetically by {n}",
                    "in alphabetical order by {n}",
                    "in lexicographical order of {n}",
                )
            if column.kind == "date" and self.chance(0.4):
                words = self.pick(
                    "from earliest to latest {n}", "from oldest to newest {n}", "with the oldest {n} first"
                )
        comma = ", " if self.chance(0.2) else " "
        return Order(column.col, down), comma + words.format(n=name)

    def aggregate(self, function: str, argument: Expression, phrase: str) -> tuple[Aggregate, str]:
        """An aggregate of an expression and its words."""
        return Aggregate(function, argument), f"{self.pick(*AGGREGATES[function])} {phrase}"
