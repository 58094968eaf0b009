"""Asking a model for a reply of a strict form: what cannot be read is sent back with what is wrong, a few times."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from verbal.contracts import Model, Sampling
from verbal.types import Message

_T = TypeVar("_T")
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)


async def ask(
    model: Model, text: str, read: Callable[[str], _T], *, tries: int, max_tokens: int, form: str
) -> _T | str:
    """What `read` makes of the first reply that it can read, or in words why there was none.

    Args:
        model: Who is asked.
        text: The prompt.
        read: Reads a reply; raises ValueError that says what is wrong with it. It does not give a text.
        tries: Replies asked for at most, the first included; the first is greedy.
        max_tokens: Of one reply.
        form: What to answer with, such as `the JSON object`.

    Raises:
        ModelError: a call failed.
    """
    first = Message(role="user", content=text)
    messages, wrong = [first], ""
    for tried in range(tries):
        sampling = Sampling(temperature=0.0 if tried == 0 else 0.5, max_tokens=max_tokens, seed=tried)
        reply = (await model.generate(messages, 1, sampling))[0]
        try:
            return read(reply.text)
        except ValueError as error:
            wrong = str(error)
            again = f"That cannot be used: {wrong}. Answer again with {form} only."
            said = Message(role="assistant", content=reply.text or "(empty)")
            messages = [first, said, Message(role="user", content=again)]
    return f"no usable reply of {model.name} in {tries} tries: {wrong}"


def read_json(text: str) -> Any:
    """The JSON value that a reply is, perhaps in a fence.

    Raises:
        ValueError: it is none.
    """
    body = text.strip()
    if fenced := _FENCE.match(body):
        body = fenced[1]
    try:
        return json.loads(body)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
