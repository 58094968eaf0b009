"""What a lesson's scope is tried on: requests inside, near and outside it, written by a proposer or by a person.

Source: Stephan et al. 2024, RLVF / C3PO, arXiv 2402.10893, section 3 (three kinds of prompts).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from verbal.contracts import Sampling
from verbal.errors import DataError
from verbal.loop.context import Prompted, query
from verbal.prompt import load_prompt
from verbal.run import Workshop
from verbal.types import Message, Reflection, Task

Kind = Literal["inside", "near", "outside"]
"""How a request lies to a lesson's scope."""
KINDS: tuple[Kind, ...] = ("inside", "near", "outside")
"""All kinds, in the order in which they are told."""
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What a lesson is tried on."""

    inside: tuple[Task, ...] = ()
    near: tuple[Task, ...] = ()
    outside: tuple[Task, ...] = ()
    boundary: str = ""
    """Where the lesson must not be applied, in the proposer's words."""

    def of(self, kind: Kind) -> tuple[Task, ...]:
        """The requests of one kind."""
        found: tuple[Task, ...] = getattr(self, kind)
        return found


async def write_requests(workshop: Workshop, item: Reflection, examples: Sequence[Task], count: int = 8) -> Requests:
    """Requests that the proposer writes for a lesson, `count` of a kind at most.

    Raises:
        DataError: no usable reply in three tries. ModelError: a call failed.
    """
    examples = [t for t in examples if t.split != "test"][:5]
    text = load_prompt("memory/scope", workshop.recipe.app.options.get("prompts")).fill(
        lesson=json.dumps({"text": item.text, "when": item.when}, ensure_ascii=False),
        examples="\n".join(json.dumps(query(t), ensure_ascii=False) for t in examples) or "none",
        count=str(count),
    )
    worlds = {str(t.info["db"]) for t in examples if t.info.get("db")}
    wrong = ""
    for tried in range(_TRIES):
        sampling = Sampling(temperature=0.0 if tried == 0 else 0.7, max_tokens=2048, seed=tried)
        reply = (await workshop.roles("proposer").generate([Message(role="user", content=text)], 1, sampling))[0]
        try:
            found = read_requests(reply.text)
        except ValueError as error:
            wrong = str(error)
            continue
        asked = {kind: found[kind][:count] for kind in KINDS}
        return make_requests(workshop.app, asked, found["boundary"], db=min(worlds, default=None))
    raise DataError(
        f"the proposer wrote no usable requests for {item.id} in {_TRIES} tries: {wrong}",
        where=workshop.roles("proposer").name,
        todo="name a model that follows instructions: --set model.roles.proposer=provider/model",
    )


def make_requests(
    app: Prompted, asked: Mapping[Kind, Sequence[str]], boundary: str = "", *, db: str | None = None
) -> Requests:
    """The requests that some texts make, by kind. Equal texts make equal tasks, so that no answer is made twice."""
    made: dict[str, Any] = {
        kind: tuple(app.task(text, id=f"scope/{digest(f'{db}/{text}')}", db=db) for text in asked.get(kind, ()))
        for kind in KINDS
    }
    return Requests(boundary=boundary, **made)


def read_requests(text: str) -> dict[str, Any]:
    """The boundary and the three lists of a proposer's reply, each request once.

    Raises:
        ValueError: the reply is not the JSON that was asked for; says what is wrong with it.
    """
    body = re.sub(r"\A```(?:json)?\s*\n|\n```\Z", "", text.strip())
    try:
        data = json.loads(body)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("boundary", ""), str):
        raise ValueError("not an object with a boundary in words")
    found: dict[str, Any] = {"boundary": " ".join(data.get("boundary", "").split())}
    kind_of: dict[str, str] = {}
    for kind in KINDS:
        asked = data.get(kind)
        if not isinstance(asked, list) or not asked or not all(isinstance(a, str) and a.strip() for a in asked):
            raise ValueError(f"`{kind}` must be a list of requests")
        found[kind] = list(dict.fromkeys(a.strip() for a in asked))
        for request in found[kind]:
            if kind_of.setdefault(request.casefold(), kind) != kind:
                raise ValueError(f"{request!r} is both `{kind_of[request.casefold()]}` and `{kind}`")
    return found


def digest(text: str) -> str:
    """A short name for a text: 16 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


__all__ = ["KINDS", "Kind", "Requests", "digest", "make_requests", "read_requests", "write_requests"]
