"""Tools of the chat agent: plain typed functions. Arguments are checked, errors are data, results are delimited.

A tool is a function with types and a docstring; its schema is made of them. What the model calls is what a person gave
(`tools=[...]`, `--tool ./mine.py:function`), with arguments of the declared types, under a time limit. What it gives
goes to the model as one JSON string: text in it is data.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib.util
import inspect
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, UnknownName
from verbal.types import ToolCall

LIMIT = 30.0
"""Seconds that a call may take."""
LONGEST = 8000
"""Characters of a result that the model gets."""

Run = Callable[[Mapping[str, Any]], Awaitable[Any]]
"""Runs a tool with arguments of its schema; raises what went wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """Something that the model may call."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of its arguments."""
    run: Run

    @property
    def definition(self) -> dict[str, Any]:
        """In OpenAI's function form."""
        about = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": about}


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What became of a call."""

    name: str
    arguments: str
    result: str = ""
    error: str = ""

    @property
    def told(self) -> str:
        """As the model reads it: one JSON object, so that no text in it can end it."""
        said = {"error": self.error} if self.error else {"result": self.result}
        return json.dumps({"tool": self.name, **said}, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"name": self.name, "arguments": self.arguments, "result": self.result, "error": self.error}


@dataclass(slots=True)
class Toolbox:
    """The tools of an agent, by name.

    Raises:
        ConfigError: two tools have one name.
    """

    tools: dict[str, Tool] = field(default_factory=dict)
    limit: float = LIMIT

    def add(self, tool: Tool) -> None:
        """One more tool."""
        if tool.name in self.tools:
            raise ConfigError(f"two tools are named {tool.name!r}", todo="rename one of them")
        self.tools[tool.name] = tool

    @property
    def definitions(self) -> tuple[dict[str, Any], ...]:
        """Of all tools."""
        return tuple(tool.definition for tool in self.tools.values())

    async def call(self, asked: ToolCall) -> Called:
        """What a call gives; whatever goes wrong is data for the model."""
        tool = self.tools.get(asked.name)
        made = {"name": asked.name[:80], "arguments": asked.arguments}
        if tool is None:
            return Called(**made, error=f"there is no tool of that name; tools: {', '.join(self.tools) or 'none'}")
        try:
            arguments = json.loads(asked.arguments or "{}")
        except (ValueError, RecursionError) as error:
            return Called(**made, error=f"the arguments are not JSON: {str(error)[:200]}")
        if not isinstance(arguments, dict):
            return Called(**made, error="the arguments are not a JSON object")
        try:
            async with asyncio.timeout(self.limit):
                result = await tool.run(arguments)
            return Called(**made, result=_text(result))
        except TimeoutError:
            return Called(**made, error=f"it took longer than {self.limit:g} s and was stopped")
        except (Exception, SystemExit) as error:  # the person's own code: whatever it raises is told to the model
            return Called(**made, error=f"{type(error).__name__}: {str(error)[:500]}")


def function_tool(given: Callable[..., Any]) -> Tool:
    """The tool that a function is: its name, docstring and types.

    Raises:
        ConfigError: it has no types, takes `*args` or arguments that no JSON can hold.
    """
    import pydantic

    name = getattr(given, "__name__", "")
    where = f"tool {name or given!r}"
    if not name.isidentifier():
        raise ConfigError("a tool is a named function", where=where, todo="give a function made with def")
    try:
        signature = inspect.signature(given, eval_str=True)
    except (NameError, TypeError, ValueError) as error:
        raise ConfigError(
            f"its types cannot be read: {error}", where=where, todo="use types that it can see"
        ) from error
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigError(f"it takes {parameter}", where=where, todo="give it named arguments with types")
        if parameter.annotation is parameter.empty:
            raise ConfigError(f"argument {parameter.name!r} has no type", where=where, todo="write its type")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (parameter.annotation, default)
    try:
        # A field may be named like a method of a model, which pydantic only warns of.
        config = pydantic.ConfigDict(extra="forbid", protected_namespaces=())
        model = pydantic.create_model(name, __config__=config, **fields)
        schema = model.model_json_schema()
    except (pydantic.errors.PydanticUserError, NameError, TypeError, ValueError) as error:
        what = f"its arguments have no JSON schema: {str(error)[:200]}"
        raise ConfigError(what, where=where, todo="use plain types: str, int, float, bool, list, dict") from error

    async def run(arguments: Mapping[str, Any]) -> Any:
        try:
            read = model.model_validate(dict(arguments))
        except pydantic.ValidationError as error:
            raise ValueError(_wrong(error)) from None
        values = {n: getattr(read, n) for n in fields}
        if inspect.iscoroutinefunction(given):
            return await given(**values)
        return await _in_thread(given, values)

    about = inspect.getdoc(given) or name.replace("_", " ")
    return Tool(name=name, description=about[:1000], parameters=schema, run=run)


async def _in_thread(given: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """What a function gives, in a thread of its own: one that hangs holds up nothing, not even the process's end."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if made.done():  # nobody waits for it any more
            return
        if error is not None:
            made.set_exception(error)
        else:
            made.set_result(result)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = given(**values)
        except StopIteration as stopped:  # which no future can hold
            error = RuntimeError(f"StopIteration: {stopped}")
        except SystemExit as left:
            error = RuntimeError(f"it called exit({left.code})")
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="verbal-tool", daemon=True).start()
    return await made


def load_tool(spec: str) -> Tool:
    """The tool in a person's own file: `./mine.py:function`.

    Raises:
        ConfigError: no such file, or it has no such function (names those it has).
    """
    path_text, _, wanted = spec.rpartition(":")
    path = Path(path_text)
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"no tool {spec!r}", where="--tool", todo="write ./mine.py:function")
    name = f"verbal_tools_{path.stem}_{abs(hash(path.resolve()))}"
    if (module := sys.modules.get(name)) is None:
        made = importlib.util.spec_from_file_location(name, path)
        assert made is not None and made.loader is not None
        module = importlib.util.module_from_spec(made)
        sys.modules[name] = module
        try:
            made.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    found = getattr(module, wanted, None)
    if not inspect.isfunction(found):
        own = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == name]
        raise UnknownName.of(f"function in {path_text}", wanted, own, where="--tool")
    return function_tool(found)


def make_toolbox(given: Sequence[Callable[..., Any] | str | Tool], *, limit: float = LIMIT) -> Toolbox:
    """The toolbox of functions, files and tools.

    Raises:
        ConfigError: one of them is no tool, or two have one name.
    """
    box = Toolbox(limit=limit)
    for one in given:
        box.add(one if isinstance(one, Tool) else load_tool(one) if isinstance(one, str) else function_tool(one))
    return box


def _wrong(error: Any) -> str:
    found = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()[:5]]
    return f"the arguments do not fit: {'; '.join(found)}"


def _text(result: Any) -> str:
    try:
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        text = str(result)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text) - LONGEST:,} more characters were cut)"


__all__ = ["LIMIT", "LONGEST", "Called", "Run", "Tool", "Toolbox", "function_tool", "load_tool", "make_toolbox"]
