"""Databases that people may ask: those the server was started with, and those they brought themselves.

What a person brings is written to a folder of theirs as it comes, never more than it may be, under a name of ours; then
a worker process, which may be killed, has to find tables in it. Lessons about it are theirs alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from verbal.errors import DataError, VerbalError
from verbal.parts import load_part
from verbal.types import Task

from .faults import Fault, clean, missing
from .people import Person
from .scopes import brought_memory

if TYPE_CHECKING:
    from .site import Site

LARGEST_FILE = 50 * 2**20
"""Bytes of a file that a person brings."""
MOST_FILES = 20
"""Files of one person."""
MOST_ROWS = 100_000
"""Rows that a query gives at most."""
CANDIDATE_ROWS = 20_000
"""Rows of a query that a model wrote, while several of them are compared."""
ENDINGS = (".csv", ".tsv", ".sqlite", ".sqlite3", ".db", ".duckdb", ".ddb", ".parquet")
"""Files that are taken."""
_UPLOADING = 600.0
"""Seconds in which a file must have come."""
_COUNTED = 300.0
"""Seconds for which the sizes of a database's tables are told again as they were."""
_COUNTING = 3.0
"""Seconds for the number of rows of a table; a larger one has none."""


@dataclass(slots=True, eq=False)
class Source:
    """A database that may be asked."""

    name: str
    """In addresses and on the page."""
    title: str
    place: str | None
    """What `Text2Sql(db=...)` takes; None for the demo shop."""
    owner: str = ""
    """Who brought it; empty for everybody's."""
    app: Any = None
    """Its `Text2Sql`, made when it is first asked."""
    counted: tuple[Any, float, list[dict[str, Any]]] | None = None
    """Its tables with their sizes, as they were found: the database, when, what is told."""
    _location: str = ""
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def opened(self) -> Any:
        """The app that asks it: one for all who do, so that its worker processes are shared.

        Raises:
            DataError: it cannot be read.
        """
        async with self._making:
            if self.app is None:
                options = {} if self.place is None else {"db": self.place}
                self.app = await asyncio.to_thread(_make_app, options)
            return self.app

    async def location(self) -> str:
        """How the store calls it.

        Raises:
            DataError: it cannot be read.
        """
        if not self._location:
            app = await self.opened()
            task = await asyncio.to_thread(app.task, "?", id="ask-open")
            self._location = str(task.info["db"])
        return self._location

    async def asked(self, sql: str, **limits: Any) -> Mapping[str, Any]:
        """What a query gives, read-only: columns, rows, error (`Observation.info`)."""
        from ..text2sql.worker import Limits

        app = await self.opened()
        task = Task(id="ask-open", kind="text2sql", messages=(), info={"db": await self.location()})
        found: Mapping[str, Any] = (await app.execute(task, sql, limits=Limits(**limits))).info
        return found

    def memory(self, person: Person) -> str:
        """The memory of its lessons, as `Assistant` takes it; empty for the one named after it."""
        return brought_memory(person, self.name) if self.owner else ""

    async def aclose(self) -> None:
        """Stops its workers."""
        if self.app is not None:
            await self.app.aclose()
            self.app = None


def _make_app(options: dict[str, Any]) -> Any:
    return load_part("apps", "text2sql")(rows=CANDIDATE_ROWS, seconds=10.0, **options)


