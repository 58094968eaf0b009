"""What a person says of an answer, as evidence: outcomes, lessons in their words, and the way back.

The assistant of databases and the chat agent share these rules. What is kept of an answer is a plain dict (`Record`)
with `id`, `corrections` (each with `id`, `outcome`, `ops` as plain dicts, and `undone` when it was taken back) and
`counts`, the VALUE operations by which the answer counts now. An outcome counts once for an answer; who changes their
mind takes the first outcome back; the log of a memory only grows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from verbal.contracts import Credit, Curator
from verbal.errors import DataError
from verbal.parts import load_function, make_part
from verbal.store import Store
from verbal.types import Attempt, Counters, Feedback, MemoryOp, Reflection

Record = dict[str, Any]
"""What is kept of an answer."""
USER = "user"
"""Author of what a person said."""
LONGEST = 400
"""Characters of a person's words."""
_ADDRESS = re.compile(
    r"\b(?:https?://|www\.)\S+|\S+@\S+\.\w+|\b[\w-]+\.(?:com|net|org|io|example|de|info|biz)\b|"
    r"\b(?:passwords?|passwor[dt]|pin|iban|credentials?|credit cards?|bank accounts?|api[ _-]?keys?)\b|"
    r"\+\d[\d ()/-]{7,}|\b\d{10,}\b",
    re.IGNORECASE,
)
"""What a poisoned lesson would send others to, or ask them for."""
_LEAD = re.compile(r"^\s*(no|nope|wrong|not quite|incorrect)\s*[:,;.!-]+\s*", re.IGNORECASE)


def open_trials(store: Store, name: str, options: Mapping[str, Any] | None = None) -> Any:
    """The memory of that name, in quarantine and without files: the part `exact`."""
    given = {k: v for k, v in (options or {}).items() if k not in ("name", "folder", "server", "version")}
    return make_part("memory", "exact", store=store, **{**given, "name": name, "quarantine": True})


def counted(ops: Iterable[Record]) -> list[Record]:
    """The outcomes among logged operations, without those that balance an earlier one."""
    return [op for op in ops if op["op"] == "VALUE" and op["author"] != USER]


def standing(record: Record) -> Record | None:
    """What was said of an answer last and not taken back."""
    return next((made for made in reversed(record["corrections"]) if "undone" not in made), None)


async def outcome_ops(
    memory: Any,
    credit: Credit | None,
    record: Record,
    attempt: str,
    offered: Mapping[str, float],
    shown: Collection[str],
    outcome: float,
) -> list[MemoryOp]:
    """VALUE operations for what was offered to an answer; an earlier, other outcome is taken back first, an equal one
    is not counted again.
    """
    was = record.get("counts") or ()
    if credit is None or memory is None or not offered or (was and was[0]["outcome"] == outcome):
        return []
    await memory.refresh()
    why = f"{record['id']}.{len(record['corrections']) + 1}"
    ops = [back for op in was if (back := inverse(op, memory.items(), why)) is not None]
    again = f"#{len(record['corrections']) + 1}" if record["corrections"] else ""
    values = credit.observe(f"{attempt}{again}", offered, shown, outcome, memory.preview(ops))
    reason = f"{'right' if outcome else 'wrong'}, said the user of answer {record['id']}"
    return [*ops, *(op.replace(reason=reason) for op in values)]


async def lesson_ops(
    memory: Any, curator: Curator, lesson: Reflection, answer_id: str, *, todo: str = ""
) -> list[MemoryOp]:
    """The operations that file a lesson, as the curator proposes them; in the person's name where words are written.

    Raises:
        DataError: it is empty, too long, holds a secret, or speaks to the model.
    """
    check_lesson(lesson, todo=todo)
    await memory.refresh()
    proposed = await curator.propose([lesson], list(memory.items().values()))
    reason = f"said by the user of answer {answer_id}"
    return [
        op.replace(author=USER, reason=f"{reason}{f': {op.reason}' if op.reason else ''}") if op.item or op.op == "NOOP"
        else op
        for op in proposed
    ]  # fmt: skip


def check_lesson(lesson: Reflection, *, todo: str = "") -> None:
    """Refuses a lesson that must not be kept.

    Raises:
        DataError: it is empty, too long, holds a secret, or speaks to the model rather than of the data.
    """
    if not re.search(r"\w", lesson.text):
        raise DataError("a correction without words", todo="say what should have been known")
    if len(lesson.text) > LONGEST:
        brief = "say it in a sentence or two, or give several corrections"
        raise DataError(f"a correction of {len(lesson.text):,} characters, at most {LONGEST}", todo=brief)
    told = "\n".join((lesson.text, lesson.when, lesson.boundary, lesson.title))
    if kinds := sorted({s.kind for s in load_function("memory", "leaks", "find_secrets")(told)}):
        what = f"the correction seems to hold a secret ({', '.join(kinds)}); nothing was kept"
        raise DataError(what, todo="leave keys, passwords and personal data out and say it again")
    if why := load_function("memory", "screening", "instruction")(lesson):
        say = todo or "say what is known of the data, and no more"
        raise DataError(f"the correction was not taken: {why}", todo=say)


