"""Text files as tables: no row is lost in silence, whatever the lines are like."""

from __future__ import annotations

import gzip
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("duckdb")

from verbal.apps.text2sql.worker import Pool


def _run(folder: Path, sql: str) -> Any:
    with closing(Pool(1)) as pool:
        return pool.run_now(str(folder), sql)


def _read(folder: Path, data: bytes, name: str = "t.csv") -> Any:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return _run(folder, "SELECT * FROM t")


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"a,b\n1,2,3\n", "line 2: 3 fields, 2 in the first"),
        (b"a,b\n1,x\n2,y\n3\n4,z,extra\n", "line 4: 1 field, 2 in the first"),
        (b'a,b\n1,"x\ny"\n3\n', "line 4: 1 field"),
        (b"a,b\n1,\"x\n2,y\n", "line 2: unexpected end"),
        (b"Report of sales\n\na,b,c\n1,2,3\n", "line 3: 3 fields, 1 in the first"),
        ("a,b\n1,Köln\n2\n".encode("latin-1"), "line 3: 1 field"),
        (b"a,b\n" + b"1,x\n" * 30_000 + b"3\n", "line 30002: 1 field"),
    ],
)  # fmt: skip
def test_a_ragged_file_is_refused_with_file_and_line(tmp_path: Path, data: bytes, place: str) -> None:
    found = _read(tmp_path / "d", data)
    assert found.error and "t.csv" in found.error and place in found.error and not found.rows


@pytest.mark.parametrize(
    ("data", "columns", "rows"),
    [
        (b"a,b\n\n1,x\n\n2,y\n\n", ["a", "b"], [(1, "x"), (2, "y")]),
        (b"1,x\n2,y\n", ["column0", "column1"], [(1, "x"), (2, "y")]),
        (b"country,2010,2011\nFrance,1,2\n", ["country", "2010", "2011"], [("France", 1, 2)]),
        (b'a,b\n1,"x\ny"\n2,"z,""q"""\n', ["a", "b"], [(1, "x\ny"), (2, 'z,"q"')]),
        (b'a,b\n1,"say \\"x\\", y"\n', ["a", "b"], [(1, 'say "x", y')]),
        (b"\xef\xbb\xbfa,b\n1,x\n", ["a", "b"], [(1, "x")]),
        (b"name\nanna\n\nbob\n", ["name"], [("anna",), (None,), ("bob",)]),
        (b"text\nhello there, you\nworld\n", ["text"], [("hello there, you",), ("world",)]),
        (b"a,b,c\n", ["a", "b", "c"], []),
        ("a,größe\n1,Köln\n".encode("latin-1"), ["a", "größe"], [(1, "Köln")]),
        ("a,b\n1,Köln\n".encode("utf-16"), ["a", "b"], [(1, "Köln")]),
        (b"a;b\n1,5;x\n2,5;y\n", ["a", "b"], [("1,5", "x"), ("2,5", "y")]),
        (b"# note\na\n1\n", ["# note"], [("a",), ("1",)]),
    ],
)
def test_what_can_be_read_is_read_whole(tmp_path: Path, data: bytes, columns: list[str], rows: list[Any]) -> None:
    for name in ("t.csv", "t.csv.gz"):
        found = _read(tmp_path / name, data, name)
        assert (found.error, list(found.columns), [tuple(r) for r in found.rows]) == (None, columns, rows)


_CELLS = st.text(st.sampled_from("ab1 ,;|\"'\n#-."), max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(_CELLS, min_size=2, max_size=2), max_size=5))
def test_every_line_is_a_row(tmp_path: Path, lines: list[list[str]]) -> None:
    import csv
    import io

    from verbal.apps.text2sql.engines.duckdb import connect

    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *lines])
    path = tmp_path / "t.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    connection = connect({"engine": "files", "files": [str(path)]})
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (len(lines),)
    connection.close()


def test_counts_are_named_as_they_are_written(tmp_path: Path) -> None:
    _read(tmp_path / "d", b"a,b\n1,2\n")
    assert list(_run(tmp_path / "d", "SELECT COUNT( * ) FROM t").columns) == ["COUNT( * )"]
