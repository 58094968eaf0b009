"""The compact text of a schema, its tokens and its budget."""

from __future__ import annotations

import doctest
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql import compact, fuzzy, names
from verbal.apps.text2sql.compact import STEPS, render, tokens
from verbal.apps.text2sql.linking import ColumnScore, Linked, Linker, TableScore
from verbal.apps.text2sql.names import plain, shown
from verbal.apps.text2sql.schema import Column, ForeignKey, Table, schema_text
from verbal.errors import ConfigError

REGION = Table("region", (Column("region_id", "INTEGER", "1 to 4"), Column("name", "TEXT", "one of 'A b', 'C'", True)),
               ("region_id",))  # fmt: skip
CUSTOMER = Table(
    "customer",
    (
        Column("customer_id", "INTEGER", "1 to 300"),
        Column("name", "VARCHAR(40)", "such as 'Ann', 'Bob'", True, note="full name,\n## or alias"),
        Column("joined", "DATE", "'2020-01-01' to '2024-02-03'"),
        Column("points", "REAL", "always NULL"),
        Column("region_id", "INTEGER"),
        Column("head", "INTEGER"),
    ),
    ("customer_id",),
    (
        ForeignKey(("region_id",), "region", ("region_id",)),
        ForeignKey(("head",), "customer", ("customer_id",), declared=False),
    ),
    note="people",
)


def many(count: int = 200, width: int = 20) -> tuple[Table, ...]:
    """A wide schema in which only `invoice_17` speaks of money."""
    made = []
    for n in range(count):
        columns = [Column("id", "INTEGER", "1 to 9")]
        columns += [Column(f"field_{n}_{m}", "TEXT", "such as 'some text', 'more'", True) for m in range(width - 2)]
        columns.append(Column("amount" if n == 17 else "before_id", "INTEGER", "3 to 4"))
        links = (ForeignKey(("before_id",), made[-1].name, ("id",)),) if made and n != 17 else ()
        made.append(Table(f"{'invoice' if n == 17 else 'thing'}_{n}", tuple(columns), ("id",), links))
    return tuple(made)


def test_the_compact_text() -> None:
    assert schema_text((REGION, CUSTOMER), style="compact") == (
        "region (region_id INTEGER KEY, name TEXT in 'A b' 'C')\n"
        "customer (customer_id INTEGER KEY, name VARCHAR e.g. 'Ann' -- 'full name, ## or alias', joined DATE "
        "'2020-01-01'..'2024-02-03', points REAL all NULL, region_id -> region, head -> customer.customer_id?) "
        "-- 'people'"
    )
    assert render(()).text == "" and render((), budget=1).tokens == 0


def test_keys_of_several_columns_and_long_lists() -> None:
    values = ", ".join(f"'value {n} {'x' * 20}'" for n in range(9))
    table = Table("a b", (Column("x", "TEXT", f"one of {values}", True), Column("y", "")), ("x", "y"),
                  (ForeignKey(("x", "y"), "a b", ("y", "x")),))  # fmt: skip
    assert render((table,)).text == (
        "\"a b\" (x TEXT e.g. 'value 0 xxxxxxxxxxxxxxxxxxxx' 'value 1 xxxxxxxxxxxxxxxxxxxx', y, KEY (x, y), "
        '(x, y) -> "a b" (y, x))'
    )


def test_names_are_quoted_as_the_dialect_wants() -> None:
    for dialect, text in {
        "postgres": '"Order" ("Id" INT)',
        "mysql": "`Order` (Id INT)",
        "duckdb": '"Order" (Id INT)',
    }.items():
        assert render((Table("Order", (Column("Id", "INT"),), dialect=dialect),)).text == text


@pytest.mark.parametrize("budget", [150, 300, 1000, 4000, 20_000])
def test_two_hundred_tables_fit_a_budget_and_keep_what_is_linked(budget: int) -> None:
    tables = many()
    linked = Linker(tables).link("What is the amount of each invoice?", table_count=3, column_count=5)
    assert linked.tables[0].table == "invoice_17"
    shown_ = render(tables, budget=budget, linked=linked)
    assert tokens(shown_.text) <= shown_.tokens <= budget
    assert linked.kept_tables <= shown_.tables and linked.kept_columns <= shown_.columns
    assert re.search(r"^invoice_17 \(.*\bamount INTEGER", shown_.text, re.MULTILINE)
    assert ("invoice_17", "amount") in shown_.columns and ("invoice_17", "id") in shown_.columns


