"""`POST /v1/feedback`: what a client says of a response. It mirrors `gen_ai.evaluation.result` of OpenTelemetry.

    {"id": "chatcmpl-...", "score": 1, "label": "good", "text": "short and right", "name": "user"}

Rules:

* `id` is the id of a response that this gateway gave to the same project. One that is still in the queue is waited for.
* `score` is from 0 to 1, or true or false. A `label` such as `good` or `bad` is a score where none is given; any other
  is kept as words. `text` is words. `name` tells several judgements of one response apart; a second one of the same
  name replaces the first.
* The outcome of a response is the mean of its scores. It counts once for each lesson that was offered there, at the
  chance it had of being shown (as in the loop); when it changes, the earlier one is taken back first. A
  memory that stands still (pinned, adopted) is not credited. Whoever has a key of the project is believed.
* What is said is kept without secrets, as Feedback of the source `user`. Each change of mind is appended to the
  attempt, with the operations that count from then on; the log of the memory only grows.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from verbal.parts import make_part
from verbal.types import Attempt, Feedback, MemoryOp, Step

from .capture import StoreCapture
from .exchange import CALLER, Caller
from .kept import META, Cleaner, run_of
from .memories import Memories
from .refusal import Refusal, received

GOOD = ("good", "up", "pass", "passed", "correct", "right", "yes", "positive", "relevant", "thumbs_up", "accept")
"""Labels that mean a score of 1."""
BAD = ("bad", "down", "fail", "failed", "incorrect", "wrong", "no", "negative", "irrelevant", "thumbs_down", "reject")
"""Labels that mean a score of 0."""
USER = "user"
"""Name of a judgement that has none, and author of what a person said."""
LONGEST = 4000
"""Characters of the words."""
_FIELDS = ("id", "score", "label", "text", "name")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WAIT = 1.0
"""Seconds in which a response must have got from the queue into the store."""
_GRACE = 0.2
"""Seconds in which an id that nobody knows may still come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a client says of a response."""

    id: str
    score: float | None = None
    label: str = ""
    text: str = ""
    name: str = USER


class FeedbackDoor:
    """Takes feedback and credits lessons.

    Args:
        memories: Where memories are opened; its store is the one that is captured into.
        listeners: Called with the attempt, the feedback and what the gateway knows of the attempt.
    """

    def __init__(
        self,
        memories: Memories,
        *,
        listeners: Sequence[Callable[[Attempt, Feedback, str, Mapping[str, Any]], None]] = (),
    ) -> None:
        self._memories, self._listeners, self._clean = memories, tuple(listeners), Cleaner()
        self._credit: dict[str, Any] = {}
        self._one = asyncio.Lock()
        self.capture: StoreCapture | None = None
        """The capture whose queue is waited for."""

    def routes(self) -> list[web.RouteDef]:
        """Its path."""
        return [web.post("/v1/feedback", self._posted)]

    async def _posted(self, request: web.Request) -> web.Response:
        caller: Caller = request.get(CALLER) or Caller()
        return web.json_response(await self.give(caller, read_feedback(await received(request))))

    async def give(self, caller: Caller, said: Said) -> dict[str, Any]:
        """Keeps feedback and gives what became of it: id, name, score, replaced, outcome, credited.

        Raises:
            Refusal: no such response of the caller's project (404).
        """
        attempt = await self._found(caller, said.id)
        if attempt is None:
            recent = self.capture.recent(caller.project) if self.capture is not None else []
            what = f"no response {said.id[:80]!r} is known for project {caller.project!r}"
            todo = f"give the id of a response; the latest are {', '.join(recent)}" if recent else "give its id"
            raise Refusal(404, f"{what}. To do: {todo}", param="id", code="response_not_found")
        async with self._one:  # an outcome depends on what was said before
            return await self._memories.run(lambda: self._keep(attempt, said))

    async def _found(self, caller: Caller, id: str) -> Attempt | None:
        store, clock = self._memories.store, asyncio.get_running_loop().time
        began = clock()
        while True:
            waits = self.capture is not None and self.capture.waits(id, caller.project)
            found = await asyncio.to_thread(store.attempt, id)
            if found is not None and found.run == run_of(caller.project):
                return found
            # A client that reads the last piece of a stream may be here before the exchange is in the queue.
            if clock() - began > (_WAIT if waits else _GRACE):
                return None
            await asyncio.sleep(0.02)

    async def _keep(self, attempt: Attempt, said: Said) -> dict[str, Any]:
        store = self._memories.store
        feedback = self._feedback(attempt, said)
        before = {f.critic: f for f in store.feedback([attempt.id])[attempt.id] if f.source == "user"}
        now = {**before, feedback.critic: feedback}
        scores = [f.value for f in now.values() if f.value is not None]
        outcome = sum(scores) / len(scores) if scores else None
        past, meta = _past(store, attempt.id), _meta(store, attempt.id)
        counts = [MemoryOp.from_dict(dict(op)) for op in (past[-1]["counts"] if past else ())]
        was = counts[0].outcome if counts else None
        if outcome != was:  # an outcome that is applied twice counts once: after a crash in between, all is well
            counts = await self._count(attempt, str(meta.get("memory", "")), outcome, counts, len(past))
        store.put_feedback([feedback])
        if before.get(feedback.critic) != feedback or outcome != was:
            record = {
                "name": said.name, "score": feedback.value, "text": feedback.text, "outcome": outcome,
                "counts": [op.to_dict() for op in counts],
            }  # fmt: skip
            step = Step(author="user", role="gateway", text=json.dumps(record, sort_keys=True))
            store.put_step(attempt.id, f"feedback:{len(past)}", step)
        for listener in self._listeners:
            listener(attempt, feedback, said.label, meta)
        return {
            "id": attempt.id, "object": "feedback", "name": said.name, "score": feedback.value,
            "label": said.label or None, "replaced": feedback.critic in before, "outcome": outcome,
            "memory": meta.get("memory") or None, "credited": [op.reflection for op in counts],
        }  # fmt: skip

    def _feedback(self, attempt: Attempt, said: Said) -> Feedback:
        value, label = said.score, said.label
        if value is None and label.lower() in (*GOOD, *BAD):
            value = float(label.lower() in GOOD)
        words = ": ".join(t for t in (label, said.text) if t)
        critic = USER if said.name == USER else f"{USER}:{said.name}"
        reason = "" if value is not None else "the user gave words only"
        return Feedback(
            attempt=attempt.id, critic=critic, value=value, text=self._clean(words), source="user", reason=reason
        )

    async def _count(
        self, attempt: Attempt, name: str, outcome: float | None, counted: Sequence[MemoryOp], number: int
    ) -> list[MemoryOp]:
        """Takes back how an attempt counted, and counts it anew; gives the operations that count from now on."""
        offered = attempt.steps[0].offered if attempt.steps else {}
        found = self._memories.find(name) if offered and name else None
        if found is None:
            return []
        memory, credit = found[0], self._credit.setdefault(name, make_part("memory", "credit"))
        await memory.refresh()
        items, said = memory.items(), f"said the user of response {attempt.id}"
        back = [
            MemoryOp(
                op="VALUE", reflection=op.reflection, delta=-op.delta, attempt=op.attempt, author=USER,
                reason=f"taken back, {said}",
            )
            for op in counted if op.reflection in items and items[op.reflection].status != "retired"
        ]  # fmt: skip
        new: list[MemoryOp] = []
        if outcome is not None:
            own = f"{attempt.id}#{number}+" if number else attempt.id
            new = credit.observe(own, offered, attempt.steps[0].shown, outcome, memory.preview(back))
            new = [op.replace(reason=f"outcome {outcome:g}, {said}") for op in new]
        settled = credit.settle(memory.preview([*back, *new])) if new else []
        await memory.apply([*back, *new, *settled])
        return new


def read_feedback(raw: bytes) -> Said:
    """The feedback in a body.

    Raises:
        Refusal: not JSON, a field that is wrong or unknown, or nothing that is said (400).
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the body is a JSON object with id, and score, label or text")
    if unknown := sorted(set(body) - set(_FIELDS)):
        what = f"unknown field {unknown[0][:80]!r}; known: {', '.join(_FIELDS)}"
        raise Refusal(400, what, param=unknown[0][:80])
    texts = {name: _text(body, name) for name in ("id", "label", "text", "name")}
    if not texts["id"]:
        raise Refusal(400, "id is missing: the id of the response", param="id")
    if texts["name"] and not _NAME.fullmatch(texts["name"]):
        raise Refusal(400, "name is up to 64 letters, digits, dots, dashes and underscores", param="name")
    score = body.get("score")
    if isinstance(score, bool):
        score = float(score)
    if score is not None and not (isinstance(score, int | float) and 0 <= score <= 1):
        raise Refusal(400, f"score is a number from 0 to 1, found {str(score)[:40]!r}", param="score")
    if score is None and not texts["label"] and not texts["text"]:
        raise Refusal(400, "nothing is said: give score, label or text", param="score")
    return Said(
        id=texts["id"], score=None if score is None else float(score), label=texts["label"], text=texts["text"],
        name=texts["name"] or USER,
    )  # fmt: skip


def _text(body: Mapping[str, Any], name: str) -> str:
    value, most = body.get(name), LONGEST if name == "text" else 200
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise Refusal(400, f"{name} is a text of at most {most:,} characters", param=name)
    return value.strip()


def _past(store: Any, attempt: str) -> list[dict[str, Any]]:
    """How an attempt counted after each time that changed it, oldest first."""
    found: list[dict[str, Any]] = []
    while (step := store.step(attempt, f"feedback:{len(found)}")) is not None:
        found.append(json.loads(step.text))
    return found


def _meta(store: Any, attempt: str) -> dict[str, Any]:
    step = store.step(attempt, META)
    found: dict[str, Any] = json.loads(step.text) if step is not None else {}
    return found


__all__ = ["BAD", "GOOD", "LONGEST", "USER", "FeedbackDoor", "Said", "read_feedback"]