class Databases:
    """The databases of a site.

    Args:
        places: As `--db` takes them; the demo shop when there is none.
        folder: Where brought files are kept, in a folder for each person.
    """

    def __init__(self, places: Sequence[str], folder: Path) -> None:
        self._folder = folder
        self._shared: dict[str, Source] = {}
        for place in places or (None,):
            title = "demo shop" if place is None else _title(place)
            name = _free(_slug(title), self._shared)
            self._shared[name] = Source(name, title, place)
        self._brought: dict[str, dict[str, Source]] = {}
        self.coming: Counter[str] = Counter()
        """Files that are on their way, by person."""

    def of(self, person: Person) -> list[Source]:
        """Those a person may ask: everybody's, then their own."""
        return [*self._shared.values(), *self._own(person).values()]

    def find(self, person: Person, name: str) -> Source:
        """The database of that name; the first when none is named.

        Raises:
            Fault: there is none that this person may ask (404).
        """
        found = next((s for s in self.of(person) if s.name == name or not name), None)
        if found is None:
            raise missing("database")
        return found

    def folder(self, person: Person) -> Path:
        """Where the files of a person are."""
        return self._folder / person.name

    def _own(self, person: Person) -> dict[str, Source]:
        if person.name not in self._brought:
            own: dict[str, Source] = {}
            with contextlib.suppress(OSError):
                for path in sorted(self.folder(person).iterdir()):
                    if path.suffix in ENDINGS and path.is_file() and not path.name.startswith("."):
                        own[path.stem] = Source(path.stem, path.name, str(path), person.name)
            self._brought[person.name] = own
        return self._brought[person.name]

    def add(self, person: Person, part: Path, given: str) -> Source:
        """Gives a file that came whole its name.

        Raises:
            OSError: it cannot be moved there.
        """
        stem, ending = split_name(given)
        taken = {s.name for s in self.of(person)}
        name = _free(stem, taken)
        path = self.folder(person) / f"{name}{ending}"
        part.rename(path)
        made = self._own(person)[name] = Source(name, path.name, str(path), person.name)
        return made

    async def drop(self, person: Person, source: Source) -> None:
        """Removes a file that a person brought."""
        self._own(person).pop(source.name, None)
        await source.aclose()
        if source.place:
            for path in (source.place, *(f"{source.place}{e}" for e in ("-wal", "-shm", ".wal"))):
                Path(path).unlink(missing_ok=True)

    async def aclose(self) -> None:
        """Stops all workers."""
        for source in [*self._shared.values(), *(s for own in self._brought.values() for s in own.values())]:
            await source.aclose()


def split_name(given: str) -> tuple[str, str]:
    r"""A file's name as ours: small letters, digits and dashes, and its ending.

    >>> split_name(r"..\..\Häuser & Co (2).CSV"), split_name("../../etc/passwd.db")
    (('h-user-co-2', '.csv'), ('passwd', '.db'))

    Raises:
        Fault: it has none of the endings that are taken (415).
    """
    base = re.split(r"[/\\]", given.replace("\x00", ""))[-1].strip().lower()
    ending = next((e for e in ENDINGS if base.endswith(e)), "")
    if not ending:
        raise Fault(415, "kind", "files of this kind are not taken", f"bring one of: {', '.join(ENDINGS)}")
    return _slug(base.removesuffix(ending)), ending


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:48] or "data"


def _free(name: str, taken: Any) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _title(place: str) -> str:
    """What a person calls a database: the name of its file, or of the server's database; never a password."""
    base = place.partition("?")[0].rstrip("/").rpartition("/")[2]
    return "database" if place.startswith("${") else Path(base).stem if "://" not in place else base or "database"


# what a page asks ---------------------------------------------------------------------------------------------------


