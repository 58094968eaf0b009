"""How people state conditions: on numbers, texts, dates, categories and missing cells. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verbal.models.embedded.ast import Both, Condition, Literal, Part, Predicate
from verbal.models.embedded.corpus.namer import ABOVE, AT_LEAST, AT_MOST, BELOW, Namer
from verbal.models.embedded.corpus.world import ColumnInfo


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


class Asker(Namer):
    """Words for one database, one question."""

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
                "whose {n} contains {v}",
                "with {v} in their {n}",
                "with {v} in the {n}",
                "that have {v} in the {n}",
                "containing {v} in the {n}",
                "whose {n} contains the word {v}",
                "whose {n} has the substring {v}",
                "whose {n} includes {v}",
                "with the word {v} in the {n}",
                "whose {n} contains the letter {v}",
            )
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
