"""How a text file of a table is written, decided from its first line, so that no line is ever taken for another.

DuckDB guesses a file's form from all of its lines, and where lines disagree it may skip the ones that disturb it: rows
would be lost without a word. Here the first line says how many fields there are, and a file whose other lines have
more or fewer is refused with the number of the line.
"""

from __future__ import annotations

import csv
import gzip
import re
from dataclasses import dataclass
from itertools import islice
from typing import IO

SEPARATORS = ",;\t|"
"""What may stand between fields; the one that the first line holds most of does, the first of these in a tie."""

LOOKED_AT = 20
"""Lines after a first line without a separator that are looked at for one."""

LONGEST_LINE = 1_000_000
"""Characters read of a line that says how a file is written."""

_NONE = "\x1f"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?\Z")
_DATA = re.compile(r"([+-]?\d+\.\d+|\d{4}-\d\d-\d\d([ T].*)?)\Z")
_YEAR = re.compile(r"(19|20)\d\d\Z")


@dataclass(frozen=True, slots=True)
class Form:
    """How a file is written."""

    separator: str
    header: bool
    """Whether the first line names the columns."""
    encoding: str


def form_of(path: str) -> Form:
    """The form of a text file, from its first lines.

    A first line of data (it begins with a number, or holds a decimal number or a date) is no header; years are.

    Raises:
        OSError: it cannot be read. ValueError: the first line has one field and the lines after it have several.
    """
    encoding = _encoding(path)
    with _opened(path, encoding) as file:
        first = file.readline(LONGEST_LINE)
        after = [(n, line) for n, line in enumerate(islice(file, LOOKED_AT), 2) if line.strip()]
    separator = "\t" if path.lower().removesuffix(".gz").endswith(".tsv") else _most(first)
    if not _count(first, separator):
        for other in SEPARATORS:
            counts = {_count(line, other) for _, line in after}
            if first.strip() and len(counts) == 1 and (count := counts.pop()):
                raise ValueError(f"CSV error in line {after[0][0]}: {count + 1} fields, 1 in the first line")
        separator = separator if separator == "\t" else _NONE
    csv.field_size_limit(1 << 30)
    fields = next(csv.reader([first], delimiter=separator), [])
    return Form(separator, _is_header([field.strip() for field in fields]), encoding)


def fault(path: str, form: Form) -> str:
    """Where a file that cannot be read goes wrong, in words; empty when every line has as many fields as the first."""
    csv.field_size_limit(1 << 30)
    with _opened(path, form.encoding) as file:
        reader = csv.reader(file, delimiter=form.separator, strict=True)
        began, width = 1, 0
        try:
            for row in reader:
                width = width or len(row)
                if row and len(row) != width:
                    return f"CSV error in line {began}: {_fields(len(row))}, {width} in the first line"
                began = reader.line_num + 1
        except (csv.Error, UnicodeError) as error:
            return f"CSV error in line {began}: {error}"
    return ""


def _fields(count: int) -> str:
    return f"{count} field{'s' * (count != 1)}"


def _is_header(fields: list[str]) -> bool:
    if not fields or all(_YEAR.match(field) for field in fields):
        return True
    return not _NUMBER.match(fields[0]) and not any(_DATA.match(field) for field in fields)


def _most(line: str) -> str:
    return max(SEPARATORS, key=lambda sign: (_count(line, sign), -SEPARATORS.index(sign)))


def _count(line: str, separator: str) -> int:
    return _QUOTED.sub("", line).count(separator)


def _encoding(path: str) -> str:
    """Of the whole file: UTF-16 by its mark, UTF-8 where all of it is, else Latin-1."""
    with _bytes(path) as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16"
    try:
        with _opened(path, "utf-8-sig") as text:
            for _ in iter(lambda: text.read(1 << 20), ""):
                pass
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _bytes(path: str) -> IO[bytes]:
    return gzip.open(path, "rb") if path.lower().endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


def _opened(path: str, encoding: str) -> IO[str]:
    if path.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding=encoding, newline=None)
    return open(path, encoding=encoding, newline=None)


__all__ = ["LOOKED_AT", "SEPARATORS", "Form", "fault", "form_of"]
