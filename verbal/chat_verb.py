"""`verbal chat --db`: questions and follow-ups about one database on the terminal, with corrections by slash commands.

Lines come from standard input, so a script may be piped in. Each is worked on to its end or, after Ctrl-C, dropped
whole: what is kept is kept, nothing is half written.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from verbal.ask_verbs import make_assistant, show_answer, show_correction, show_event, show_record
from verbal.errors import STOPS, VerbalError
from verbal.parts import load_function
from verbal.screen import Screen, error_panel
from verbal.store import Store

HELP = """Ask a question, or change the one before ("and by month?"). "no: ..." corrects the last answer in your words.
  /sql            the last query                  /up, /down      the last answer was right, wrong
  /why            what it was based on            /correct WORDS  what should have been known
  /chart          the chart, as Vega-Lite JSON    /edit SQL       the query as it should be
  /history        what was asked                  /undo [ID]      take the last correction back
  /quit           leave (or Ctrl-D)"""
"""What `/help` says."""


def run_chat(
    options: dict[str, Any],
    path: str,
    memory: str,
    *,
    adopted: bool,
    rows: int | None,
    words: bool = False,
    quiet: bool,
) -> dict[str, Any]:
    """Talks about a database until the input ends; gives the answers' ids and statuses."""
    with Store(path) as store, asyncio.Runner() as runner:
        assistant = runner.run(_entered(make_assistant(options, store, memory, adopted=adopted, words=words)))
        try:
            chat = Chat(assistant, rows)
            with _screen(chat, quiet):
                chat.greet()
            while not chat.over:
                try:
                    line = next_line()
                except EOFError:
                    break
                except KeyboardInterrupt:
                    print("\n(/quit to leave)", file=sys.stderr)
                    continue
                _said(chat, runner, line, quiet)
        finally:
            runner.run(assistant.__aexit__(None, None, None))
        return {"answers": chat.told}


def _said(chat: Chat, runner: asyncio.Runner, line: str, quiet: bool) -> None:
    """Works on one line; Ctrl-C drops it."""
    with _screen(chat, quiet) as screen:
        try:
            runner.run(chat.say(line))
        except KeyboardInterrupt:
            screen.print("stopped; the question was dropped")
        except STOPS as error:
            screen.print(error_panel(error))


def _screen(chat: Chat, quiet: bool) -> Screen:
    """A screen for one line: nothing may move on the terminal while a person types."""
    chat.screen = Screen("verbal chat", quiet=quiet)
    return chat.screen


async def _entered(assistant: Any) -> Any:
    return await assistant.__aenter__()


