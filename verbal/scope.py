"""The scope test: whether a lesson changes answers where it must not.

A lesson that a person taught ("be brief in mails to my boss") is tried on requests inside its scope, near it (the same
words, another matter) and outside. One that changes answers near or outside is narrowed by a boundary and tried again;
one that still changes answers outside, or too many near, is refused. In-context lessons leak a lot: 0.50 of answers out
of scope changed in the source's own baseline.

Source: Stephan et al. 2024, RLVF / C3PO, arXiv 2402.10893: sections 3 (three kinds of prompts) and 6 (the score). The
test is for retrieval and prompt together: an item that is not found for a request cannot change its answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from verbal.contracts import Memory, Observation, Sampling
from verbal.errors import DataError
from verbal.loop.context import Context, query
from verbal.loop.nodes import make_attempt, unsealed
from verbal.prompt import load_prompt
from verbal.run import Workshop, make_context
from verbal.types import MemoryOp, Message, Reflection, Task

Kind = Literal["inside", "near", "outside"]
KINDS: tuple[Kind, ...] = ("inside", "near", "outside")
NEAR_ALLOWED = 0.1
"""Share of near requests whose answer may change: what is near is a matter of judgement."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a lesson changed. Shares are of the requests of a kind, 0 to 1."""

    item: Reflection
    changed: dict[str, list[str]] = field(default_factory=dict)
    """Kind -> requests whose answer is another one with the lesson."""
    asked: dict[str, int] = field(default_factory=dict)
    """Kind -> requests tried."""

    def share(self, *kinds: Kind) -> float:
        """Share of the requests of these kinds whose answer changed; 0 where there are none."""
        asked = sum(self.asked.get(k, 0) for k in kinds)
        return sum(len(self.changed.get(k, ())) for k in kinds) / asked if asked else 0.0

    @property
    def kept(self) -> bool:
        """Whether the lesson stays where it belongs."""
        return not self.changed.get("outside") and self.share("near") <= NEAR_ALLOWED

    @property
    def score(self) -> float:
        """(S_in + 1 - S_out) / 2, with changes for adherence: 1 changes all inside and nothing else."""
        return (self.share("inside") + 1.0 - self.share("near", "outside")) / 2

    def words(self) -> str:
        """The finding in words."""
        told = ", ".join(f"{len(self.changed.get(k, ()))} of {self.asked.get(k, 0)} {k}" for k in KINDS)
        return f"changes answers to {told} its scope" if self.asked else "was not tried"


async def write_requests(workshop: Workshop, item: Reflection, examples: Sequence[Task], count: int = 8) -> Requests:
    """Requests that the proposer writes for a lesson.

    Raises:
        DataError: no usable reply in three tries. ModelError: a call failed.
    """
    text = load_prompt("memory/scope").fill(
        lesson=json.dumps({"text": item.text, "when": item.when}, ensure_ascii=False),
        examples="\n".join(json.dumps(query(t), ensure_ascii=False) for t in examples[:5]) or "none",
        count=str(count),
    )
    wrong = ""
    for tried in range(_TRIES):
        sampling = Sampling(temperature=0.0 if tried == 0 else 0.7, max_tokens=2048, seed=tried)
        reply = (await workshop.roles("proposer").generate([Message(role="user", content=text)], 1, sampling))[0]
        try:
            found = read_requests(reply.text)
        except ValueError as error:
            wrong = str(error)
            continue
        worlds = {str(t.info["db"]) for t in examples if t.info.get("db")}
        db = min(worlds) if worlds else None
        made: dict[str, Any] = {
            kind: tuple(
                workshop.app.task(asked, id=f"scope/{item.id}/{kind}-{i}", db=db) for i, asked in enumerate(found[kind])
            )
            for kind in KINDS
        }
        return Requests(boundary=found["boundary"], **made)
    raise DataError(
        f"the proposer wrote no usable requests for {item.id} in {_TRIES} tries: {wrong}",
        where=workshop.roles("proposer").name,
        todo="name a model that follows instructions: --set model.roles.proposer=provider/model",
    )


