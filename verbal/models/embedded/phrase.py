"""Hints and questions that the model says, as tokens and back. Plain words with slots for names and cells."""

from __future__ import annotations

from collections.abc import Sequence

from verbal.models.embedded.ast import Col, Literal, Query, Unsupported, columns_in, expressions, subqueries
from verbal.models.embedded.hints import split_hint
from verbal.models.embedded.link import Item, Linker
from verbal.models.embedded.slots import Binding, is_number
from verbal.models.embedded.vocabulary import INDEX, KNOWN
from verbal.models.embedded.words import Atom, atoms

_WORDS = {"is_null": "is null", "not_null": "is not null", "is not null": "not_null", "is null": "is_null"}
_STARTERS = frozenset(("what", "which", "how", "who", "where", "when", "whose", "are", "is", "do", "does"))


def write_hint(hint: str, binding: Binding) -> list[str]:
    """Tokens of a hint `TERM means MEANING`; no token at all for an empty hint.

    Raises:
        Unsupported: when the hint has another form or names something that the prompt does not show.
    """
    if not hint:
        return []
    term, body = split_hint(hint)
    if not term:
        raise Unsupported(f"a hint of the form 'TERM means MEANING' expected, got {hint!r}")
    words = [atom for atom in atoms(term) if atom.kind == "word"]
    tokens = [binding.mentions.get(atom.stem) or binding.word(atom.stem, atom.surface) for atom in words]
    tokens.append("means")
    text = body.removeprefix("the ")
    for name in ("is not null", "is null"):
        if text.endswith(name):
            return [*tokens, *_meaning(atoms(text[: -len(name)]), binding), _WORDS[name]]
    return [*tokens, *_meaning(atoms(text), binding)]


def _meaning(body: Sequence[Atom], binding: Binding) -> list[str]:
    tokens: list[str] = []
    column: int | None = None
    place = 0
    while place < len(body):
        atom = body[place]
        place += 1
        if atom.kind == "word":
            while atom.whole and place < len(body) and body[place].whole == atom.whole:
                place += 1
            name = (atom.whole or atom.surface).lower()
            found = [one for one in binding.index.whole.get(name, ()) if one in binding.column_slots]
            if tokens[-1:] == ["table"] or (not found and name in map(str.lower, binding.index.tables)):
                number = [table.lower() for table in binding.index.tables].index(name)
                tokens += [] if tokens[-1:] == ["table"] else ["table"]
                tokens.append(binding.table(number))
            elif found:
                column = min(found, key=lambda one: (binding.column_slots[one][0] != "a", one))
                tokens.append(binding.column(column))
            else:
                tokens.append(_known(atom.surface.lower()))
        elif atom.kind == "mark":
            tokens.append(_known(atom.surface))
        else:
            tokens += binding.literal(Literal(atom.surface, atom.kind != "number"), column)
    return tokens


def _known(word: str) -> str:
    if word not in INDEX:
        raise Unsupported(f"{word!r} in a hint")
    return word


def read_hint(words: Sequence[str], binding: Binding) -> str:
    """The text of a hint; empty when the model said nothing.

    Raises:
        Unsupported: when the tokens are no hint.
    """
    if not words:
        return ""
    if "means" not in words[1:]:
        raise Unsupported("a hint without a meaning")
    at = words.index("means", 1)
    term = " ".join(word if word in KNOWN else binding.words.get(word, word) for word in words[:at])
    return f"{term} means {_text(words[at + 1 :], binding)}"


def _text(words: Sequence[str], binding: Binding) -> str:
    found: list[str] = []
    column: int | None = None
    for place, word in enumerate(words):
        if word in binding.columns:
            column = binding.columns[word]
            found.append(column_name(binding, column))
        elif word in binding.tables:
            found.append(binding.index.tables[binding.tables[word]])
        elif word in ("table", "column"):
            found.append(f"the {word}")
        elif word[:1] == "v" and word[1:].isdigit():
            found.append(_quoted(binding, int(word[1:]), column))
        elif word[:1] == "u" and word[1:].isdigit() and column is not None:
            values, number = binding.index.details[column].values, int(word[1:])
            if values and number >= len(values):
                raise Unsupported(f"no value {word} of that column in the prompt")
            found.append(_literal(values[number], binding.index.details[column].type) if values else "")
        elif word[:1] == "#":
            joined = place > 0 and words[place - 1][:1] == "#"
            found.append(found.pop() + word[1:] if joined else word[1:])
        else:
            found.append(_WORDS.get(word, word))
    text = " ".join(part for part in found if part and part != "'")
    return text.replace("( ", "(").replace(" )", ")").replace("sum (", "sum(")


