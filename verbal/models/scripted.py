"""A model that answers from a script: a list, a function, or a JSONL file. For tests, benches and demonstrations.

What it answers depends on the messages, the sample index and the seed only, never on the order of calls, so that a
run that was killed and resumed gets the same answers. Only `times` of an error row counts calls.

A row of the file, or a mapping of the list: `{"reply": "...", "match": "regex", "delay": 0.1, "finish": "length",
"tool_calls": [{"id", "name", "arguments"}], "error": "transient", "times": 2, "retry_after": 1}`.
`reply` may be a list of texts.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, ContextLengthError, DataError, ModelError, RefusedError, TransientError
from verbal.models._faults import OverloadedError
from verbal.models._wire import Finish
from verbal.types import Message, ToolCall, Usage

Answer = str | Mapping[str, Any] | Reply
"""What a script holds, or a function gives, for one reply."""

_ERRORS: dict[str, type[ModelError]] = {
    "transient": TransientError, "overloaded": OverloadedError, "refused": RefusedError,
    "context": ContextLengthError, "model": ModelError,
}  # fmt: skip
_KEYS = ("reply", "match", "delay", "finish", "tool_calls", "error", "times", "retry_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One row of a script."""

    replies: tuple[str, ...]
    match: re.Pattern[str] | None = None
    delay: float = 0.0
    finish: Finish = "stop"
    tool_calls: tuple[ToolCall, ...] = ()
    error: str = ""
    times: int | None = None
    retry_after: float | None = None