def test_what_is_dropped_first() -> None:
    tables = many(20)
    linked = Linker(tables).link("amount of invoices", table_count=2, column_count=3)
    whole = render(tables, linked=linked)
    assert whole.dropped == () and whole.text == render(tables).text
    seen: list[str] = []
    for budget in range(whole.tokens, 40, -60):
        try:
            now = render(tables, budget=budget, linked=linked)
        except ConfigError:
            break
        assert set(seen) <= set(now.dropped)
        seen = list(now.dropped)
    assert [step for step in STEPS if step in seen] == seen
    assert {STEPS[0], STEPS[3], STEPS[4], STEPS[5], STEPS[6]} <= set(seen)
    first = render(tables, budget=whole.tokens - 1, linked=linked)
    lines = dict(zip((t.name for t in tables), first.text.split("\n"), strict=True))
    changed = [name for name, line in lines.items() if line not in whole.text.split("\n")]
    assert first.dropped == (STEPS[0],) and changed == [linked.tables[-1].table]


def test_tables_that_have_only_a_name_left() -> None:
    tables = many(30)
    linked = Linker(tables).link("amount of invoices", table_count=1, column_count=1)
    named = render(tables, budget=230, linked=linked).text.split("\n")
    assert named[-1].startswith("other tables: thing_") and len(named) > 1
    least = render(tables, budget=60, linked=linked).text.split("\n")
    assert re.fullmatch(r"and \d+ more tables", least[-1]) and least[0].startswith("invoice_17 (")
    assert len(", ".join(least[1:]).split(", ")) - 1 + int(least[-1].split()[1]) == 29


def test_a_budget_that_is_too_small_says_what_is_needed() -> None:
    tables = many(30)
    linked = Linker(tables).link("amount of invoices", table_count=3, column_count=9)
    with pytest.raises(
        ConfigError, match=r"a budget of 20 tokens .* the linked part of the schema needs \d+"
    ) as caught:
        render(tables, budget=20, linked=linked)
    needed = int(re.findall(r"\d+", caught.value.what)[-1])
    assert render(tables, budget=needed, linked=linked).tokens == needed
    with pytest.raises(ConfigError, match="the names of the tables"):
        render(tables, budget=3)


def test_the_full_text_gives_way_to_a_budget() -> None:
    full = schema_text((REGION, CUSTOMER))
    assert schema_text((REGION, CUSTOMER), budget=tokens(full)) == full
    assert schema_text((REGION, CUSTOMER), budget=tokens(full) - 1).startswith("region (")


def test_without_what_is_linked_the_last_table_goes_first() -> None:
    text = render(many(30), budget=500).text
    assert text.startswith("thing_0 (") and "thing_29 (" not in text


def test_lines_that_are_kept_do_not_leak_from_one_question_to_the_next() -> None:
    tables = many(12)
    place = tables[3].columns[2].name
    linked = Linked((TableScore(tables[3].name, 1.0),), (ColumnScore(tables[3].name, place, 1.0),), (), 1, 1)
    other = replace(linked, columns=(ColumnScore(tables[3].name, tables[3].columns[5].name, 1.0),))
    first = [render(tables, budget=90, linked=one).text for one in (linked, other)]
    assert place in first[0] and place not in first[1]
    compact._known.clear()
    assert [render(list(tables), budget=90, linked=one).text for one in (linked, other)] == first


@given(
    st.integers(60, 700), st.integers(1, 6), st.integers(0, 12), st.sampled_from(("amount", "thing 3", "", "field 4 2"))
)
def test_a_budget_holds_or_is_refused(budget: int, table_count: int, column_count: int, question: str) -> None:
    tables = _FEW
    linked = _LINKER.link(question, table_count=table_count, column_count=column_count)
    try:
        found = render(tables, budget=budget, linked=linked)
    except ConfigError:
        return
    assert tokens(found.text) <= found.tokens <= budget
    assert linked.kept_columns <= found.columns and linked.kept_tables <= found.tables


_FEW = many(15, 8)
_LINKER = Linker(_FEW)


@given(st.text(), st.text())
def test_tokens_of_a_text_in_two_lines_add_up(one: str, other: str) -> None:
    assert tokens(one) + tokens(other) + 1 == tokens(f"{one}\n{other}")
    assert tokens(one) <= 2 * len(one)


@given(st.text())
def test_nothing_from_data_ends_its_line_a_fence_or_a_tag(text: str) -> None:
    for made in (
        plain(text),
        shown(text),
        shown(text, "mysql"),
        render((Table(text or "t", (Column(text, text, note=text),)),)).text,
    ):
        assert len(made.splitlines()) <= 1 and "```" not in made
        assert not re.search(r"<\s*/?\s*(hint|schema|question)\b", made, re.IGNORECASE)


@pytest.mark.parametrize("module", [compact, fuzzy, names])
def test_examples_in_docstrings(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted and not result.failed
