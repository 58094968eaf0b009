"""Private terms and the hints that define them. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from verbal.models.embedded.ast import Aggregate, Arithmetic, Col, Condition, Expression, Literal
from verbal.models.embedded.corpus.phrases import say
from verbal.models.embedded.corpus.words import Lexicon, plural
from verbal.models.embedded.corpus.world import ColumnInfo, TableInfo, World

KINDS = ("predicate", "measure", "column", "table")
"""What a term may stand for: a condition on rows, an amount, a column, a table."""

# Ways to say a comparison in a hint.
WORDS_FOR = {
    ">": ("above", "over", "greater than", "more than", "higher than"),
    "<": ("below", "under", "less than", "lower than"),
    ">=": ("at least", "no less than"),
    "<=": ("at most", "no more than"),
}


@dataclass(frozen=True, slots=True)
class Term:
    """A word that only a hint explains."""

    phrase: str
    """The word or words, without the noun they qualify: `active`, `net revenue`, `handle`."""
    kind: str
    table: str
    meaning: str
    """What the hint says it is, in the plainest form: `status = 'A'`."""
    hint: str
    """The hint as shown, in one of many wordings."""
    plain: str
    """The hint as the reflector is taught to write it: `active customer means status = 'A'`."""
    condition: Condition | None = None
    amount: Expression | None = None
    total: bool = False
    """Whether the amount is already an aggregate: `net revenue means sum(a * b)`."""
    column: Col | None = None


def expression_text(item: Expression, qualified: bool = False) -> str:
    """An expression of a hint as text, column names as they are in the schema."""
    if isinstance(item, Col):
        return f"{item.table}.{item.name}" if qualified else item.name
    if isinstance(item, Literal):
        return f"'{item.text}'" if item.quoted else item.text
    if isinstance(item, Arithmetic):
        left, right = expression_text(item.left, qualified), expression_text(item.right, qualified)
        if isinstance(item.right, Arithmetic):
            right = f"({right})"
        if isinstance(item.left, Arithmetic) and item.op in "*/" and item.left.op in "+-":
            left = f"({left})"
        return f"{left} {item.op} {right}"
    if isinstance(item, Aggregate):
        inside = "*" if item.argument is None else expression_text(item.argument, qualified)
        return f"{item.function}({inside})"
    raise TypeError(f"a hint cannot say {item!r}")


def invent(rng: Random, world: World, words: Lexicon, kind: str = "", table: TableInfo | None = None) -> Term | None:
    """A term for this database (or this table), of the given kind or any; None where there is nothing for it."""
    table = table or rng.choice(world.tables)
    kind = kind or rng.choices(KINDS, (46, 32, 14, 8))[0]
    if kind == "predicate":
        return _predicate(rng, table, words)
    if kind == "measure":
        return _measure(rng, table, world, words)
    if kind == "column":
        columns = table.of("number", "category", "text", "date", "name")
        return _column(rng, table, rng.choice(columns), words) if columns else None
    return _table(rng, table, words)


def adjective(rng: Random, words: Lexicon) -> str:
    """A word or two that can qualify a noun."""
    roll = rng.random()
    if roll < 0.55:
        return rng.choice(words.adjectives)
    if roll < 0.70:
        return rng.choice(words.entities if rng.random() < 0.6 else words.attributes)
    if roll < 0.80:
        return f"{rng.choice(words.adjectives)} {rng.choice(words.adjectives)}"
    if roll < 0.90:
        return f"{rng.choice(words.attributes)} {rng.choice(words.adjectives)}"
    return "".join(rng.choice("ABCDEFGHIKLMNOPRSTVXZ") for _ in range(3))


def _condition(rng: Random, table: TableInfo) -> tuple[Condition, str] | None:
    dates, numbers = table.of("date"), table.of("number")
    coded = [column for column in table.of("category") if column.pool]
    roll = rng.random()
    if len(dates) > 1 and roll < 0.5:
        first, second = rng.sample(dates, 2)
        op = rng.choice("><")
        said = rng.choice(("after", "later than")) if op == ">" else rng.choice(("before", "earlier than"))
        return Condition(first.col, op, second.col), f"{first.phrase} is {said} {second.phrase}"
    if len(numbers) > 1 and roll < 0.13:
        first, second = rng.sample(numbers, 2)
        op = rng.choice(("<", ">", ">", "<", ">=", "<="))
        return Condition(first.col, op, second.col), f"{first.phrase} is {rng.choice(WORDS_FOR[op])} {second.phrase}"
    if coded and (roll < 0.7 or not numbers):
        column = rng.choice(coded)
        value = rng.choice(column.pool)
        op = "!=" if rng.random() < 0.1 else "="
        said = f"{column.phrase} is {'not ' if op == '!=' else ''}" + (f"'{value}'" if column.type == "text" else value)
        return Condition(column.col, op, Literal(value, column.type == "text")), said
    optional = [column for column in table.columns if column.nullable]
    if optional and roll > 0.93:
        column = rng.choice(optional)
        op = rng.choice(("is null", "is not null"))
        return Condition(column.col, op), f"{column.phrase} {'is missing' if op == 'is null' else 'is known'}"
    if not numbers:
        return None
    column = rng.choice(numbers)
    limit = str(int(rng.uniform(column.low, column.high)))
    op = rng.choices((">", "<", ">=", "<="), (45, 25, 20, 10))[0]
    return Condition(column.col, op, Literal(limit)), f"{column.phrase} is {rng.choice(WORDS_FOR[op])} {limit}"


def _condition_text(condition: Condition) -> str:
    assert isinstance(condition.left, Col)
    if condition.right is None:
        return f"{condition.left.name} {condition.op}"
    assert isinstance(condition.right, Col | Literal)
    return f"{condition.left.name} {condition.op} {expression_text(condition.right)}"


def _predicate(rng: Random, table: TableInfo, words: Lexicon) -> Term | None:
    made = _condition(rng, table)
    if made is None:
        return None
    condition, said = made
    phrase = adjective(rng, words)
    if phrase in table.noun.split():
        return None
    text = _condition_text(condition)
    noun, nouns = table.noun, plural(table.noun)
    subject = rng.choice((f"{phrase} {noun}", f"{phrase} {noun}", phrase, f"{phrase} {nouns}"))
    meaning = text if rng.random() < 0.6 else said
    words_for = said.replace(" is ", " ", 1)
    slots = {"s": subject, "m": meaning, "n": noun, "ns": nouns, "p": phrase, "w": words_for, "t": text}
    hint = say(rng, "hint_predicate", slots)
    return Term(phrase, "predicate", table.name, text, hint, f"{phrase} {noun} means {text}", condition=condition)


def _measure(rng: Random, table: TableInfo, world: World, words: Lexicon) -> Term | None:
    numbers = table.of("number")
    parents = [link.parent for link in world.links if link.child is table]
    far = [column for parent in parents for column in parent.of("number")]
    if len(numbers) < 2 and not (numbers and far):
        return None
    first = rng.choice(numbers)
    others = [column for column in numbers if column is not first]
    crossed = bool(far) and (not others or rng.random() < 0.2)
    second = rng.choice(far if crossed else others)
    amount: Expression = Arithmetic(rng.choices("*-+/", (42, 34, 16, 8))[0], first.col, second.col)
    third = [column for column in others if column is not second]
    roll = rng.random()
    if third and roll < 0.25:
        amount = Arithmetic(rng.choice("-+"), amount, rng.choice(third).col)
    elif roll < 0.29 and isinstance(amount, Arithmetic):
        amount = Arithmetic("*", first.col, Arithmetic("-", Literal("1"), second.col))
    total = rng.random() < 0.3
    if total:
        amount = Aggregate("sum", amount)
    roll = rng.random()
    noun = rng.choice(words.attributes)
    phrase = (
        noun
        if roll < 0.5
        else f"{rng.choice(words.adjectives)} {noun}"
        if roll < 0.85
        else f"{rng.choice(words.entities)} {noun}"
    )
    text = expression_text(amount, crossed or rng.random() < 0.1)
    plain = expression_text(amount, crossed)
    hint = say(rng, "hint_measure", {"p": phrase, "t": text, "of": f"{phrase} of {plural(table.noun)}"})
    return Term(phrase, "measure", table.name, plain, hint, f"{phrase} means {plain}", amount=amount, total=total)


def _column(rng: Random, table: TableInfo, column: ColumnInfo, words: Lexicon) -> Term:
    phrase = words.attribute(rng)
    name = column.name if rng.random() < 0.85 else f"{table.name}.{column.name}"
    hint = say(rng, "hint_column", {"p": phrase, "c": name})
    return Term(
        phrase, "column", table.name, column.name, hint, f"{phrase} means the column {column.name}", column=column.col
    )


def _table(rng: Random, table: TableInfo, words: Lexicon) -> Term:
    phrase = rng.choice(words.entities)
    hint = say(rng, "hint_table", {"p": phrase, "ps": plural(phrase), "t": table.name, "n": table.noun})
    return Term(phrase, "table", table.name, table.name, hint, f"{phrase} means the table {table.name}")


def distractor(rng: Random, world: World, words: Lexicon, used: Sequence[Term]) -> Term | None:
    """A term the question does not use; at times it shares a word with one that it does use."""
    term = invent(rng, world, words)
    if term is None or not used or rng.random() > 0.4:
        return term
    target = rng.choice(used)
    shared = target.phrase.split()[-1] if rng.random() < 0.5 else target.phrase.split()[0]
    phrase = (
        f"{rng.choice(words.adjectives)} {shared}" if rng.random() < 0.6 else f"{shared} {rng.choice(words.attributes)}"
    )
    if phrase == target.phrase or phrase == term.phrase:
        return term
    return Term(
        phrase, term.kind, term.table, term.meaning, term.hint.replace(term.phrase, phrase),
        term.plain.replace(term.phrase, phrase, 1), term.condition, term.amount, term.total, term.column,
    )  # fmt: skip
