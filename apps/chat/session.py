"""What a chat agent holds open: store, models, memories, tools; and the calls of one conversation. See `agent.py`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

from verbal.cache import Cache, fingerprint_of
from verbal.contracts import Model, Sampling
from verbal.curation import make_credit, make_curator
from verbal.errors import ConfigError, UnknownName
from verbal.models import ModelCalls, Retry, open_model
from verbal.recipe import Recipe, load_recipe
from verbal.run import open_ledger
from verbal.store import Store
from verbal.types import Message, Reflection, Usage

from .._said import open_trials
from . import kept
from .budget import tokens
from .mcp_tools import McpServer
from .tools import Toolbox, make_toolbox

DEFAULT_STORE = "runs/verbal.db"
"""Where conversations are kept when no store is named."""
BUDGET = 16_000
"""Tokens of a prompt at most."""
Scope = Literal["user", "team", "global"]
"""Whose lessons a memory holds."""
LETTER: Mapping[str, str] = {"user": "u", "team": "t", "global": "g"}
"""Scope -> the letter that its lessons are called by, in prompts and commands."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")


def memory_of(scope: Scope, name: str = "") -> str:
    """Name of the memory of a person, a team, or all.

    Raises:
        ConfigError: the person's or team's name cannot be used.
    """
    if scope == "global":
        return "chat-global"
    if not _NAME.fullmatch(name) or ".." in name:
        what = f"{scope} {name[:80]!r} is no name"
        raise ConfigError(what, where=f"--{scope}", todo="use up to 64 letters, digits and ._@- inside")
    return f"chat-{scope}-{name}"


def alias(scope: str, id: str) -> str:
    """How a lesson is called in a prompt and in commands: `u3` for `r3` of the person.

    >>> alias("user", "r3"), alias("team", "imported")
    ('u3', 't-imported')
    """
    number = re.fullmatch(r"r(\d+)", id)
    return LETTER[scope] + (number[1] if number else f"-{re.sub(r'[^A-Za-z0-9_.-]', '_', id)}")


