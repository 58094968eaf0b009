"""The prompts of every role, filled from fields.

Whatever comes from data (questions, cells, hints, queries, results) is put on lines of its own that cannot look like
a heading, a closing tag or the end of a fence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from verbal.contracts import Observation
from verbal.prompt import Prompt, load_prompt
from verbal.types import Attempt, Message, Reflection, Task

from .examples import Shot
from .values import Database

NONE = "none"
"""What stands in an empty section."""

ENGINES = {"sqlite": "SQLite", "duckdb": "DuckDB", "postgres": "PostgreSQL", "mysql": "MySQL"}
"""sqlglot's name of a dialect -> the name that prompts use."""

_TAG = re.compile(r"<(?=\s*/?\s*hint\b)", re.IGNORECASE)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:-]")


def one_line(text: str) -> str:
    """`text` with every run of white space as one space: it cannot start a heading or a fence, nor be a hint."""
    return _TAG.sub("&lt;", re.sub(r"```+", "'''", " ".join(text.split())))


def fenced(sql: str) -> str:
    """`sql` in a fence that nothing inside can close; lines that start with # are moved in by one space."""
    body = _TAG.sub("&lt;", re.sub(r"```+", "'''", sql.strip()))
    return f"```sql\n{re.sub(r'(?m)^#', ' #', body)}\n```"


def hint_line(hint: Reflection) -> str:
    """A reflection as one `<hint id="...">...</hint>` line whose text cannot close the tag."""
    text = hint.text if not hint.boundary else f"{hint.text} (not for: {hint.boundary})"
    return f'<hint id="{_UNSAFE.sub("_", hint.id)}">{one_line(text)}</hint>'


def shown_examples(examples: Sequence[Shot]) -> str:
    """Questions with their queries, without schema."""
    return "\n\n".join(f"Question: {one_line(shot.question)}\n{fenced(shot.sql)}" for shot in examples) or NONE


class Prompts:
    """Fills `prompts/text2sql/*.md` (or a folder of the user's with the same names)."""

    def __init__(self, folder: str | None = None, *, budget: int | None = None, fuzzy: bool = False) -> None:
        """Reads nothing yet.

        Args:
            folder: Holds `text2sql/solver.md` and so on; files that are not there are the package's.
            budget: Tokens of a schema at most, about; what a question does not touch is shortened first.
            fuzzy: Look for misspelled values as well.
        """
        self._folder, self._budget, self._fuzzy = folder, budget, fuzzy

    def template(self, role: str) -> Prompt:
        """The template of a role."""
        return load_prompt(f"text2sql/{role}", self._folder)

    def solver(
        self,
        database: Database,
        task: Task,
        hints: Sequence[Reflection] = (),
        tried: Sequence[str] = (),
        examples: Sequence[Shot] = (),
        template: str = "solver",
    ) -> list[Message]:
        """Asks for a query, or opens a chain with its own template. `tried`: queries that failed."""
        fields = self._common(database, task, hints, tried) | {"tried": "\n".join(fenced(s) for s in tried) or NONE}
        if examples:
            return self._filled("solver_dail", **fields, examples=shown_examples(examples))
        return self._filled(template, **fields)

    def turn(self, database: Database, name: str, **fields: str) -> str:
        """A later message of a chain, from the template of that name."""
        return self._filled(name, engine=ENGINES[database.dialect], **fields)[0].content

    def critic(
        self,
        database: Database,
        task: Task,
        attempt: Attempt | str,
        observation: Observation,
        hints: Sequence[Reflection] = (),
    ) -> list[Message]:
        """Asks whether a query is right, given its result; when wrong, where, and for a corrected one."""
        sql = _answer(attempt)
        fields = self._common(database, task, hints, [sql])
        return self._filled("critic", **fields, sql=fenced(sql) if sql else NONE, result=one_line(observation.text))

    def reflector(
        self,
        database: Database,
        task: Task,
        attempt: Attempt | str,
        observation: Observation,
        correction: str,
        guidance: str = "",
    ) -> list[Message]:
        """Asks for the lesson of an attempt; without a correction, from the result and what critics said alone.

        `guidance`: what kind of lesson is wanted, in place of the usual one.
        """
        sql = _answer(attempt)
        fields = self._common(database, task, (), [sql, correction])
        del fields["hints"]
        result = one_line(observation.text)
        return self._filled(
            "reflector",
            **fields,
            sql=fenced(sql) if sql else NONE,
            result=result,
            right=fenced(correction) if correction else NONE,
            guidance=(guidance or load_prompt("text2sql/lesson", self._folder).fill()).strip(),
        )

    def proposer(self, database: Database, level: int) -> list[Message]:
        """Asks for a new question with its query, at a level of 1 to 5."""
        return self._filled("proposer", engine=ENGINES[database.dialect], schema=database.schema, level=str(level))

    def judge(
        self, database: Database, task: Task, answers: Sequence[str], hints: Sequence[Reflection] = ()
    ) -> list[Message]:
        """Asks for one score per candidate."""
        lines = [f"SQL{index}: {one_line(sql) or NONE}" for index, sql in enumerate(answers)]
        fields = self._common(database, task, hints, answers)
        return self._filled("judge", **fields, candidates="\n".join(lines) or NONE)

    def _common(
        self, database: Database, task: Task, hints: Sequence[Reflection] = (), queries: Sequence[str] = ()
    ) -> dict[str, str]:
        question = one_line(str(task.info["question"]))
        told = [hint.text for hint in hints]
        cells = database.values([question, *told, *_strings(queries)], fuzzy=self._fuzzy)
        schema = database.schema
        if self._budget is not None:
            from .linking import fit

            schema = fit(database, question, self._budget, hints=told, cells=cells).text
        if evidence := one_line(str(task.info.get("evidence") or "")):  # what BIRD tells beside a question
            question += f"\nEvidence: {evidence}"
        return {
            "engine": ENGINES[database.dialect],
            "schema": schema,
            "values": "\n".join(str(cell) for cell in cells) or NONE,
            "hints": "\n".join(hint_line(hint) for hint in hints) or NONE,
            "question": question,
        }

    def _filled(self, role: str, **fields: str) -> list[Message]:
        prompt, engine = self.template(role), fields.pop("engine", "SQLite")
        if engine != "SQLite":  # the templates say SQLite; what is filled in stays as it is
            prompt = replace(prompt, body=prompt.body.replace("SQLite", engine))
        return [Message(role="user", content=prompt.fill(**fields))]


def _strings(queries: Sequence[str]) -> list[str]:
    return [" ".join(re.findall(r"'(?:[^']|'')+'", sql)) for sql in queries]


def _answer(attempt: Attempt | str) -> str:
    return attempt if isinstance(attempt, str) else attempt.answer
