"""The memory: an op log in the store, an index derived from it, an embedder, and a retrieval policy.

The parts `exact` and `chroma` are this class over their index. Every search and every write first reads what other
processes have logged, so all writers of one store see one memory. It proposes nothing and judges nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

from verbal.contracts import Embedder, Index
from verbal.errors import StoreError, UnknownName
from verbal.parts import make_part
from verbal.types import MemoryOp, Reflection, Status, Usage

from .candidates import Asked, Candidates, Outcomes
from .log import LogState, embedder_op, replay
from .matrix import ExactIndex
from .policies import make_policy
from .quarantine import quarantined
from .retrieval import KeyWords, full_text
from .shelf import Shelf

if TYPE_CHECKING:
    from verbal.store import Store

_T = TypeVar("_T")
_WRITE_TRIES = 200


@runtime_checkable
class DurableIndex(Index, Protocol):
    """An index that outlives the process, and says what it holds."""

    def state(self) -> dict[str, Any]:
        """What `mark` was last given; empty when new or damaged."""
        ...

    def mark(self, state: dict[str, Any]) -> None:
        """Keeps what the index now holds: embedder, version of the log, digest of the log."""
        ...

    def count(self) -> int:
        """How many vectors it holds."""
        ...

    def clear(self) -> None:
        """Empties it, damaged or not."""
        ...


class ReflectionMemory:
    """Reflections of one name in a store.

    Args:
        store: Where the op log is (the truth).
        index: Vectors to ids; filled from the log here, closed with the memory.
        name: Name of the memory in the store.
        embedder: Name of an embedder part (made without options), or an embedder.
        policy: Which items come first (`memory/policies.py`): `similar`, `recent` (or `last`), `all`, `value`,
            `diverse`, `pareto`, `source_task`.
        policy_options: Options of the policy, such as `{"delta": 0.4}` of `value`.
        scope: `family` takes items of any task, `task` those of the task given to `search` and global ones only.
        token_cap: Most tokens of what one search gives, together; None for no cap.
        min_overlap: Informative words that an item's key (when, title, term) must share with the query, for all
            policies but `recent` and `all`; 0 switches the filter off.
        min_coverage: Share of a term's weight that the query must name, 0 to 1.
        common_words: Words that say nothing here, such as the names of tables.
        quarantine: Whether what is written has to prove itself: an ADD is filed as quarantined, words that would
            replace those of an active item become a quarantined rival, and only a person, credit or a budget may
            retire an active one (`TRUSTED`; anybody else only sends it back to quarantine).
        version: Freezes the memory at this version: later operations are not seen and nothing can be written.

    Raises:
        UnknownName: no such embedder, policy or option of it. ConfigError: an option out of range.
        StoreError: the log or the index cannot be opened.
    """

    def __init__(
        self,
        store: Store,
        index: Index,
        name: str = "main",
        *,
        embedder: str | Embedder = "hashing",
        policy: str = "similar",
        policy_options: Mapping[str, Any] | None = None,
        scope: Literal["family", "task"] = "family",
        token_cap: int | None = 400,
        min_overlap: int = 1,
        min_coverage: float = 0.5,
        common_words: Sequence[str] = (),
        quarantine: bool = False,
        version: int | None = None,
    ) -> None:
        if scope not in ("family", "task"):
            raise UnknownName.of("retrieval scope", scope, ("family", "task"), where=f"memory {name!r}")
        self.name, self._store, self._index = name, store, index
        self._embedder: Embedder = make_part("memory", embedder) if isinstance(embedder, str) else embedder
        self.spend: Callable[[Usage, bool], None] | None = None
        """Told what embedding will use at most (False), which it may refuse by raising, and what it used (True)."""
        self._policy = make_policy(policy, policy_options, where=f"memory {name!r}")
        self._outcomes = Outcomes(store, name)
        self._scope, self._token_cap, self._frozen_at = scope, token_cap, version
        self._quarantine = quarantine
        self._blocking = bool(getattr(index, "blocking", True) or getattr(self._embedder, "blocking", False))
        self._lock = threading.RLock()
        self._log, self._digest, self._stale = LogState(), "", False
        keys = [KeyWords(min_overlap, min_coverage, common_words) for _ in range(2)]
        self._believed, self._on_trial = Shelf("active", index, keys[0]), Shelf("quarantined", ExactIndex(), keys[1])
        try:
            self._open()
        except BaseException:
            index.close()
            raise

    # what the contract asks ---------------------------------------------------------------------------------------

    async def search(
        self,
        query: str,
        k: int,
        *,
        exclude_tasks: Sequence[str] = (),
        status: Status = "active",
        task: str | None = None,
    ) -> list[Reflection]:
        """At most `k` reflections of a standing, best first, ties by id; no words that came from `exclude_tasks`.

        Args:
            query: What it is about, such as the question.
            k: Most items wanted.
            exclude_tasks: Tasks whose lessons must not be shown (leave one task out).
            status: `active`, or `quarantined` for a trial slot.
            task: The task at hand: items of the scope `task` are found for their own task only.
        """
        return await self._run(lambda: self._search(query, k, exclude_tasks, status, task))

    async def apply(self, ops: Sequence[MemoryOp]) -> int:
        """Logs and applies the operations in order; gives the new version. An invalid op is logged as NOOP.

        Words that came from a task of the sealed split `test` never get in: such an op is invalid.
        An ADD without an id gets the next `r<n>`; one with an id that is taken counts as NOOP, so a deterministic id
        makes a repeated write harmless. Vectors are made here.
        """
        return await self._run(lambda: self._apply(list(ops)))

    async def refresh(self) -> int:
        """Reads what other processes have logged; gives the version (search and apply do this by themselves)."""
        return await self._run(self._refresh)

    def preview(self, ops: Sequence[MemoryOp] = ()) -> LogState:
        """The memory as last read, after some operations that are not logged."""
        with self._lock:
            state = self._log.trial()
            for op in ops:
                state.apply(quarantined(op, state.items) if self._quarantine else op)
            return state

    def history(self) -> list[MemoryOp]:
        """Every operation so far, oldest first."""
        return [op for v, op in self._store.ops(self.name) if self._frozen_at is None or v <= self._frozen_at]

    def at(self, version: int) -> dict[str, Reflection]:
        """The memory as it was at `version` (0 is empty), by id, retired items included.

        Raises:
            StoreError: the log has no such version.
        """
        ops = self.history()
        if not 0 <= version <= len(ops):
            raise StoreError(f"memory {self.name!r} has no version {version}", todo=f"give 0 to {len(ops)}")
        return replay(ops[:version])

    def close(self) -> None:
        """Releases the index (the store belongs to whoever made it)."""
        with self._lock:
            self._index.close()

    # what else it can do ------------------------------------------------------------------------------------------

    @property
    def embedder(self) -> str:
        """Name of the embedder."""
        return self._embedder.name

    @property
    def version(self) -> int:
        """The version last read."""
        return self._log.version

    def items(self) -> dict[str, Reflection]:
        """The memory as last read, by id, retired items included, oldest first."""
        with self._lock:
            return dict(self._log.items)

    def verify(self) -> list[str]:
        """Ids of active items that the index does not find by their own vector; empty when it is sound."""
        with self._lock:
            active = sorted(self._log.active())
            lost = []
            for item_id, vector in zip(active, self._vectors(active), strict=True):
                hits = self._index.nearest(vector, 10)
                # Items with equal words have equal vectors, and then any of them may come first.
                if item_id not in dict(hits) and not (hits and hits[-1][1] > 0.9999):
                    lost.append(item_id)
            return lost

    def rebuild(self) -> None:
        """Makes the index anew from the op log."""
        with self._lock:
            self._refill()

    # ---------------------------------------------------------------------------------------------------------------

    def _embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """The vectors of texts, paid for by whoever listens (`spend`): refused before, counted after."""
        price = float(getattr(self._embedder, "price", 0.0))
        # A token is a byte at least; what costs nothing is counted in seconds only.
        tokens = sum(len(t.encode("utf-8", "replace")) for t in texts) if price else 0
        worst = Usage(calls=1 if price else 0, prompt_tokens=tokens, cost=tokens * price / 1e6)
        if self.spend is not None:
            self.spend(worst, False)
        began = time.monotonic()
        vectors = list(self._embedder.embed(texts))
        if self.spend is not None:
            self.spend(worst.replace(seconds=time.monotonic() - began), True)
        return vectors

    async def _run(self, work: Callable[[], _T]) -> _T:
        def locked() -> _T:
            with self._lock:
                return work()

        return await asyncio.to_thread(locked) if self._blocking else locked()

    def _search(
        self, query: str, k: int, exclude_tasks: Sequence[str], status: Status, task: str | None
    ) -> list[Reflection]:
        self._refresh()
        if k <= 0:
            return []
        shelf = self._on_trial if status == "quarantined" else self._believed
        found = Candidates(
            Asked(query, k, exclude_tasks, status, task, self._scope, self._token_cap),
            self._log,
            shelf,
            nearest=self._nearest if shelf is self._believed else shelf.index.nearest,
            vectors=self._vectors,
            embed=self._embed,
            outcomes=self._outcomes,
        )
        return found.together(self._policy(found))

    def _apply(self, ops: list[MemoryOp]) -> int:
        if self._frozen_at is not None:
            raise StoreError(f"memory {self.name!r} is frozen at version {self._frozen_at}", todo="open it without")
        for tried in range(_WRITE_TRIES):
            self._refresh()
            if not ops:
                break
            resolved = self._resolve(ops)
            try:
                self._store.log_ops(self.name, resolved, expect=self._log.version)
            except StoreError:
                # Another writer was faster: its operations are read first, then ours are checked again.
                if tried + 1 == _WRITE_TRIES or not self._store.ops(self.name, after=self._log.version):
                    raise
                continue
            self._refresh()
            break
        return self._log.version

    def _resolve(self, ops: list[MemoryOp]) -> list[MemoryOp]:
        """The operations as they will count at the present version, ids and vectors filled in."""
        if self._quarantine:
            state = self._log.trial()
            ops = [state.apply(quarantined(op, state.items)) for op in ops]
        written = [i for i, op in enumerate(ops) if op.item is not None and op.op in ("ADD", "UPDATE", "MERGE")]
        vectors = self._embed([full_text(item) for i in written if (item := ops[i].item)])
        ops = list(ops)
        for i, vector in zip(written, vectors, strict=True):
            item = ops[i].item
            assert item is not None
            ops[i] = ops[i].replace(item=item.replace(embedding=vector))
        if written and self._log.embedder != self._embedder.name:
            ops.insert(0, embedder_op(self._embedder.name))
        trial = self._log.trial()
        return [trial.apply(op) for op in self._without_sealed(ops)]

    def _without_sealed(self, ops: list[MemoryOp]) -> list[MemoryOp]:
        """The operations; one whose words came from a sealed test task becomes a NOOP that says so."""
        sources = {op.item.task for op in ops if op.item is not None and op.item.task}
        sealed = {i for i, task in self._store.tasks(sorted(sources)).items() if task.split == "test"}
        return [
            MemoryOp(
                op="NOOP", reason=f"{op.op}: task {op.item.task!r} is of the sealed split 'test'", author=op.author
            )
            if op.item is not None and op.item.task in sealed
            else op
            for op in ops
        ]

    def _refresh(self) -> int:
        self._project(self._read())
        return self._log.version

    def _read(self, upto: int | None = None) -> dict[str, None]:
        """Replays what is new in the log; gives the ids whose words or standing changed."""
        changed: dict[str, None] = {}
        ends = [v for v in (self._frozen_at, upto) if v is not None]
        for version, op in self._store.ops(self.name, after=self._log.version):
            if ends and version > min(ends):
                break
            counted = self._log.apply(op)
            told = (self._digest, op.op, op.reflection, *op.others, op.item.text if op.item else "")
            self._digest = hashlib.blake2b("\0".join(told).encode("utf-8", "replace"), digest_size=12).hexdigest()
            if counted.op in ("ADD", "UPDATE", "MERGE", "RETIRE") or counted.tag in ("active", "quarantined"):
                changed.update(dict.fromkeys((counted.reflection, *counted.others)))
        return changed

    def _open(self) -> None:
        durable = self._index if isinstance(self._index, DurableIndex) else None
        held = durable.state() if durable else {}
        # A durable index holds what is believed; what is on trial is filed anew each time.
        self._file(old := self._read(int(held.get("version", 0))))
        tried = [i for i in old if self._log.items[i].status == "quarantined"]
        self._on_trial.index.put(tried, self._vectors(tried))
        sound = durable is None or (held in ({}, self._held()) and durable.count() == len(self._log.active()))
        new = self._read()
        if sound:
            self._project(new)
        else:
            self._file(new)
            self._refill()

    def _project(self, changed: Iterable[str]) -> None:
        """Brings what is derived from the log up to date for some ids."""
        if not (changed := list(changed)):
            return
        self._file(changed)
        shown = [i for i in changed if self._log.items[i].status == "active"]
        tried = [i for i in changed if self._log.items[i].status == "quarantined"]
        self._on_trial.index.drop([i for i in changed if self._log.items[i].status != "quarantined"])
        self._on_trial.index.put(tried, self._vectors(tried))
        try:
            self._index.drop([i for i in changed if self._log.items[i].status != "active"])
            self._index.put(shown, self._vectors(shown))
            self._mark()
        except StoreError:
            # The log has the operations, so nothing is lost: the next search makes the index anew, or says why not.
            self._stale = True

    def _file(self, changed: Iterable[str]) -> None:
        for shelf in (self._believed, self._on_trial):
            shelf.file(self._log.items[i] for i in changed)

    def _refill(self) -> None:
        self._stale = True  # until all of it is done
        if isinstance(self._index, DurableIndex):
            self._index.clear()
        else:
            self._index.drop(list(self._log.items))
        active = list(self._log.active())
        self._index.put(active, self._vectors(active))
        self._mark()
        self._stale = False

    def _nearest(self, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        if self._stale:
            self._refill()
        try:
            return self._index.nearest(vector, k)
        except StoreError:
            self._refill()
            return self._index.nearest(vector, k)

    def _vectors(self, ids: Sequence[str]) -> list[tuple[float, ...]]:
        """The logged vectors; items that another embedder filed are embedded again, in memory only."""
        found = {i: self._log.items[i].embedding for i in ids if self._log.embedded_by[i] == self._embedder.name}
        foreign = [i for i in ids if len(found.get(i, ())) != self._embedder.dimension]
        made = self._embed([full_text(self._log.items[i]) for i in foreign]) if foreign else []
        found.update(zip(foreign, made, strict=True))
        return [found[i] for i in ids]

    def _mark(self) -> None:
        if isinstance(self._index, DurableIndex):
            self._index.mark(self._held())

    def _held(self) -> dict[str, Any]:
        return {"embedder": self._embedder.name, "version": self._log.version, "digest": self._digest}