class Session:
    """The open parts of a chat agent; arguments and errors: `ChatAgent`."""

    def __init__(
        self,
        *,
        model: str | Model = "",
        store: str | Path | Store = DEFAULT_STORE,
        user: str = "me",
        team: str = "",
        tools: Sequence[Callable[..., Any] | str] = (),
        mcp: Sequence[str | Sequence[str]] = (),
        budget: int = BUDGET,
        max_cost: float | None = None,
        recipe: Recipe | None = None,
        admin: bool = False,
    ) -> None:
        made = recipe or load_recipe("chat")
        if isinstance(model, str) and model:
            made = dataclasses.replace(made, model=dataclasses.replace(made.model, name=model))
        if max_cost is not None:
            made = dataclasses.replace(made, limits=dataclasses.replace(made.limits, max_cost=max_cost))
        if (fit := made.app.options.get("fit", "words")) not in ("words", "model"):
            raise UnknownName.of("judge of fit", str(fit), ("words", "model"), where="app.options.fit")
        if budget < 200:
            raise ConfigError(f"a budget of {budget} tokens", where="--budget", todo="give 200 or more")
        self.recipe, self.user, self.team, self.admin, self.budget = made, user, team, admin, budget
        self.names: dict[str, Scope] = {memory_of("user", user): "user"}
        """Memory -> whose it is."""
        if team:
            self.names[memory_of("team", team)] = "team"
        self.names[memory_of("global")] = "global"
        self.memories: dict[str, Any] = {}
        """Open memories by name."""
        self.toolbox = Toolbox()
        self._known: dict[str, int] = {}
        self._busy: set[str] = set()
        self._turns: set[AsyncGenerator[Any, None]] = set()
        self._given_model, self._given_store = model, store
        self._given_tools, self._given_mcp = tools, mcp
        self._models: dict[str, Model] = {}
        self._callers: dict[str, dict[str, ModelCalls]] = {}
        self._stack = AsyncExitStack()
        self._store: Store | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for turn in [*self._turns]:  # left behind by whoever read it
            await turn.aclose()
        await self._stack.aclose()

    @asynccontextmanager
    async def _under_way(self, turn: AsyncGenerator[Any, None]) -> AsyncGenerator[AsyncGenerator[Any, None], None]:
        """A turn, closed when its reader is done, or with the agent."""
        self._turns.add(turn)
        try:
            yield turn
        finally:
            self._turns.discard(turn)
            await turn.aclose()

    async def _open(self) -> None:
        self.recipe.resolve()
        table, given = self.recipe.model, self._given_model
        self.toolbox = make_toolbox(self._given_tools)
        for spec in dict.fromkeys([table.name, *table.roles.values()]):
            own = spec == table.name
            if own and not isinstance(given, str):
                self._models[spec] = given
                continue
            model = open_model(spec, **(table.options if own else {}))
            self._stack.push_async_callback(model.aclose)
            self._models[spec] = model
        answers = self._models[table.roles.get("solver", table.name)]
        if not getattr(answers, "chats", True):
            raise ConfigError(
                f"the model {answers.name!r} turns questions into SQL and cannot chat",
                where="--model",
                todo="name one that can: --model openai/gpt-5-mini, --model http/llama3@http://127.0.0.1:11434/v1, or "
                "--model scripted:FILE.jsonl to try it out; to ask a database: verbal chat --db FILE",
            )
        for model in self._models.values():
            await model.check()
        opened = self._given_store
        self._store = opened if isinstance(opened, Store) else self._stack.enter_context(Store(opened))
        for name in self.names:
            self.memories[name] = open_trials(self._store, name, self.recipe.memory.options)
            self._stack.callback(self.memories[name].close)
        self.credit = make_credit(self.recipe)
        for command in self._given_mcp:
            server = McpServer(command if isinstance(command, str) else shlex.join(command))
            self._stack.push_async_callback(server.aclose)
            for tool in await server.open():
                self.toolbox.add(tool)
        if (size := tokens(json.dumps(self.toolbox.definitions))) > self.budget // 2:
            what = f"{len(self.toolbox.tools)} tools take {size:,} of the {self.budget:,} tokens of a prompt"
            raise ConfigError(what, where="--budget", todo="give fewer tools, or a larger --budget")

    @property
    def store(self) -> Store:
        """The open store.

        Raises:
            ConfigError: the agent was not entered.
        """
        if self._store is None:
            raise ConfigError("the agent is not open", todo="async with ChatAgent(...) as agent: ...")
        return self._store

    @property
    def own(self) -> Any:
        """The person's memory."""
        return self.memories[memory_of("user", self.user)]

    @property
    def rounds(self) -> int:
        """Times that tools may be called in one turn."""
        return self.recipe.loop.turns

    def roles(self, chat: str) -> Callable[[str], ModelCalls]:
        """The models of one conversation, whose calls and limits are counted with it."""
        if chat not in self._callers:
            ledger = open_ledger(self.recipe, self.store, chat)
            cache, table = Cache(self.store, chat, mode=cast(Any, self.recipe.model.cache)), self.recipe.model
            self._callers[chat] = {
                spec: ModelCalls(
                    model, ledger=ledger, cache=cache, timeout=table.timeout, concurrency=table.concurrency,
                    fingerprint=fingerprint_of(model, table.options if spec == table.name else {}),
                    retry=Retry(attempts=table.retries, first=table.retry_first),
                    price_in=table.price_in if spec == table.name else None,
                    price_out=table.price_out if spec == table.name else None,
                )
                for spec, model in self._models.items()
            }  # fmt: skip
        callers, roles = self._callers[chat], self.recipe.model.roles
        return lambda role: callers[roles.get(role, self.recipe.model.name)].for_role(role)

    def curator(self, chat: str) -> Any:
        """Who files what is shared."""
        return make_curator(self.recipe, cast(Any, self.roles(chat)))

    async def ask(self, chat: str, role: str, key: str, messages: list[Message]) -> str | None:
        """The reply of a role beside the answer; None when it does not chat, or its call failed.

        Raises:
            BudgetError, TransientError, StoreError: what stops a run.
        """
        from verbal.errors import STOPS, ModelError

        caller = self.roles(chat)(role)
        if not caller.chats:
            return None
        sampling = Sampling(temperature=0.0, max_tokens=1024, seed=draw(chat, key))
        try:
            return (await caller.generate(messages, 1, sampling))[0].text
        except STOPS:
            raise
        except ModelError:
            return None

    def find(self, reference: str) -> tuple[Any, Reflection, Scope]:
        """A lesson by `u3`, `chat-team-blue:r3`, or an id of the person's memory: memory, item, whose it is.

        Raises:
            UnknownName: there is none that is not retired.
        """
        wanted = reference.strip()
        places = [
            (m, i, s) for name, s in self.names.items() for m in [self.memories[name]] for i in m.items().values()
        ]
        alive = [(m, i, s) for m, i, s in places if i.status != "retired"]
        for memory, item, scope in alive:
            if wanted in (alias(scope, item.id), f"{memory.name}:{item.id}"):
                return memory, item, scope
        for memory, item, scope in alive:
            if wanted == item.id:
                return memory, item, scope
        known = [alias(s, i.id) for _, i, s in alive]
        todo = f"known: {', '.join(known[-12:])}" if known else "nothing was taught yet"
        raise UnknownName(f"unknown lesson {wanted[:80]!r}", where=self.store.where, todo=todo)

    async def refresh(self) -> None:
        """Reads what other processes have taught."""
        for memory in self.memories.values():
            await memory.refresh()

    def used(self, chat: str) -> dict[str, Usage]:
        """What a conversation used so far, by role."""
        return self.store.usage(chat)

    def check_own(self, chat: str) -> dict[str, Any]:
        """The run of one of the person's conversations.

        Raises:
            UnknownName: they have no such conversation.
        """
        return kept.own_run(self.store, chat, self.user)


def draw(*parts: object) -> int:
    """A seed in [0, 2**31) that depends on `parts` only."""
    text = "/".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") >> 1


__all__ = ["BUDGET", "DEFAULT_STORE", "LETTER", "Scope", "Session", "alias", "draw", "memory_of"]
