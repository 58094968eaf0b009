"""How people speak of tables, columns, values and conditions: the pieces every question is made of.

An `Asker` asks about one database. It holds the private terms of the hints in play, so that any question may use
one, and notes which cells were mentioned. No torch, no numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from verbal.models.embedded.ast import Aggregate, Both, Col, Condition, Expression, Literal, Order, Part, Predicate
from verbal.models.embedded.corpus.terms import Term
from verbal.models.embedded.corpus.words import past, plural, third_person
from verbal.models.embedded.corpus.world import ColumnInfo, Link, TableInfo, World

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
NUMBER_WORDS = dict(enumerate("zero one two three four five six seven eight nine ten".split()))


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition and its words: `before` the noun (`active`) or `after` it (`whose age is over 20`)."""

    predicate: Predicate
    before: str = ""
    after: str = ""


def all_of(clauses: Sequence[Clause]) -> Predicate | None:
    """The conditions of all clauses joined by `and`; None where there is none."""
    parts = [clause.predicate for clause in clauses]
    if len(parts) < 2:
        return parts[0] if parts else None
    flat: list[Condition | Both] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Both) and part.connective == "and" else [part])
    return Both("and", tuple(flat))


class Asker:
    """Words for one database, one question."""

    def __init__(self, rng: Random, world: World, terms: Sequence[Term] = (), strangers: Sequence[str] = ()) -> None:
        """An asker.

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

    def term(self, kind: str, table: str = "", column: Col | None = None, share: float = 0.9) -> Term | None:
        """A term in play of this kind that speaks of this table or column; it counts as used."""
        for term in self.terms:
            if term.kind == kind and (not table or term.table == table) and (column is None or term.column == column):
                if self.chance(share):
                    if term not in self.used:
                        self.used.append(term)
                    return term
                return None
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

    # values ------------------------------------------------------------------------------------------------

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

    # conditions --------------------------------------------------------------------------------------------

    def about(self, column: ColumnInfo, words: str, person: bool = False) -> str:
        """`words` said of a column, after a noun: `whose age is over 20`."""
        name = self.name(column)
        form = self.rng.randrange(9)
        if form < 3:
            return f"whose {name} is {words}"
        if form == 3:
            return f"with {name} {words}"
        if form == 4:
            return f"with {self.article(name)} {words}"
        if form == 5:
            return f"{'who' if person else 'that'} have {self.article(name) if self.chance(0.5) else name} {words}"
        if form == 6:
            return f"where the {name} is {words}" if self.chance(0.5) else f"where {name} is {words}"
        if form == 7:
            return f"having {name} {words}"
        return f"that has {self.article(name)} of {words}"

    def comparison(self, column: ColumnInfo, value: str, person: bool) -> Clause:
        """`column op number`, in words of its own if it has some."""
        said = self.number(value)
        literal = Literal(value)
        roll = self.rng.random()
        if roll < 0.12:
            words = (
                f"{self.pick(*AT_LEAST)} {said}"
                if self.chance(0.8)
                else f"{said} or {self.pick('more', 'higher', 'above')}"
            )
            return Clause(Condition(column.col, ">=", literal), after=self._measured(column, words, person))
        if roll < 0.20:
            words = (
                f"{self.pick(*AT_MOST)} {said}"
                if self.chance(0.8)
                else f"{said} or {self.pick('less', 'lower', 'below')}"
            )
            return Clause(Condition(column.col, "<=", literal), after=self._measured(column, words, person))
        up = roll < 0.64
        own = column.more if up else column.less
        op = ">" if up else "<"
        if own and self.chance(0.45) and not self.terms:
            return Clause(
                Condition(column.col, op, literal), after=f"{self.rng.choice(own)} {said}".replace("since", "after")
            )
        return Clause(
            Condition(column.col, op, literal),
            after=self._measured(column, f"{self.pick(*(ABOVE if up else BELOW))} {said}", person),
        )

    def _measured(self, column: ColumnInfo, words: str, person: bool) -> str:
        if self.chance(0.2):
            return f"{self.pick('with', 'that have', 'having')} {words} {self.name(column, many=True)}"
        return self.about(column, words, person)

    def equality(self, column: ColumnInfo, value: str, person: bool) -> Clause:
        """`column = value` for a number or a text."""
        literal = self.literal(column, value)
        said = self.quoted(value) if literal.quoted else self.number(value)
        if literal.quoted and column.kind == "category" and self.chance(0.15):
            said = said.lower()
        condition = Condition(column.col, "=", literal)
        lead = self.rng.choice(column.leads) if column.leads else ""
        if lead and self.chance(0.5) and not self.term("column", column=column.col, share=0):
            if lead == "adj":
                return (
                    Clause(condition, before=said) if self.chance(0.8) else Clause(condition, after=f"that are {said}")
                )
            tail = f" {self.name(column)}" if self.chance(0.2) else ""
            return Clause(condition, after=f"{lead}{' the' if tail else ''} {said}{tail}")
        if column.kind == "name" and self.chance(0.45):
            return Clause(condition, after=f"{self.pick('named', 'called', 'with the name', 'titled', 'named')} {said}")
        roll = self.rng.random()
        if roll < 0.12:
            return Clause(condition, after=f"with {said} as {self.pick('the', 'their')} {self.name(column)}")
        if roll < 0.18:
            return Clause(condition, after=f"{self.pick('in', 'of', 'from')} the {said} {self.name(column)}")
        if roll < 0.24:
            return Clause(condition, after=f"of {self.name(column)} {said}")
        return Clause(condition, after=self.about(column, said, person))

    def different(self, column: ColumnInfo, value: str, person: bool) -> Clause:
        """`column != value`."""
        literal = self.literal(column, value)
        said = self.quoted(value) if literal.quoted else self.number(value)
        condition = Condition(column.col, "!=", literal)
        if column.leads and column.leads[0] != "adj" and self.chance(0.4):
            return Clause(condition, after=f"{self.pick('not', 'that are not')} {column.leads[0]} {said}")
        if column.leads and self.chance(0.4):
            return Clause(condition, after=f"that are not {said}")
        form = self.pick(
            "whose {n} is not {v}",
            "that do not have the {n} {v}",
            "with {n} other than {v}",
            "with a {n} different from {v}",
            "whose {n} is not equal to {v}",
        )
        return Clause(condition, after=form.format(n=self.name(column), v=said))

    def span(self, column: ColumnInfo, low: str, high: str, person: bool) -> Clause:
        """`column between low and high`."""
        text = column.type == "date"
        form = self.pick(
            "between {a} and {b}",
            "between {a} and {b}",
            "from {a} to {b}",
            "in the range of {a} and {b}",
            "ranging from {a} to {b}",
        )
        words = form.format(a=low, b=high)
        condition = Condition(column.col, "between", (Literal(low, text), Literal(high, text)))
        return Clause(condition, after=self.about(column, words, person))

    def like(self, column: ColumnInfo, value: str) -> Clause:
        """`column like pattern` with a piece of one of its values."""
        word = self.rng.choice(value.split())
        roll = self.rng.random()
        name = self.name(column)
        if roll < 0.6:
            piece, pattern = word, f"%{word}%"
            form = self.pick(
                "whose {n} contains {v}", "with {v} in their {n}", "with {v} in the {n}", "that have {v} in the {n}", "containing {v} in the {n}",
                "whose {n} contains the word {v}", "whose {n} has the substring {v}", "whose {n} includes {v}", "with the word {v} in the {n}", "whose {n} contains the letter {v}",
            )  # fmt: skip
            if "letter" in form:
                piece = word[:1]
                pattern = f"%{piece}%"
        elif roll < 0.85:
            piece = word[: self.rng.randint(1, 3)] if self.chance(0.6) else word
            pattern = f"{piece}%"
            form = self.pick(
                "whose {n} starts with {v}",
                "whose {n} begins with {v}",
                "with {n} starting with {v}",
                "with a {n} beginning with {v}",
                "whose {n} starts with the letter {v}",
            )
        else:
            piece = word[-self.rng.randint(1, 3) :]
            pattern = f"%{piece}"
            form = self.pick("whose {n} ends with {v}", "with {n} ending with {v}", "whose {n} ends in {v}")
        said = f"'{piece}'" if self.chance(0.6) else f'"{piece}"'
        if "'" in piece:
            said = f'"{piece}"'
        negated = roll < 0.6 and self.chance(0.12) and "contains" in form
        if negated:
            form = form.replace("contains", "does not contain")
        return Clause(
            Condition(column.col, "not like" if negated else "like", Literal(pattern, True)),
            after=form.format(n=name, v=said),
        )

    def missing(self, column: ColumnInfo) -> Clause:
        """`column is null` or not."""
        name = self.name(column)
        if self.chance(0.6):
            form = self.pick(
                "without {n}",
                "without a {n}",
                "with no {n}",
                "that have no {n}",
                "whose {n} is missing",
                "whose {n} is unknown",
                "whose {n} is null",
                "with missing {n}",
                "whose {n} is empty",
                "whose {n} is not known",
                "that do not have a {n}",
            )
            return Clause(Condition(column.col, "is null"), after=form.format(n=name))
        form = self.pick(
            "with a known {n}",
            "whose {n} is not null",
            "whose {n} is known",
            "that have a {n}",
            "whose {n} is not missing",
        )
        return Clause(Condition(column.col, "is not null"), after=form.format(n=name))

    def year(self, column: ColumnInfo, value: str) -> Clause:
        """A condition on the year of a date column."""
        year, part = Literal(value[:4]), Part("year", column.col)
        roll = self.rng.random()
        verb = self.pick(
            "with {n} in", "whose {n} is in", "from", "in", "in the year", "whose {n} is in the year", "with a {n} in"
        ).format(n=self.name(column))
        if column.more and self.chance(0.4):
            verb = (
                self.rng.choice(column.more).replace("after", "in").replace("later than", "in").replace("since", "in")
            )
        if roll < 0.7:
            return Clause(Condition(part, "=", year), after=f"{verb} {year.text}")
        op, words = (
            (">", self.pick("after", "later than")) if self.chance(0.5) else ("<", self.pick("before", "earlier than"))
        )
        return Clause(Condition(part, op, year), after=f"whose {self.name(column)} is {words} {year.text}")

    def date(self, column: ColumnInfo, value: str, person: bool) -> Clause:
        """A condition on a date column."""
        said = self.quoted(value) if self.chance(0.3) else value
        literal = Literal(value, True)
        if self.chance(0.15):
            return Clause(
                Condition(column.col, "=", literal),
                after=self.pick("on {v}", "whose {n} is {v}", "with {n} {v}").format(n=self.name(column), v=said),
            )
        up = self.chance(0.5)
        own = column.more if up else column.less
        if own and self.chance(0.5) and not self.terms:
            words = self.rng.choice(own)
            if "since" in words:
                return Clause(Condition(column.col, ">=", literal), after=f"{words} {said}")
            return Clause(Condition(column.col, ">" if up else "<", literal), after=f"{words} {said}")
        words = self.pick("after", "later than") if up else self.pick("before", "earlier than", "prior to")
        return Clause(
            Condition(column.col, ">" if up else "<", literal), after=self.about(column, f"{words} {said}", person)
        )

    def either(self, column: ColumnInfo, first: str, second: str, person: bool) -> Clause:
        """`column = first or column = second`."""
        one, two = self.literal(column, first), self.literal(column, second)
        said = [self.quoted(value) if column.type == "text" else self.number(value) for value in (first, second)]
        if said[0][:1] in "'\"" and said[1][:1] not in "'\"":
            said[1] = f"{said[0][0]}{said[1]}{said[0][0]}"
        if self.chance(0.2):
            both = Both("and", (Condition(column.col, "!=", one), Condition(column.col, "!=", two)))
            return Clause(both, after=self.about(column, f"neither {said[0]} nor {said[1]}", person))
        both = Both("or", (Condition(column.col, "=", one), Condition(column.col, "=", two)))
        words = self.pick("{a} or {b}", "either {a} or {b}", "{a} or {b}").format(a=said[0], b=said[1])
        lead = self.rng.choice(column.leads) if column.leads else ""
        if lead and lead != "adj" and self.chance(0.5):
            return Clause(both, after=f"{lead} {words}")
        if lead == "adj" and self.chance(0.5):
            return Clause(both, before=words.replace("either ", ""))
        return Clause(both, after=self.about(column, words, person))

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