def read_requests(text: str) -> dict[str, Any]:
    """The boundary and the three lists of a proposer's reply.

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
    for kind in KINDS:
        asked = data.get(kind)
        if not isinstance(asked, list) or not asked or not all(isinstance(a, str) and a.strip() for a in asked):
            raise ValueError(f"`{kind}` must be a list of requests")
    return {"boundary": data.get("boundary", "").strip(), **{k: [a.strip() for a in data[k]] for k in KINDS}}


async def try_scope(workshop: Workshop, memory: Memory, item: Reflection, requests: Requests, *, run: str) -> Scope:
    """What a lesson changes: each request is answered with and without it, beside what the memory believes already.

    Args:
        workshop: Open parts; its solver answers, greedily.
        memory: Holds the item; whatever its standing, it is tried as if it were believed.
        item: The lesson.
        requests: What it is tried on.
        run: Under which the attempts are kept.
    """
    changed: dict[str, list[str]] = {}
    for kind in KINDS:
        tasks = [t for t in requests.of(kind) if t.split != "test"]
        workshop.store.put_tasks(tasks)
        without, with_it = (
            make_context(workshop, tasks, run=run, arm=f"scope:{item.id}@{item.version}:{arm}", seed=0, learning=False)
            for arm in ("without", "with")
        )
        changed[kind] = [t.id for t in tasks if await _changes(without, with_it, memory, item, t)]
    return Scope(item=item, changed=changed, asked={k: len(requests.of(k)) for k in KINDS})


async def confine(
    workshop: Workshop, memory: Memory, item: Reflection, requests: Requests, *, run: str
) -> tuple[Scope, Scope]:
    """Keeps a lesson where it belongs: as it is, narrowed by the boundary, or refused. Gives the first, last finding.

    The operations are logged by the author `scope`, with the finding as their reason.
    """
    first = last = await try_scope(workshop, memory, item, requests, run=run)
    if not last.kept and requests.boundary and requests.boundary not in item.boundary:
        narrowed = item.replace(boundary="; ".join(b for b in (item.boundary, requests.boundary) if b))
        reason = f"narrowed: it {first.words()}"
        await memory.apply([MemoryOp(op="UPDATE", reflection=item.id, item=narrowed, reason=reason, author="scope")])
        last = await try_scope(workshop, memory, memory.preview().items[item.id], requests, run=run)
    op: Literal["NOOP", "RETIRE"] = "NOOP" if last.kept else "RETIRE"
    reason = f"scope test: it {last.words()}"
    await memory.apply([MemoryOp(op=op, reflection=item.id, reason=reason, author="scope")])
    return first, last


async def _changes(without: Context, with_it: Context, memory: Memory, item: Reflection, task: Task) -> bool:
    """Whether the item is found for a request and its answer is another one then."""
    words, k = query(task), without.recipe.memory.k
    believed = await memory.search(words, k)
    found = believed if item.status == "active" else await memory.search(words, k, status="quarantined")
    if item.id not in {r.id for r in found}:
        return False
    others = [r for r in believed if r.id not in (item.id, item.rival)]
    seen = []
    for context, hints in ((without, others), (with_it, [*others, item])):
        sampling = context.sampling(task.id, greedy=True)
        made = await make_attempt(context, unsealed(task), round_=0, hints=hints, sampling=sampling)
        seen.append(_result(await context.observation(made)))
    return seen[0] != seen[1]


def _result(seen: Observation) -> str:
    """What an answer came to: its rows where there are rows, else its words."""
    rows = seen.info.get("rows")
    return repr(sorted(map(repr, rows))) if rows is not None and not seen.info.get("error") else seen.text


__all__ = ["KINDS", "NEAR_ALLOWED", "Kind", "Requests", "Scope", "confine", "read_requests", "try_scope",
           "write_requests"]  # fmt: skip