def next_line() -> str:
    """The next line a person typed, without its end."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  (lines can be edited and found again)

        return input("> ")
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


class Chat:
    """A conversation: the last answer, and what a line means.

    Args:
        assistant: Open.
        rows: Rows shown; as `ask` when None.
    """

    def __init__(self, assistant: Any, rows: int | None = None) -> None:
        self.assistant, self.rows = assistant, rows
        self.screen = Screen("verbal chat", quiet=True)
        """Where it is told: another one for each line."""
        self.last: Any = None
        """The answer that a follow-up and a command are about."""
        self.over = False
        self.told: list[dict[str, Any]] = []
        self._choosing = False
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "sql": self._sql, "why": self._why, "up": self._up, "down": self._down, "correct": self._correct,
            "edit": self._edit, "undo": self._undo, "chart": self._chart, "history": self._history,
            "help": self._help, "quit": self._quit, "exit": self._quit,
        }  # fmt: skip

    def greet(self) -> None:
        """The first line."""
        where = self.assistant.location.rpartition("/")[2]
        self.screen.print(f"{where}, memory {self.assistant.memory or 'none'}. Ask, or /help.", style="dim")

    async def say(self, line: str) -> None:
        """Does what a line means; what goes wrong is told, and the conversation goes on.

        Raises:
            BudgetError, TransientError, StoreError: what stops a run.
        """
        text = line.strip()
        if not text:
            return
        try:
            if text.startswith("/"):
                await self._command(text)
            elif self._choosing and text.isdigit():
                self._heard(await self.assistant.choose(self.last, int(text)), show=True)
            elif text.isdigit():
                self.screen.print("there are no readings to choose from; ask a question, or /help")
            elif self.last is not None and _disagrees(text):
                await self._correct(text)
            else:
                await self._ask(text)
        except STOPS:
            raise
        except VerbalError as error:
            self.screen.print(error_panel(error))

    async def _ask(self, text: str) -> None:
        async for event in self.assistant.stream(text, after=self.last):
            show_event(self.screen, event, self.rows)
            if event.kind == "answer":
                self._heard(event.value)

    def _heard(self, answer: Any, *, show: bool = False) -> None:
        if show:
            show_answer(self.screen, answer, self.rows)
        self.told.append(
            {"id": answer.id, "question": answer.question, "status": answer.status, "answer": answer.answer}
        )
        if answer.status in ("answered", "ambiguous") or self.last is None:
            self.last = answer  # a follow-up is about the last answer there was
        self._choosing = answer.status == "ambiguous"
        if self._choosing:
            self.screen.print("Which one is meant? Type its number, or ask on.")

    async def _command(self, text: str) -> None:
        name, _, rest = text[1:].partition(" ")
        found = [n for n in self._commands if n.startswith(name.lower())] if name else []
        if name.lower() in self._commands:
            found = [name.lower()]
        if len(found) != 1:
            self.screen.print(f"there is no /{name}: {', '.join('/' + n for n in self._commands)}")
            return
        if self.last is None and found[0] not in ("help", "quit", "exit", "undo", "history"):
            self.screen.print("nothing was asked yet")
            return
        await self._commands[found[0]](rest.strip())

    async def _sql(self, rest: str) -> None:
        self.screen.print(self.last.answer or "there is no query")

    async def _why(self, rest: str) -> None:
        answer = self.last
        lines = [f"understood: {answer.understood.text}"] if answer.understood.text else []
        lines += [f"the query {answer.explanation}"] if answer.explanation else []
        if answer.agreement is not None:
            lines.append(f"{100 * answer.agreement:.0f} % of the candidate queries agree on this result")
        lines += [f"lesson {x['id']} ({x['status']}, chance {x['chance']:g}): {x['text']}" for x in answer.lessons]
        lines += [] if answer.lessons else ["no lesson was used"]
        lines += [f"note: {limit}" for limit in answer.limits] + ([answer.reason] if answer.reason else [])
        self.screen.print(*lines)

    async def _up(self, rest: str) -> None:
        self._say_what(await self.assistant.thumbs(self.last, True))

    async def _down(self, rest: str) -> None:
        made = await self.assistant.thumbs(self.last, False)
        self._say_what(made)
        if made.kept:
            self.screen.print('what should have been known? "no: ..." or /edit SQL', style="dim")

    async def _correct(self, rest: str) -> None:
        self._corrected(await self.assistant.correct(self.last, words=rest))

    async def _edit(self, rest: str) -> None:
        self._corrected(await self.assistant.correct(self.last, sql=rest))

    def _say_what(self, made: Any) -> None:
        show_correction(self.screen, made, self.rows, undo="/undo")

    def _corrected(self, made: Any) -> None:
        self._say_what(made)
        if made.answer is not None:
            self._heard(made.answer)

    async def _undo(self, rest: str) -> None:
        self._say_what(await self.assistant.undo(rest))

    async def _chart(self, rest: str) -> None:
        if self.last.chart is None:
            self.screen.print("no chart fits this result")
            return
        if drawn := load_function("apps", "text2sql.charts", "text_chart")(self.last.chart):
            self.screen.print(drawn)
        if not self.screen.quiet:
            print(json.dumps(self.last.chart), flush=True)  # as it is: a terminal's line breaks would spoil it

    async def _history(self, rest: str) -> None:
        for record in self.assistant.history()[-20:]:
            show_record(self.screen, record)

    async def _help(self, rest: str) -> None:
        self.screen.print(HELP)

    async def _quit(self, rest: str) -> None:
        self.over = True


def _disagrees(text: str) -> bool:
    """Whether a line says that the last answer was wrong, and why: `no: revenue excludes returns`."""
    head, colon, rest = text.partition(":")
    return bool(colon and rest.strip()) and head.strip().lower() in ("no", "nope", "wrong", "not quite", "incorrect")


__all__ = ["HELP", "Chat", "next_line", "run_chat"]