def _quoted(binding: Binding, number: int, column: int | None) -> str:
    if number >= len(binding.values):
        raise Unsupported(f"no value v{number} in the prompt")
    kind = binding.index.details[column].type if column is not None else ""
    return _literal(binding.values[number], kind)


def _literal(text: str, kind: str) -> str:
    number = is_number(text) and kind not in ("text", "date")
    return text if number else "'" + text.replace("'", "''") + "'"


def column_name(binding: Binding, place: int) -> str:
    """A column's name, with its table where another table has a column of that name."""
    column = binding.index.columns[place]
    same = binding.index.whole.get(column.name.lower(), ())
    return column.name if len(same) < 2 else f"{column.table}.{column.name}"


def write_question(question: str, query: Query, binding: Binding) -> list[str]:
    """Tokens of a proposed question, names as slots.

    Raises:
        Unsupported: when a word is neither known nor a name.
    """
    used = {binding.index.column_ids[column] for column in _columns(query)}
    tokens: list[str] = []
    for place, item in enumerate(items := Linker(binding.index, ()).link(atoms(question))):
        if item.kind == "word":
            if item.sure:
                tokens.append(item.text)
        elif item.kind == "mark":
            tokens += [item.text] * (item.text in INDEX)
        elif item.kind == "table":
            tokens += [binding.table(item.target)] if place and items[place - 1].kind != "table" else []
        elif item.kind == "column" and (place == 0 or items[place - 1].kind != "column"):
            run = _run(items, place)
            target = next((one for one in run if one in used), run[0])
            value = place > 0 and items[place - 1].kind == "value"
            tokens.append(binding.column(target))
            if value:
                tokens += binding.literal(Literal(items[place - 1].text, True), target)
        elif item.kind == "value" and (place + 1 >= len(items) or items[place + 1].kind != "column"):
            tokens += binding.literal(Literal(item.text, item.surface != "number"), None)
    unknown = [token for token in tokens if token not in INDEX or (token[:1] == "w" and token[1:].isdigit())]
    if unknown:
        raise Unsupported(f"unknown words in a proposed question: {', '.join(unknown)}")
    return tokens


def _run(items: Sequence[Item], start: int) -> list[int]:
    found: list[int] = []
    while start < len(items) and items[start].kind == "column":
        found.append(items[start].target)
        start += 1
    return found


def _columns(query: Query) -> list[Col]:
    found = [column for item in expressions(query) for column in columns_in(item)]
    return found + [column for inner in subqueries(query) for column in _columns(inner)]


def read_question(words: Sequence[str], binding: Binding) -> str:
    """The text of a proposed question.

    Raises:
        Unsupported: when it is empty.
    """
    index = binding.index
    found: list[str] = []
    for place, word in enumerate(words):
        after = words[place + 1] if place + 1 < len(words) else ""
        if word in binding.columns:
            if not (after[:1] == "u" and after[1:].isdigit()):
                found.append(" ".join(index.words[binding.columns[word]]))
        elif word in binding.tables:
            found.append(" ".join(index.table_words[binding.tables[word]]))
        elif word[:1] == "u" and word[1:].isdigit() and words[place - 1] in binding.columns:
            values = index.details[binding.columns[words[place - 1]]].values
            if int(word[1:]) >= len(values):
                raise Unsupported(f"no value {word} in its column")
            found.append(f"'{values[int(word[1:])]}'")
        elif word[:1] == "#":
            joined = place > 0 and words[place - 1][:1] == "#"
            found.append(found.pop() + word[1:] if joined and found else word[1:])
        elif word in KNOWN or word == ",":
            found.append(word)
    if not found:
        raise Unsupported("an empty question")
    text = " ".join(found).replace(" ,", ",")
    return text[:1].upper() + text[1:] + ("?" if found[0] in _STARTERS else ".")
