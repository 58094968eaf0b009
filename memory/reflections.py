"""The memory: an op log in the store, an index derived from it, an embedder, and a retrieval policy.

The parts `exact` and `chroma` are this class over their index. Every search and every write first reads what other
processes have logged, so all writers of one store see one memory. It proposes nothing and judges nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from verbal.contracts import Embedder, Index
from verbal.errors import ConfigError, StoreError, UnknownName
from verbal.types import MemoryOp, Reflection, Status, Usage

from .candidates import Asked, Candidates, Outcomes
from .log import LogState, embedder_op, replay
from .policies import make_policy
from .projection import DurableIndex, Projection
from .quarantine import quarantined
from .retrieval import KeyWords, full_text
from .vectors import Rows, Vectors

if TYPE_CHECKING:
    from verbal.store import Store

_T = TypeVar("_T")
_WRITE_TRIES = 200


class ReflectionMemory(Projection):
    """Reflections of one name in a store.

    Args:
        store: Where the op log is (the truth).
        index: Vectors to ids; filled from the log here, closed with the memory.
        name: Name of the memory in the store.
        embedder: What makes its vectors, as `make_embedder` takes it. A memory has one: see `reembed`.
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
        reembed: Whether a memory that was made with another embedder is embedded anew with this one, see `rebuild`.

    Raises:
        UnknownName: no such embedder, policy or option of it. ConfigError: an option out of range.
        StoreError: the log or the index cannot be opened, or the memory was made with another embedder.
    """

    def __init__(
        self,
        store: Store,
        index: Index,
        name: str = "main",
        *,
        embedder: str | Mapping[str, Any] | Embedder = "hashing",
        policy: str = "similar",
        policy_options: Mapping[str, Any] | None = None,
        scope: Literal["family", "task"] = "family",
        token_cap: int | None = 400,
        min_overlap: int = 1,
        min_coverage: float = 0.5,
        common_words: Sequence[str] = (),
        quarantine: bool = False,
        version: int | None = None,
        reembed: bool = False,
    ) -> None:
        if scope not in ("family", "task"):
            raise UnknownName.of("retrieval scope", scope, ("family", "task"), where=f"memory {name!r}")
        if token_cap is not None and (not isinstance(token_cap, int) or isinstance(token_cap, bool) or token_cap < 0):
            todo = "give a number of tokens, or leave it out for 400"
            raise ConfigError(f"token_cap is {token_cap!r}", where=f"memory {name!r}", todo=todo)
        keys = [KeyWords(min_overlap, min_coverage, common_words) for _ in range(2)]
        made = Vectors(store, name, embedder)
        super().__init__(store, name, index, made, (keys[0], keys[1]), version)
        self._policy = make_policy(policy, policy_options, where=f"memory {name!r}")
        self._outcomes = Outcomes(store, name)
        self._scope, self._token_cap, self._quarantine = scope, token_cap, quarantine
        self._blocking = bool(getattr(index, "blocking", True) or made.blocking)
        self._quick = bool(getattr(index, "quick", False) and not made.blocking)
        try:
            if reembed and version is None:
                self._read()
                if self._log.embedder not in ("", made.name):
                    self._reembed(made)
                self._log, self._digest = LogState(), ""
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
        return await self._quickly(lambda: self._search(query, k, exclude_tasks, status, task))

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
            state = self._log.copy()
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
        return self._made.name

    @property
    def spend(self) -> Callable[[Usage, bool], None] | None:
        """Told what embedding will use at most (False), which it may refuse by raising, and what it used (True)."""
        return self._made.spend

    @spend.setter
    def spend(self, listener: Callable[[Usage, bool], None] | None) -> None:
        """Sets who is told."""
        self._made.spend = listener

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
            active = sorted(self._believed.ids)
            vectors = self._vectors(active)
            sure, lost = self._sure(active, vectors), []
            for item_id, vector in zip(active, vectors, strict=True):
                if item_id in sure:
                    continue
                hits = self._index.nearest(vector, 10)
                # Items with equal words have equal vectors, and then any of them may come first.
                if item_id not in dict(hits) and not (hits and hits[-1][1] > 0.9999):
                    lost.append(item_id)
            return lost

    def rebuild(self, embedder: str | Mapping[str, Any] | Embedder | None = None) -> None:
        """Makes the index anew from the store.

        Args:
            embedder: Embeds every item that is not retired anew with this one first; the change is logged, and from
                there on the memory is that embedder's. Its earlier versions can still be opened with the earlier one.

        Raises:
            StoreError: the memory is frozen. ModelError: the embedder failed; nothing was changed then.
        """
        with self._lock:
            if embedder is not None:
                made = Vectors(self._store, self.name, embedder)
                made.spend = self.spend
                self._read()
                self._reembed(made)
                self._on_trial.index.drop(list(self._log.items))  # vectors of two lengths do not lie in one index
                self._try(self._on_trial.ids)
            self._refill()

    # ---------------------------------------------------------------------------------------------------------------

    def _sure(self, ids: Sequence[str], vectors: Rows) -> set[str]:
        """What an index that answers many questions at once finds; the others are looked for one by one."""
        many = getattr(self._index, "sure", None)
        return set() if many is None else set(many(ids, vectors))

    def _embed(self, texts: Sequence[str]) -> Rows:
        return self._made.make(texts)

    def _reembed(self, made: Vectors) -> None:
        """Embeds all that is alive with another embedder, and logs it; the log was read before."""
        self._may_write()
        for tried in range(_WRITE_TRIES):
            alive = [item for item in self._log.items.values() if item.status != "retired"]
            rows = made.make([full_text(item) for item in alive])
            vectors = made.stored([self._log.written[item.id] for item in alive], rows)
            try:
                self._store.log_ops(self.name, [embedder_op(made.name)], expect=self._log.version, vectors=vectors)
            except StoreError:
                if tried + 1 == _WRITE_TRIES or not self._store.ops(self.name, after=self._log.version):
                    raise
                self._file(self._read())
                continue
            break
        self._made, self._outcomes = made, Outcomes(self._store, self.name)
        self._blocking, self._quick = self._blocking or made.blocking, self._quick and not made.blocking
        self._file(self._read())

    def _may_write(self) -> None:
        if self._frozen_at is not None:
            raise StoreError(f"memory {self.name!r} is frozen at version {self._frozen_at}", todo="open it without")

    async def _quickly(self, work: Callable[[], _T]) -> _T:
        """As `_run`, but here and now where nothing is waited for: changing threads takes as long as half a search."""
        if self._quick and not self._stale and self._lock.acquire(blocking=False):
            try:
                return work()
            finally:
                self._lock.release()
        return await self._run(work)

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
            ask=self._made.asked,
            outcomes=self._outcomes,
        )
        return found.together(self._policy(found))

    def _apply(self, ops: list[MemoryOp]) -> int:
        self._may_write()
        made: dict[str, Sequence[float]] = {}
        for tried in range(_WRITE_TRIES):
            self._refresh()
            if not ops:
                break
            resolved = self._resolve(ops)
            written = {
                self._log.version + i: full_text(op.item)
                for i, op in enumerate(resolved, 1)
                if op.item is not None and op.op in ("ADD", "UPDATE", "MERGE")
            }
            new = [text for text in dict.fromkeys(written.values()) if text not in made]
            made.update(zip(new, self._embed(new), strict=True))
            vectors = self._made.stored(list(written), [made[text] for text in written.values()])
            try:
                self._store.log_ops(self.name, resolved, expect=self._log.version, vectors=vectors)
            except StoreError:
                # Another writer was faster: its operations are read first, then ours are checked again.
                if tried + 1 == _WRITE_TRIES or not self._store.ops(self.name, after=self._log.version):
                    raise
                continue
            self._refresh()
            break
        return self._log.version

    def _resolve(self, ops: list[MemoryOp]) -> list[MemoryOp]:
        """The operations as they will count at the present version, ids filled in."""
        trial, resolved = self._log.trial(), list[MemoryOp]()
        sealed = self._store.sealed({op.item.task for op in ops if op.item is not None and op.item.task})
        for op in ops:
            if self._quarantine:
                op = quarantined(op, trial.items)
            if op.item is not None and op.item.task in sealed:
                why = f"{op.op}: task {op.item.task!r} is of the sealed split 'test'"
                op = MemoryOp(op="NOOP", reason=why, author=op.author)
            elif op.item is not None and op.item.embedding:
                op = op.replace(item=op.item.replace(embedding=()))  # vectors are made here
            resolved.append(trial.apply(op))
        if self._log.embedder != self._made.name and any(op.op in ("ADD", "UPDATE", "MERGE") for op in resolved):
            resolved.insert(0, embedder_op(self._made.name))
        return resolved


__all__ = ["DurableIndex", "ReflectionMemory"]