async def list_databases(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/databases."""
    return web.json_response([await _described(source) for source in site.databases.of(person)])


async def _described(source: Source) -> dict[str, Any]:
    told: dict[str, Any] = {"name": source.name, "title": source.title, "own": bool(source.owner), "tables": []}
    try:
        app = await source.opened()
        location = await source.location()
        database = await asyncio.to_thread(app.database, location)
    except VerbalError as error:
        return {**told, "error": clean(error.what)}
    now = time.monotonic()
    if source.counted is None or source.counted[0] is not database or now - source.counted[1] > _COUNTED:
        tables = database.tables[:50]
        counts = await asyncio.gather(*(_count(source, t.shown) for t in tables))
        rows = [
            {"name": t.name, "rows": n, "columns": [{"name": c.name, "type": c.type} for c in t.columns]}
            for t, n in zip(tables, counts, strict=True)
        ]
        source.counted = database, now, rows
    told["tables"] = source.counted[2]
    return {**told, "more": max(0, len(database.tables) - 50)}


async def _count(source: Source, table: str) -> int | None:
    seen = await source.asked(f"SELECT COUNT(*) FROM {table}", seconds=_COUNTING, rows=1)
    rows = seen.get("rows") or [[None]]
    return int(rows[0][0]) if isinstance(rows[0][0], int) else None


async def bring_database(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/databases: a file, taken as it comes."""
    if (request.content_length or 0) > LARGEST_FILE + 2**16:
        raise _too_large()
    if not request.content_type.startswith("multipart/"):
        raise Fault(415, "body", "the body must be multipart/form-data with a field `file`")
    databases = site.databases
    if sum(bool(s.owner) for s in databases.of(person)) + databases.coming[person.name] >= MOST_FILES:
        raise Fault(409, "many", f"you brought {MOST_FILES} files already", "remove one first")
    databases.coming[person.name] += 1
    try:
        source = await _taken(databases, person, request)
    finally:
        databases.coming[person.name] -= 1
    try:
        await _proved(source)
    except BaseException:
        await databases.drop(person, source)
        raise
    return web.json_response({"name": source.name, "title": source.title}, status=201)


async def remove_database(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """DELETE /api/databases/{name}: a file that the person brought; chats about it can be read on, without rows."""
    source = site.databases.find(person, request.match_info["name"])
    if not source.owner:
        raise Fault(403, "rights", "this database is everybody's", "whoever started the server leaves it out")
    await site.talks.leave(person, source)
    await site.databases.drop(person, source)
    return web.json_response({})


async def _taken(databases: Databases, person: Person, request: web.Request) -> Source:
    """The file of a request, under its name."""
    folder = databases.folder(person)
    part = folder / f".{secrets.token_hex(8)}.part"
    try:
        given = await _received(request, folder, part)
        return databases.add(person, part, given)  # at once: two of one name must not become one
    except TimeoutError:
        raise Fault(408, "slow", f"the file did not come within {_UPLOADING:g} s") from None
    except (ValueError, AssertionError, HttpProcessingError) as error:
        raise Fault(400, "body", "the body is no form with a file") from error
    except OSError as error:
        raise Fault(507, "disk", "the file cannot be kept", "ask who runs this server") from error
    finally:
        part.unlink(missing_ok=True)


async def _received(request: web.Request, folder: Path, part: Path) -> str:
    """The name of the file in a request, written to `part` as it came."""
    reader = await request.multipart()
    async with asyncio.timeout(_UPLOADING):
        while (field_ := await reader.next()) is not None:
            if not isinstance(field_, BodyPartReader) or field_.name != "file":
                raise Fault(400, "body", "the form has another field than `file`")
            given = field_.filename or ""
            split_name(given)  # refused before it is read
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if shutil.disk_usage(folder).free < 4 * LARGEST_FILE:
                raise Fault(507, "disk", "this server has no room for files", "ask who runs it")
            size = 0
            with part.open("xb") as file:
                while chunk := await field_.read_chunk(2**16):
                    size += len(chunk)
                    if size > LARGEST_FILE:
                        raise _too_large()
                    await asyncio.to_thread(file.write, chunk)
            if not size:
                raise Fault(400, "empty", "the file is empty")
            return given
    raise Fault(400, "body", "the form has no field `file`")


async def _proved(source: Source) -> None:
    """Checks that a file is what its name says, and holds a table.

    Raises:
        Fault: it is something else (415). DataError: no engine finds a table in it.
    """
    path = Path(source.place or "")
    head, tail = await asyncio.to_thread(_ends, path)
    ending = path.suffix
    kinds = {
        ".parquet": head[:4] == b"PAR1" == tail, ".duckdb": head[8:12] == b"DUCK", ".ddb": head[8:12] == b"DUCK",
        ".db": head == b"SQLite format 3\0" or head[8:12] == b"DUCK",
    }  # fmt: skip
    text = b"\0" not in await asyncio.to_thread(_first, path)
    right = kinds.get(ending, text if ending in (".csv", ".tsv") else head == b"SQLite format 3\0")
    if not right:
        raise Fault(
            415, "kind", f"the file is no {ending.lstrip('.')} inside", "bring the file as its program wrote it"
        )
    app = await source.opened()
    database = await asyncio.to_thread(app.database, await source.location())
    if not database.tables:
        raise DataError("the file holds no table")


def _ends(path: Path) -> tuple[bytes, bytes]:
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(max(-4, -path.stat().st_size), 2)
        return head, file.read(4)


def _first(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2**16)


def _too_large() -> Fault:
    return Fault(413, "large", f"the file is larger than {LARGEST_FILE >> 20} MB")


__all__ = [
    "CANDIDATE_ROWS", "ENDINGS", "LARGEST_FILE", "MOST_FILES", "MOST_ROWS", "Databases", "Source", "bring_database",
    "list_databases", "remove_database", "split_name",
]  # fmt: skip