def check_for_others(lesson: Reflection) -> None:
    """Refuses a lesson for others that names an address, an account or a password.

    Raises:
        DataError: it does.
    """
    if found := _ADDRESS.search(f"{lesson.text} {lesson.when} {lesson.boundary}"):
        what = f"{found[0][:60]!r} goes to nobody else: a lesson for others says how to answer, and no more"
        raise DataError(what, todo="say it without addresses, accounts and passwords, or ask an admin")


async def write(store: Store, memory: Any, credit: Credit | None, ops: Sequence[MemoryOp]) -> list[dict[str, Any]]:
    """Applies operations and what credit settles after them; gives those that counted, as they are in the log."""
    if memory is None or not ops:
        return []
    known = memory.items()
    settled = credit.settle(memory.preview(ops)) if credit is not None and any(o.op == "VALUE" for o in ops) else []
    wanted = [*ops, *(op for op in settled if op.reflection in known)]
    before = memory.version
    await memory.apply(wanted)
    # Another writer may have been between: ours are told by what they do and by their reason.
    marks = {(op.op, op.reason) for op in wanted}
    return [op.to_dict() for _, op in store.ops(memory.name, before) if op.op != "NOOP" and (op.op, op.reason) in marks]


def filed(memory: Any, proposed: Sequence[MemoryOp], logged: Sequence[dict[str, Any]]) -> Reflection | None:
    """The item that a lesson became, or that it was known as."""
    new = [op["reflection"] for op in logged if op["op"] in ("ADD", "UPDATE", "MERGE") and op["author"] == USER]
    known = [op.reflection for op in proposed if op.op == "NOOP" and op.reflection]
    items = memory.items()
    return next((items[i] for i in (*new, *known) if i in items), None)


def undo_ops(
    record: Record, made: Record, items: Mapping[str, Reflection]
) -> tuple[list[MemoryOp], list[dict[str, Any]]]:
    """What takes a correction back, and the VALUE operations by which its answer counts then."""
    counts: list[dict[str, Any]] = list(record.get("counts") or ())
    others = [c for c in record["corrections"] if "undone" not in c and c["id"] != made["id"]]
    outcome, ops = others[-1]["outcome"] if others else None, list[MemoryOp]()
    if counts and counts[0]["outcome"] != outcome:
        ops = [back for op in counts if (back := inverse(op, items, made["id"])) is not None]
        same = [o for c in record["corrections"] if (o := counted(c["ops"])) and o[0]["outcome"] == outcome]
        again = [MemoryOp.from_dict(dict(op)) for op in (same[-1] if same else ())]
        fields = {"reason": f"counts again: {made['id']} was taken back by the user", "author": USER}
        again = [
            op.replace(attempt=f"{op.attempt}#{made['id']}+", **fields) for op in again
            if op.reflection in items and items[op.reflection].status != "retired"
        ]  # fmt: skip
        ops, counts = [*ops, *again], [op.to_dict() for op in again]
    rest = (inverse(op, items, made["id"]) for op in reversed(made["ops"]) if op["op"] != "VALUE")
    return [*ops, *(op for op in rest if op is not None)], counts


def inverse(plain: Mapping[str, Any], items: Mapping[str, Reflection], why: str) -> MemoryOp | None:
    """The operation that takes another one back, or None where nothing is left to take back."""
    op = MemoryOp.from_dict(dict(plain))
    reason, item = f"taken back by the user ({why})", items.get(op.reflection)
    if item is None:
        return None
    if op.op == "RETIRE":
        back = item.replace(id="", status="quarantined", value=None, counters=Counters())
        return MemoryOp(op="ADD", item=back, reason=f"{reason}: {item.id} again", author=USER)
    if item.status == "retired":
        return None
    if op.op == "ADD":
        return MemoryOp(op="RETIRE", reflection=item.id, reason=reason, author=USER)
    if op.op == "VALUE" and op.outcome is not None:
        return MemoryOp(
            op="VALUE", reflection=item.id, delta=-op.delta, attempt=op.attempt, reason=reason, author=USER
        )  # fmt: skip
    if op.op == "TAG" and op.tag in ("active", "quarantined"):
        other = "quarantined" if op.tag == "active" else "active"
        return MemoryOp.from_dict({"op": "TAG", "reflection": item.id, "tag": other, "reason": reason, "author": USER})
    return None


def own_words(text: str) -> str:
    """A person's words without the `no:` before them.

    >>> own_words("no: revenue excludes returns")
    'revenue excludes returns'
    """
    return " ".join(_LEAD.sub("", text, count=1).split())


def said(attempt: Attempt, **fields: Any) -> Feedback:
    """Feedback of the person who asked."""
    if fields.get("value") is None:
        fields.setdefault("reason", "the user gave words only")
    return Feedback(attempt=attempt.id, critic=USER, source="user", **fields)


__all__ = [
    "LONGEST", "USER", "Record", "check_for_others", "check_lesson", "counted", "filed", "inverse", "lesson_ops",
    "open_trials", "outcome_ops", "own_words", "said", "standing", "undo_ops", "write",
]  # fmt: skip
