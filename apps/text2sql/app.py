"""The Text-to-SQL app: questions about databases as tasks, and their world.

What the loop uses beside the `App` contract (any app that learns by reflection has the same):

* `app.messages(role, task, **fields)` gives the prompt of a role. Fields:
    solver     hints=(), tried=(), examples=()
    critic     attempt, observation, hints=()
    reflector  attempt, observation, correction
    proposer   level; `task` may be None (the app's own database is asked about)
    judge      answers, hints=()
  `attempt` is an Attempt or its answer; `hints` are Reflections.
* `app.parse(role, text)` reads the reply, or gives None when it does not follow the form:
    solver     str, the SQL
    critic     Verdict(right, clauses, answer, text)
    reflector  str, the lesson
    proposer   Proposal(question, answer)
    judge      tuple of n scores in [0, 1]; needs `n=`
* `app.task(question)` makes a task of a question that is in no file (ask mode, self-play).
* `await app.preflight(split)` finds databases and gold queries that do not work, before anything is paid for.
* `await app.check()` proves the questions themselves (`verbal check apps/text2sql`).
* `app.prompt_hashes()` names the templates in use, for `Attempt.prompts`.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verbal.contracts import Critic, Match, Observation
from verbal.errors import ConfigError, DataError, UnknownName
from verbal.types import Message, Reflection, Split, Task

from .chain import environment_of
from .environment import SqlEnvironment, malformed, observed
from .examples import Examples, Shot
from .guard import Guard, Refusal
from .profile import Profile, catalog_tables, profile
from .profile_cache import kept
from .prompts import Prompts
from .questions import Question, read_questions
from .replies import parse_hint, parse_proposal, parse_scores, parse_sql, parse_verdict
from .schema import Table
from .sources import Source
from .values import Database, file_mark
from .worker import Limits, Pool, Result

ROLES = ("solver", "critic", "reflector", "proposer", "judge")
"""Roles that have a prompt."""


class Text2Sql:
    """Questions about databases: SQLite, DuckDB, CSV and Parquet files, PostgreSQL, MySQL."""

    name = "text2sql"

    def __init__(
        self,
        db: str | Path | None = None,
        questions: str | Path | None = None,
        *,
        seconds: float = 5.0,
        rows: int = 50_000,
        workers: int = 2,
        prompts: str | None = None,
        cache: str | Path | None = None,
        budget: int | None = None,
        fuzzy: bool = False,
        examples: int = 0,
        examples_from: str | Path | None = None,
        chain: str = "",
    ) -> None:
        """Opens nothing yet, but checks that the files are there.

        Args:
            db: What `Source.of` reads (a file, a folder of tables, a URL), or a folder `<db_id>/<db_id>.sqlite` of
                databases; None with no `questions` is the demo.
            questions: A questions file (see `questions.py`).
            seconds: Time limit of one query.
            rows: Most rows fetched.
            workers: Processes that run queries.
            prompts: A folder with prompts of the user's.
            cache: Where the demo database is built; None is the user's cache folder.
            budget: Tokens of a schema at most, about (`linking.fit`); None shows all of it.
            fuzzy: Whether misspelled values of a question are looked for too.
            examples: Train questions with their queries shown before a question, like ones (`examples.py`).
            examples_from: A questions file whose train questions they are; None takes those of `questions`.
            chain: How an attempt goes, where it takes several turns: `din` or `dail` (`chain.py`).

        Raises:
            DataError: a file is missing or cannot be read. ConfigError: a limit is not positive; no such chain.
        """
        if min(seconds, rows, workers, 1 if budget is None else budget) <= 0:
            given = f"seconds={seconds}, rows={rows}, workers={workers}, budget={budget}"
            raise ConfigError(f"limits must be positive: {given}")
        self._demo = db is None and questions is None
        self._cache = None if cache is None else Path(cache)
        self._questions_file = None if questions is None else Path(questions).resolve()
        self._db = None if db is None else _place(db, folders=questions is not None)
        self._pool = Pool(workers, Limits(seconds=seconds, rows=rows))
        self._environment = environment_of(chain, examples)
        self._examples, self._examples_from = examples, examples_from
        self._known: Examples | None = None
        self._prompt_options: dict[str, Any] = {"budget": budget, "fuzzy": fuzzy}
        self._prompts = Prompts(prompts, **self._prompt_options)
        self._databases: dict[str, Database] = {}
        self._guards: dict[str, tuple[Database, Guard]] = {}
        self._tasks: list[Task] | None = None

    def tasks(self, split: str | None = None) -> list[Task]:
        """All tasks, or those of one split. Each has `info` = {db, question, terms, where}.

        Raises:
            DataError: the questions file or a database cannot be read.
        """
        if split is not None and split not in ("train", "dev", "test"):
            raise UnknownName.of("split", split, ("train", "dev", "test"))
        if self._tasks is None:
            self._tasks = [self._from_question(question) for question in self._questions()]
        return [task for task in self._tasks if split is None or task.split == split]

    def guard(self) -> list[Task]:
        """Questions that no lesson about a business term should change: those without one, none of the sealed split.

        Empty where no question names its terms.
        """
        known = [t for t in self.tasks() if t.split != "test"]
        return [t for t in known if not t.info["terms"]] if any(t.info["terms"] for t in known) else []

    def task(
        self,
        question: str,
        *,
        gold: str | None = None,
        db: str | Path | None = None,
        split: Split = "train",
        id: str | None = None,
    ) -> Task:
        """A task that asks `question` of `db` (or of the app's own database); the id follows from its text.

        Raises:
            DataError: no database, or the question is empty.
        """
        if not question.strip():
            raise DataError("the question is empty", todo="ask something")
        question = question.encode("utf-8", "replace").decode("utf-8")  # half a character is nothing that can be kept
        place = self._own_db() if db is None else _place(db)
        base = place.rpartition("/")[2]
        name = id or "ask-" + hashlib.sha256(f"{base}\0{question}\0{gold}".encode()).hexdigest()[:12]
        return self._from_question(Question(id=name, text=question.strip(), db=place, sql=gold, split=split))

    def environment(self) -> SqlEnvironment:
        """A fresh environment, for one task."""
        return self._environment(self)

    def opening(
        self, task: Task, hints: Sequence[Reflection] = (), tried: Sequence[str] = (), template: str = "solver"
    ) -> list[Message]:
        """What opens an attempt: the solver's prompt, with examples where these were asked for."""
        if template != "solver" or not self._examples:
            return self.messages("solver", task, hints=hints, tried=tried, template=template)
        shots = self.examples(task, tried[-1] if tried else None)
        return self.messages("solver", task, hints=hints, tried=tried, examples=shots)

    def examples(self, task: Task, preliminary: str | None = None) -> list[Shot]:
        """Train questions like that of a task, the most alike last; `preliminary` is a first query for it.

        Raises:
            ConfigError: there is no train question with a query. DataError: the file of examples cannot be read.
        """
        return self._examples_known().near(task, self._examples, preliminary)

    def _examples_known(self) -> Examples:
        if self._known is None:
            if self._examples_from is None:
                self._known = Examples.of(self.tasks("train"), self.database)
            else:
                self._known = Examples.read(Path(self._examples_from), self.database)
        return self._known

    def turn(self, task: Task, name: str, **fields: str) -> str:
        """A later message of a chain: the prompt `text2sql/NAME` for the task's engine."""
        return self._prompts.turn(self.database(task.info["db"]), name, **fields)

    @property
    def turns(self) -> int:
        """Replies that an attempt takes."""
        return self._environment.turns

    def with_prompts(self, folder: str | None) -> Text2Sql:
        """The same app with the prompts of a folder: workers and databases are shared, and closed with this one."""
        other = copy.copy(self)
        other._prompts, other._tasks = Prompts(folder, **self._prompt_options), None
        return other

    async def execute(self, task: Task, answer: str, *, limits: Limits | None = None) -> Observation:
        """What the query `answer` gives on the task's database, read-only.

        Two locks: what the guard refuses is not run, and the connection can only read.
        """
        if not answer.strip():
            return malformed("the answer is empty")
        refusal = await asyncio.to_thread(self._refused, task.info["db"], answer)
        if refusal is not None:
            seen = observed(answer, Result(error=str(refusal), error_class=refusal.kind))
            seen.info["todo"] = refusal.todo  # near names, for a person
            return seen
        result = await self._pool.run(task.info["db"], answer, limits)
        return observed(answer, result)

    async def match(self, task: Task, answers: Sequence[str]) -> list[Match]:
        """Whether each answer gives what the gold query gives, on the task's database and on all of its `states`.

        Behind both locks, as `execute`: what the guard refuses is wrong and not run.
        """
        from .matching import match_task

        def refusals() -> list[Refusal | None]:
            return [self._refused(task.info["db"], a) if a.strip() else None for a in answers]

        refused = await asyncio.to_thread(refusals)
        told = await match_task(
            self._pool, task, [a for a, r in zip(answers, refused, strict=True) if not r], self._cache
        )
        verdicts = iter(told)
        return [next(verdicts) if r is None else Match(False, f"the query fails: {r}", 0) for r in refused]

    def messages(self, role: str, task: Task | None, **fields: Any) -> list[Message]:
        """The prompt of `role` (see the module's first lines for the fields).

        Raises:
            UnknownName: no such role. ConfigError: a field is missing or unknown.
        """
        if role not in ROLES:
            raise UnknownName.of("role", role, ROLES)
        database = self.database(self._own_db() if task is None else task.info["db"])
        given = (database,) if role == "proposer" else (database, task)
        try:
            messages: list[Message] = getattr(self._prompts, role)(*given, **fields)
        except TypeError as error:
            raise ConfigError(f"fields of the {role}'s prompt: {error}", todo="see apps/text2sql/app.py") from error
        return messages

    def parse(self, role: str, text: str, *, n: int = 0) -> Any:
        """What a reply of `role` says, or None when it does not follow the form. `n`: candidates, for a judge.

        Raises:
            UnknownName: no such role.
        """
        if role == "judge":
            return parse_scores(text, n)
        readers = {"solver": parse_sql, "critic": parse_verdict, "reflector": parse_hint, "proposer": parse_proposal}
        if role not in readers:
            raise UnknownName.of("role", role, ROLES)
        return readers[role](text)

    def prompt_hashes(self, *roles: str) -> dict[str, str]:
        """Prompt name -> hash of its template, for these roles (all when none is named)."""
        return {f"text2sql/{role}": self._prompts.template(role).hash for role in roles or ROLES}

    def database(self, place: str | Path) -> Database:
        """The database at `place` as prompts see it; read once, and again when its file changes.

        Raises:
            DataError: it cannot be read.
        """
        key = str(place)
        held = self._databases.get(key)
        if held is not None and held.mark == file_mark(held.path):
            return held
        source = Source.of(key)
        if source.kind == "sqlite":
            held = self._databases[key] = Database(Path(source.location))
        elif held is None or held.mark != source.mark():
            held = self._databases[key] = self._profiled(source)
        return held

    def _refused(self, place: str, sql: str) -> Refusal | None:
        """Why a query is not run; None for a database that cannot be read, where running it says what is wrong."""
        try:
            database = self.database(place)
        except DataError:
            return None
        held = self._guards.get(place)
        if held is None or held[0] is not database:
            held = self._guards[place] = (database, Guard(self._readable(database), database.dialect))
        return held[1].check(sql)

    def _readable(self, database: Database) -> Sequence[Table]:
        """What may be asked: what prompts show, and in SQLite also its views and generated columns."""
        if database.dialect != "sqlite":
            return database.tables
        try:
            return [*database.tables, *catalog_tables(self._pool.catalog_now(database.path))]
        except DataError:  # locked just now, say
            return database.tables

    def _profiled(self, source: Source) -> Database:
        def query(sql: str) -> list[Any]:
            result = self._pool.run_now(source, sql)
            if result.error is not None:
                raise DataError(f"the database cannot be read: {result.error}", where=source.location)
            return list(result.rows)

        tables = catalog_tables(self._pool.catalog_now(source))
        if not tables:
            raise DataError("the database holds no table", where=source.location, todo="name one that holds tables")

        def make() -> Profile:
            return profile(query, tables, source.dialect)

        found = kept(Path(source.location), make) if source.kind == "duckdb" else make()
        return Database.of(source.location, found, query, source.mark())

    async def preflight(self, split: str | None = None) -> int:
        """The number of gold queries that ran: all of them.

        Raises:
            DataError: a database cannot be read, or a gold query does not run (names its question, file and line).
            ConfigError: there is nothing to take examples from.
        """
        tasks = [task for task in self.tasks(split) if task.gold is not None]
        if self._examples:
            await asyncio.to_thread(self._examples_known)
        results = await asyncio.gather(*(self.execute(task, task.gold or "") for task in tasks))
        failed = [(t, o) for t, o in zip(tasks, results, strict=True) if o.info.get("error")]
        if failed:
            task, seen = failed[0]
            more = f" ({len(failed)} gold queries fail in all)" if len(failed) > 1 else ""
            shown = "" if task.split == "test" else f": {seen.info['error']}{more}\n  SQL: {task.gold}"  # sealed
            raise DataError(
                f"the gold query of {task.id!r} does not run{shown or more}",
                where=str(task.info.get("where") or task.info["db"]),
                todo="correct the query, or leave `sql` out of the line",
            )
        return len(tasks)

    async def check(self, critic: Critic | None = None, split: str | None = None) -> list[dict[str, Any]]:
        """The proof that questions, golds and critic are worth learning from (`check.py`): all its findings."""
        from .check import check_app

        return await check_app(self, critic, split=split)

    async def aclose(self) -> None:
        """Stops the worker processes."""
        await self._pool.aclose()

    def _own_db(self) -> str:
        if self._demo:
            from .demo import demo_database

            return str(demo_database(self._cache))
        if self._db is None or (self._questions_file is not None and Path(self._db).is_dir()):
            raise DataError("no database was given", todo="give the path of a database file, or a URL")
        return self._db

    def _questions(self) -> list[Question]:
        if self._demo:
            return read_questions(Path(__file__).with_name("demo_questions.jsonl"), self._own_db())
        if self._questions_file is None:
            self.database(self._own_db())
            return []
        return read_questions(self._questions_file, self._db)

    def _from_question(self, question: Question) -> Task:
        info: dict[str, Any] = {"db": str(question.db), "question": question.text, "terms": list(question.terms)}
        info |= {**question.info, **({"where": question.where} if question.where else {})}
        task = Task(
            id=question.id, kind=self.name, messages=(), gold=question.sql, info=info, split=question.split
        )  # fmt: skip
        try:
            return task.replace(messages=tuple(self.messages("solver", task)))
        except DataError as error:
            raise DataError(error.what, where=question.where or error.where, todo=error.todo) from error


def _place(db: str | Path, *, folders: bool = False) -> str:
    """Where a database is, without a password; with `folders` a folder of databases will do as well."""
    if folders and Path(db).is_dir():
        return str(Path(db).resolve())
    source = Source.of(db)
    return source.location if source.kind in ("postgresql", "mysql") else str(Path(source.location).resolve())