class ScriptedModel:
    """A model that answers from a script.

    The rows that apply are those whose `match` is found in the conversation (its contents, one a line), or else those
    without a `match`. Among their replies the one at (turn + sample index + seed) modulo their number is given, where
    turn is the number of assistant messages so far; with `pick="hash"` a hash of the conversation stands for the turn.

    Args:
        replies: The script, or a function of (messages, sample index, seed) that gives an answer, perhaps awaitable.
        file: A JSONL file to read the script from instead.
        pick: How the first reply is picked.
        latency: Seconds each call takes.
        name: Shown after `scripted/`.

    Raises:
        ConfigError: neither or both of `replies` and `file` are given, or the script is empty.
        DataError: a row cannot be read (the file's line is named).
    """

    def __init__(
        self,
        replies: Sequence[Answer] | Callable[[Sequence[Message], int, int | None], Any] | None = None,
        *,
        file: str | Path | None = None,
        pick: Literal["turn", "hash"] = "turn",
        latency: float = 0.0,
        name: str = "",
    ) -> None:
        if (replies is None) == (file is None):
            raise ConfigError("a scripted model takes either replies or a file", todo="write scripted:FILE.jsonl")
        if pick not in ("turn", "hash"):
            raise ConfigError(f"pick is {pick!r}", where="scripted model", todo="write turn or hash")
        self._function = replies if callable(replies) else None
        self._rows: list[_Row] = []
        if file is not None:
            self._rows = _read_file(Path(file))
        elif not callable(replies):
            self._rows = [_read_row(r, f"scripted model, reply {i}") for i, r in enumerate(replies or ())]
        if self._function is None and not self._rows:
            raise ConfigError(
                "the script is empty", where=str(file or "scripted model"), todo="give one reply at least"
            )
        self.name = f"scripted/{name or (Path(file).stem if file else 'list' if self._rows else 'function')}"
        self.fingerprint = hashlib.sha256(repr(self._rows).encode()).hexdigest()[:16] if self._rows else ""
        """Tells scripts of one name apart."""
        self.calls = 0
        """Calls so far, failed ones included (for tests)."""
        self._pick, self._latency = pick, latency
        self._failed: dict[tuple[_Row, str], int] = {}

    def __repr__(self) -> str:
        return f"ScriptedModel({self.name!r}, {len(self._rows)} rows)"

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` scripted replies."""
        self.calls += 1
        if self._latency:
            await asyncio.sleep(self._latency)
        replies = [await self._answer(messages, i, sampling.seed) for i in range(n)]
        prompt = sum(len(m.content.split()) for m in messages)
        return [
            replace(
                r,
                model=self.name,
                usage=Usage(
                    calls=int(i == 0), prompt_tokens=prompt * (i == 0), completion_tokens=len(r.text.split()), cost=0.0
                ),
            )
            for i, r in enumerate(replies)
        ]

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """The scripted reply, word by word."""
        async for piece in self.stream_reply(messages, sampling):
            if isinstance(piece, str):
                yield piece

    async def stream_reply(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str | Reply]:
        """The scripted reply, word by word, then whole."""
        (reply,) = await self.generate(messages, 1, sampling)
        for piece in re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", reply.text):
            yield piece
        yield reply

    async def check(self) -> str:
        """One line; a script that was read can always be used."""
        return f"{self.name}: {len(self._rows)} rows" if self._rows else f"{self.name}: ready"

    async def aclose(self) -> None:
        """Nothing to close."""

    async def _answer(self, messages: Sequence[Message], index: int, seed: int | None) -> Reply:
        if self._function is not None:
            answer = self._function(messages, index, seed)
            answer = await answer if inspect.isawaitable(answer) else answer
            if isinstance(answer, Reply):
                return answer
            row = _read_row(answer, "what the script's function gave")
            return await self._give(row, row.replies[0] if row.replies else "", messages)
        row, text = self._choose(messages, index, seed)
        return await self._give(row, text, messages)

    def _choose(self, messages: Sequence[Message], index: int, seed: int | None) -> tuple[_Row, str]:
        conversation = "\n".join(m.content for m in messages)
        rows = [r for r in self._rows if r.match is not None and r.match.search(conversation)]
        rows = rows or [r for r in self._rows if r.match is None]
        if not rows:
            raise RefusedError(
                f"no row of the script matches: {conversation[-120:]!r}",
                where=self.name,
                todo="add a row without match",
            )
        choices = [(row, reply) for row in rows for reply in row.replies or ("",)]
        start = sum(m.role == "assistant" for m in messages)
        if self._pick == "hash":
            start = int(_digest(messages)[:12], 16)
        return choices[(start + index + (seed or 0)) % len(choices)]

    async def _give(self, row: _Row, text: str, messages: Sequence[Message]) -> Reply:
        if row.delay:
            await asyncio.sleep(row.delay)
        if row.error:
            key = (row, _digest(messages))
            done = self._failed.get(key, 0)
            if row.times is None or done < row.times:
                self._failed[key] = done + 1
                error = _ERRORS[row.error](f"scripted {row.error} error", where=self.name, todo="as the script says")
                if isinstance(error, TransientError):
                    error.retry_after = row.retry_after
                raise error
        return Reply(text=text, finish=row.finish, tool_calls=row.tool_calls)


def _digest(messages: Sequence[Message]) -> str:
    text = json.dumps([m.to_dict() for m in messages], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_file(path: Path) -> list[_Row]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the script cannot be read: {error}", where=str(path), todo="give a UTF-8 JSONL file"
        ) from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON: {error.msg}", where=f"{path}:{number}:{error.colno}") from error
        rows.append(_read_row(data, f"{path}:{number}"))
    return rows


def _read_row(data: Any, where: str) -> _Row:
    if isinstance(data, Reply):
        return _Row(replies=(data.text,), finish=data.finish, tool_calls=data.tool_calls)
    if isinstance(data, str):
        return _Row(replies=(data,))
    if not isinstance(data, Mapping):
        raise DataError(f"a row of a script is text or an object, found {type(data).__name__}", where=where)
    if unknown := sorted(set(data) - set(_KEYS)):
        raise DataError(f"a row of a script has no key {unknown[0]!r}", where=where, todo=f"keys: {', '.join(_KEYS)}")
    reply, error = data.get("reply"), data.get("error", "")
    listed = [reply] if isinstance(reply, str) else reply if isinstance(reply, list | tuple) else []
    replies = tuple(r for r in listed if isinstance(r, str))
    odd = len(replies) != len(listed) or (reply is not None and not replies)
    if odd or not (replies or error or data.get("tool_calls")):
        raise DataError(f"reply is text or a list of texts, found {reply!r}", where=where)
    if error and error not in _ERRORS:
        raise DataError(f"no error is named {error!r}", where=where, todo=f"one of: {', '.join(_ERRORS)}")
    if (finish := data.get("finish", "tool_calls" if data.get("tool_calls") else "stop")) not in get_args(Finish):
        raise DataError(f"no finish is named {finish!r}", where=where, todo=f"one of: {', '.join(get_args(Finish))}")
    try:
        return _Row(
            replies=replies,
            match=re.compile(data["match"]) if data.get("match") else None,
            delay=float(data.get("delay", 0.0)),
            finish=finish,
            tool_calls=tuple(ToolCall.from_dict(c) for c in data.get("tool_calls") or ()),
            error=error,
            # An error with a reply is over after one try, without one it lasts.
            times=int(data["times"]) if "times" in data else (1 if replies else None),
            retry_after=float(data["retry_after"]) if "retry_after" in data else None,
        )
    except (re.error, TypeError, ValueError) as fault:
        raise DataError(f"a row of a script cannot be read: {fault}", where=where) from fault


__all__ = ["ScriptedModel"]
