"""`verbal chat` without a database: the chat agent on the terminal, with slash commands for what it learned.

The agent is `apps/chat`, found by name; here is only what a person sees and types. Lines come from standard input, so a
script may be piped in. Ctrl-C drops the answer under way: the turn is kept as stopped, nothing is half written.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from verbal.chat_verb import next_line
from verbal.errors import STOPS, ConfigError, DataError, VerbalError
from verbal.flow import Flow, Waiting
from verbal.parts import load_part
from verbal.screen import Screen, error_panel
from verbal.store import Store
from verbal.text import money, visible
from verbal.verbs import make_recipe

HELP = """Talk. Say what should be otherwise ("don't use emojis when you write to my
boss"): it is followed from then on, where it fits. "only for ...", "not when
..." and "forget that" change what was learned last.
  /up, /down         the last answer was right, wrong
  /again [REASON]    answer once more           /why      what it followed
  /edit TEXT         the answer as it should be
  /correct WORDS     what should be otherwise
  /undo [ID]         take the last of these back
  /memory            what was learned, and what came of it
  /narrow ID when .. or: /narrow ID not ..      /forget ID
  /share ID team     or: global; tried there by lot
  /history, /chats   what was said              /cost     what it took
  /export FILE       as Markdown                /new, /quit (or Ctrl-D)"""
"""What `/help` says."""


def run_talk(
    options: dict[str, Any],
    path: str,
    *,
    user: str = "me",
    team: str = "",
    tools: Sequence[str] = (),
    mcp: Sequence[str] = (),
    chat: str = "",
    budget: int | None = None,
    quiet: bool,
) -> dict[str, Any]:
    """Talks until the input ends; gives the conversation, its turns, and what went wrong.

    Args:
        options: Recipe, model, overrides (`verbal.options`).
        path: The store.
        user: Who talks.
        team: Their team.
        tools: Functions as `./mine.py:function`.
        mcp: MCP servers: commands or URLs.
        chat: A conversation to go on with.
        budget: Tokens of a prompt at most.
        quiet: Print nothing.
    """
    maker = load_part("apps", "chat")
    aside = redirect_stdout(sys.stderr) if quiet else nullcontext()  # what tools print is no JSON
    with aside, Store(path) as store, asyncio.Runner() as runner, _screen(quiet) as screen:
        more = {} if budget is None else {"budget": budget}
        agent = maker(
            store=store, recipe=make_recipe(options, store), user=user, team=team, tools=tools, mcp=mcp, **more
        )
        runner.run(_entered(agent))
        try:
            talk = Talk(agent, screen)
            talk.greet(chat)
            while not talk.over:
                try:
                    line = next_line()
                except EOFError:
                    break
                except KeyboardInterrupt:
                    print("\n(/quit to leave)", file=sys.stderr)
                    continue
                try:
                    runner.run(talk.say(line))
                except KeyboardInterrupt:
                    talk.stopped()
                except STOPS as error:
                    talk.failed(error)
        finally:
            runner.run(agent.__aexit__(None, None, None))
        return {"chat": agent.chat, "turns": talk.told, "errors": talk.errors}


class Talk:
    """A conversation on the terminal.

    Args:
        agent: Open.
        screen: Where it is told.
    """

    def __init__(self, agent: Any, screen: Screen) -> None:
        self.agent, self.screen = agent, screen
        self.over = False
        self.told: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._flow, self._status = Flow(quiet=screen.quiet), Waiting(quiet=screen.quiet)
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "up": self._up, "down": self._down, "again": self._again, "edit": self._edit, "correct": self._correct,
            "undo": self._undo, "memory": self._memory, "narrow": self._narrow, "forget": self._forget,
            "share": self._share, "why": self._why, "history": self._history, "chats": self._chats,
            "cost": self._cost, "export": self._export, "new": self._new, "help": self._help, "quit": self._quit,
            "exit": self._quit,
        }  # fmt: skip

    def greet(self, chat: str = "") -> None:
        """The first line, and the conversation that is gone on with."""
        agent = self.agent
        turns = agent.open_chat(chat) if chat else []
        tools = f", tools {', '.join(agent.toolbox.tools)}" if agent.toolbox.tools else ""
        learned = len(agent.lessons())
        who = f"{agent.user}{f' of {agent.team}' if agent.team else ''}"
        self.screen.print(f"{who}, {learned} lesson{'s' * (learned != 1)}{tools}. Talk, or /help.", style="dim")
        for turn in turns[-3:]:
            self.screen.print(f"> {visible(turn.text, 200, line=True)}", visible(turn.reply, 400), style="dim")

    def stopped(self, words: str = "stopped; the answer was dropped") -> None:
        """Ends what was being shown."""
        self._status.stop()
        self._flow.end()
        if words:
            self.screen.print(words)

    def failed(self, error: VerbalError) -> None:
        """Tells what went wrong."""
        self.stopped("")
        self.errors.append(error.what)
        self.screen.print(error_panel(error))

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
            else:
                await self._show(self.agent.stream(line, chat=self.agent.chat or None))
        except STOPS:
            raise
        except VerbalError as error:
            self.failed(error)

    async def _show(self, events: Any) -> None:
        """A turn as it comes."""
        self._status.start()
        told = False
        async with aclosing(events):
            async for event in events:
                if event.type != "lessons" or not told:  # they come again with what was used, which the end tells
                    self._show_event(event.type, event.data)
                told = told or event.type == "lessons"
        self._status.stop()

    def _show_event(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "lessons" and not data["lessons"]:
            return
        self._status.stop()
        if kind == "text":
            self._flow.add(data["delta"])
        elif kind == "understood" and data["asks"]:
            self._note(data["says"])
        elif kind == "lessons":
            for lesson in data["lessons"]:
                trial = ", by lot" if lesson["chance"] < 1 else ""
                self._note(f"fits{trial}: {lesson['alias']} {lesson['text']}")
        elif kind == "tool":
            gave = data["error"] or visible(data["result"], 200, line=True)
            self._note(f"{data['name']}({visible(data['arguments'], 120, line=True)}): {gave}")
        elif kind == "summary":
            how = "left out" if data["dropped"] else "put into a summary"
            self._note(f"{data['turns']} older turns were {how}")
        elif kind == "done":
            self._ended(data["turn"])
        if kind not in ("text", "done"):  # the model is at work still
            self._status.start()

    def _ended(self, turn: Mapping[str, Any]) -> None:
        self._status.stop()
        self._flow.end()
        self.told.append({k: turn[k] for k in ("id", "text", "status", "reply")})
        if turn["reason"]:
            self.screen.print(f"{'Note' if turn['status'] == 'answered' else 'No answer'}: {turn['reason']}.")
        used = [x["alias"] for x in turn["lessons"] if x["used"]]
        followed = f"followed {', '.join(used)}, " if used else ""
        self.screen.print(f"[{turn['id']}] {followed}{took(turn['usage'])}", style="dim")

    def _note(self, words: str) -> None:
        self._flow.end()
        self.screen.print(words, style="dim")

    # commands ---------------------------------------------------------------------------------------------------------

    async def _command(self, text: str) -> None:
        name, _, rest = text[1:].partition(" ")
        found = [n for n in self._commands if n.startswith(name.lower())] if name else []
        if name.lower() in self._commands:
            found = [name.lower()]
        if len(found) != 1:
            which = found or list(self._commands)
            self.screen.print(f"there is no /{name}: {', '.join('/' + n for n in which)}")
            return
        if found[0] in ("up", "down", "again", "edit", "correct", "why") and self.agent.last is None:
            self.screen.print("nothing was answered yet")
            return
        await self._commands[found[0]](rest.strip())

    def _said(self, made: Any) -> None:
        self.screen.print(f"{made.says[:1].upper()}{made.says[1:]}.".replace("..", "."))
        if made.id and made.kind != "undo":
            self.screen.print(f"[{made.id}] to take it back: /undo {made.id}", style="dim")

    async def _up(self, rest: str) -> None:
        self._said(await self.agent.thumbs(self.agent.last, True))

    async def _down(self, rest: str) -> None:
        self._said(await self.agent.thumbs(self.agent.last, False))
        self.screen.print("what should be otherwise? say it, or /again REASON, or /edit TEXT", style="dim")

    async def _again(self, rest: str) -> None:
        await self._show(self.agent.regenerate(self.agent.last, rest))

    async def _edit(self, rest: str) -> None:
        if not rest:
            self.screen.print(r"give the whole answer as it should be, \n for a new line: /edit TEXT")
            return
        self._said(await self.agent.edit(self.agent.last, rest.replace(r"\n", "\n")))

    async def _correct(self, rest: str) -> None:
        self._said(await self.agent.correct(self.agent.last, rest))

    async def _undo(self, rest: str) -> None:
        self._said(await self.agent.undo(rest))

    async def _memory(self, rest: str) -> None:
        await self.agent.refresh()
        lessons = self.agent.lessons()
        for x in lessons:
            count = f"In {x['shown']} judged answers: {x['helped']} right, {x['harmed']} wrong"
            self.screen.print(f"{x['alias']:5} {x['text']}")
            self.screen.print(f"      {x['applies']} {count if x['shown'] else 'Not judged yet'}.", style="dim")
        if not lessons:
            self.screen.print("nothing was learned yet: say what should be otherwise")

    async def _narrow(self, rest: str) -> None:
        found = re.fullmatch(r"(\S+)\s+(when|for|in|not)\b\s*(?:(?:when|for|in)\b)?\s*(.+)", rest, re.IGNORECASE)
        if not found:
            self.screen.print(
                "say where it applies, or where not: /narrow u1 when you write to my boss, /narrow u1 not letters"
            )
            return
        field = "boundary" if found[2].lower() == "not" else "when"
        self._said(await self.agent.narrow(found[1], **{field: found[3]}))

    async def _forget(self, rest: str) -> None:
        self._said(await self.agent.forget(rest))

    async def _share(self, rest: str) -> None:
        name, _, to = rest.partition(" ")
        if (to := to.strip().lower() or "team") not in ("team", "global"):
            raise ConfigError(f"nobody is called {to!r}", todo="/share ID team, or /share ID global")
        self._said(await self.agent.share(name, to))

    async def _why(self, rest: str) -> None:
        turn = self.agent.last
        lines = [
            f"{x['alias']} {'was followed' if x['used'] else 'fits, and the answer does not say that it was followed'}"
            f" (chance {x['chance']:g}): {x['text']}" for x in turn.lessons
        ]  # fmt: skip
        lines += [f"called {t['name']}: {t['error'] or visible(t['result'], 200, line=True)}" for t in turn.tools]
        self.screen.print(*(lines or ["no lesson fits what was asked"]))

    async def _history(self, rest: str) -> None:
        for turn in self.agent.history(self.agent.chat)[-20:] if self.agent.chat else ():
            gone = f", replaced by {turn.replaced}" if turn.replaced else ""
            self.screen.print(f"{turn.id}  {turn.status}{gone}  {visible(turn.text, 80, line=True)}")
            for made in turn.corrections:
                back = ", taken back" if made["undone"] else ""
                words = f": {visible(made['words'], 80, line=True)}" if made["words"] else ""
                self.screen.print(f"    {made['id']}  {made['kind']}{back}{words}", style="dim")

    async def _chats(self, rest: str) -> None:
        for chat in self.agent.chats()[:20]:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(chat["updated"]))
            self.screen.print(f"{chat['id']}  {when}  {chat['turns']:3} turns  {visible(chat['title'], 60, line=True)}")

    async def _cost(self, rest: str) -> None:
        if not self.agent.chat:
            self.screen.print("nothing was spent yet")
            return
        for role, used in self.agent.used(self.agent.chat).items():
            self.screen.print(f"{role:10} {used.calls:4} calls  {used.tokens:8,} tokens  {money(used.cost)}")
        total = self.agent.cost(self.agent.chat)
        self.screen.print(f"{'together':10} {total.calls:4} calls  {total.tokens:8,} tokens  {money(total.cost)}")

    async def _export(self, rest: str) -> None:
        if not self.agent.chat:
            self.screen.print("nothing was said yet")
            return
        path = Path(rest or f"{self.agent.chat}.md")
        try:
            path.write_text(self.agent.export(self.agent.chat), encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"it cannot be written: {error.strerror}", where=str(path), todo="give another file"
            ) from error
        self.screen.print(f"written: {path}")

    async def _new(self, rest: str) -> None:
        self.agent.new_chat()
        self.screen.print("a new conversation; what was learned stays", style="dim")

    async def _help(self, rest: str) -> None:
        self.screen.print(HELP)

    async def _quit(self, rest: str) -> None:
        self.over = True


def took(usage: Mapping[str, Any]) -> str:
    """Tokens, cost and time of a turn in words."""
    if not usage.get("calls"):
        return "no model call"
    first = f", first words after {usage['first']:.1f} s" if usage.get("first") is not None else ""
    return f"{usage['tokens']:,} tokens, {money(usage['cost'])}, {usage['seconds']:.1f} s{first}"


def _screen(quiet: bool) -> Screen:
    """A screen without live lines: text comes as it is said, and nothing may move below it."""
    from rich.console import Console

    return Screen("verbal chat", quiet=quiet, err=Console(file=sys.stderr, force_terminal=False))


async def _entered(agent: Any) -> None:
    await agent.__aenter__()


__all__ = ["HELP", "Talk", "run_talk", "took"]
