"""The replay cache: every reply is recorded under what was asked, so that no reply is paid twice and any run repeats.

The key of a reply is a hash of model, messages, tools, sampling parameters, sample index and seed (`Request`): without
the index K samples would collapse into one. `record` looks first and records what it has to ask for; `replay` answers
from the recording or fails loudly, naming the first field that differs, and never opens a connection; `off` neither
looks nor records. Beside each reply its request is kept in short form: digests, lengths and first words.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from verbal import errors
from verbal.contracts import Model, Reply, Sampling
from verbal.errors import ConfigError, ModelError, ReplayMiss
from verbal.types import Message, ToolCall, Usage

if TYPE_CHECKING:
    from verbal.store import Store

Mode = Literal["record", "replay", "off"]
"""What a run does with recorded replies."""
_HASHED = 2**26


@dataclass(frozen=True, slots=True)
class Request:
    """What one sampled reply depends on."""

    key: str
    """Hash of `text`: 32 hex digits, equal for equal requests in any process."""
    text: str
    """JSON: model, fingerprint, messages in short form, sampling, sample index."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A reply, or the error that stood in its place, as the store keeps it."""

    key: str
    model: str
    request: str
    reply: str

    @property
    def row(self) -> dict[str, str]:
        """The row of the store."""
        return dataclasses.asdict(self)


class Cache:
    """The recorded replies of a store, as one run sees them.

    Args:
        store: Where replies are recorded, and which of them this run used.
        run: The run.
        mode: `record`, `replay` or `off`.
        source: Where a replay reads; the store itself when not given.

    Raises:
        ConfigError: there is no such mode.
    """

    def __init__(
        self, store: Store | None = None, run: str = "", *, mode: Mode = "record", source: Store | None = None
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(f"no cache mode is named {mode!r}", todo=f"one of: {', '.join(get_args(Mode))}")
        self.mode: Mode = mode if store is not None else "off"
        self.hits = 0
        """Replies given from the recording so far."""
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._store, self._run, self._source = store, run, source or store

    def find(self, requests: Sequence[Request], role: str) -> dict[int, Reply]:
        """The recorded replies among `requests`, by position. A recorded error is one only in a replay.

        Raises:
            ReplayMiss: a replay asks for what was never recorded. ModelError: what was recorded is this error.
        """
        if self.mode == "off" or self._source is None or self._store is None:
            return {}
        found: dict[int, Reply] = {}
        for at, request in enumerate(requests):
            text = self._source.reply(request.key)
            data = json.loads(text) if text is not None else None
            if self.mode == "replay":
                if text is None or data is None:
                    raise self._miss(request)
                row = Recorded(request.key, json.loads(request.text)["model"], request.text, text)
                with self._store.transaction():
                    self._store.put_replies([row.row])
                    self._store.use_reply(self._run, request.key, role)
                if "error" in data:
                    raise _read_error(data["error"])
            elif data is not None and "error" not in data:
                self._store.use_reply(self._run, request.key, role)
            else:
                continue
            found[at] = _read_reply(data)
        self.hits += len(found)
        return found

    @asynccontextmanager
    async def alone(self, requests: Sequence[Request]) -> AsyncIterator[None]:
        """Lets equal requests of this process wait for each other, so that the second finds the first one's reply."""
        if self.mode != "record" or not requests:
            yield
            return
        key = requests[0].key
        while (other := self._under_way.get(key)) is not None:
            await asyncio.wait([other])
        mine = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._under_way[key]
            mine.set_result(None)

    def first(self, requests: Sequence[Request], replies: Sequence[Reply]) -> list[Reply]:
        """The replies as they stand in the recording: of two equal calls under way at once, the first answer counts."""
        if self.mode != "record" or self._source is None:
            return list(replies)
        texts = [self._source.reply(r.key) for r in requests]
        return [
            r if t is None or t == recorded(q, r.model, r).reply else _read_reply(json.loads(t))
            for q, r, t in zip(requests, replies, texts, strict=True)
        ]

    def _miss(self, request: Request) -> ReplayMiss:
        asked = json.loads(request.text)
        assert self._source is not None
        nearest, equal = "", -1
        for _, text in self._source.nearest_requests(asked["model"]):
            count = len(_fields(asked).items() & _fields(json.loads(text)).items())
            nearest, equal = (text, count) if count > equal else (nearest, equal)
        if not nearest:
            differs = f"no call to {asked['model']} was recorded"
        else:
            ours, theirs = _fields(asked), _fields(json.loads(nearest))
            field = next(k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k))
            differs = f"{field} differs: recorded {theirs.get(field)}, asked {ours.get(field)}"
        return ReplayMiss(
            f"this call was never recorded; {differs}",
            where=f"run {self._run!r}, {asked['model']}, sample {asked['sample']}",
            todo="replay with the code, prompts and data of the recording, or run again with --cache record",
        )


def requests_of(model: str, fingerprint: str, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Request]:
    """What `n` samples of one conversation depend on.

    Args:
        model: `provider/model`.
        fingerprint: Tells apart what has one name: a digest of weights, a URL, options of the adapter.
        messages: The conversation.
        n: Number of samples, index 0 first.
        sampling: How the model samples; its seed and tools are part of the key.
    """
    settings = {f.name: getattr(sampling, f.name) for f in dataclasses.fields(sampling)}
    if sampling.temperature is not None:
        settings["temperature"] = float(sampling.temperature)
    settings["tools"] = _digest(json.dumps([dict(t) for t in sampling.tools], sort_keys=True)) if sampling.tools else ""
    said = [[m.role, len(m.content), _digest(m.to_json()), " ".join(m.content[:60].split())] for m in messages]
    head = json.dumps([model, fingerprint, said, settings], ensure_ascii=True)
    digest = hashlib.sha256(head.encode())
    made = []
    for sample in range(n):
        own = digest.copy()
        own.update(f"/{sample}".encode())
        fields = {"model": model, "fingerprint": fingerprint, "messages": said, "sampling": settings, "sample": sample}
        made.append(Request(own.hexdigest()[:32], json.dumps(fields, ensure_ascii=True)))
    return made


def recorded(request: Request, model: str, outcome: Reply | ModelError) -> Recorded:
    """The record of what a request gave: its reply, or the error that trying again would not mend."""
    if isinstance(outcome, ModelError):
        said = {"kind": type(outcome).__name__, "what": outcome.what, "where": outcome.where, "todo": outcome.todo}
        return Recorded(request.key, model, request.text, json.dumps({"error": said}))
    data = {f.name: getattr(outcome, f.name) for f in dataclasses.fields(outcome)}
    data["usage"], data["tool_calls"] = outcome.usage.to_dict(), [c.to_dict() for c in outcome.tool_calls]
    return Recorded(request.key, model, request.text, json.dumps(data))


def fingerprint_of(model: Model, options: Mapping[str, Any] | None = None) -> str:
    """What tells models of one name apart: their own `fingerprint` (weights), the URL, the adapter's options."""
    parts = [getattr(model, "fingerprint", ""), getattr(model, "url", None) or "", dict(options or {}), _own(model)]
    return _digest(json.dumps(parts, sort_keys=True, default=str))[:16] if any(parts) else ""


def _own(model: Model) -> str:
    """Name and file of a class that is not of the house: a user's two models may have one name."""
    kind = type(model)
    if kind.__module__.partition(".")[0] == "verbal":
        return ""
    path = Path(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")
    if not path.is_file():
        return kind.__qualname__
    return f"{kind.__qualname__}/{_digest(path.read_text(encoding='utf-8', errors='replace'))}"


def folder_digest(folder: Path) -> str:
    """A digest of the files of a folder of weights; of a very large file its size, first and last megabyte.

    Beside weights that were trained here stand papers (`verbal.json`, the card, attempts), which go on growing: they
    are left out, so that what was recorded of the weights stays theirs.
    """
    digest = hashlib.blake2b(digest_size=16)
    files = [p for p in folder.iterdir() if p.is_file()]
    if any(p.name == "verbal.json" for p in files):
        files = [p for p in files if p.name != "verbal.json" and p.suffix not in (".md", ".svg", ".db")]
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.name}/{size}/".encode())
        with path.open("rb") as file:
            if size <= _HASHED:
                digest.update(file.read())
                continue
            digest.update(file.read(2**20))
            file.seek(-(2**20), 2)
            digest.update(file.read())
    return digest.hexdigest()


def _read_reply(data: Mapping[str, Any]) -> Reply:
    many = {k: tuple(data[k]) if data[k] is not None else None for k in ("token_ids", "logprobs")}
    calls = tuple(ToolCall.from_dict(c) for c in data["tool_calls"])
    return Reply(**{**data, **many, "usage": Usage.from_dict(data["usage"]), "tool_calls": calls})


def _read_error(data: Mapping[str, str]) -> ModelError:
    kind: Any = getattr(errors, data["kind"], ModelError)
    error: ModelError = kind(data["what"], where=data["where"], todo=data["todo"])
    return error


def _fields(request: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request, flat, in the order in which a person would look at them."""
    flat: dict[str, Any] = {"model": request["model"], "fingerprint": request["fingerprint"]}
    flat["the number of messages"] = len(request["messages"])
    for at, (role, size, digest, head) in enumerate(request["messages"]):
        flat[f"messages[{at}].role"] = role
        flat[f"messages[{at}].content"] = f"{head!r}... ({size} characters, {digest[:8]})"
    flat |= {f"sampling.{k}": json.dumps(v) for k, v in request["sampling"].items()}
    return flat | {"sample": request["sample"]}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class RecordedModel:
    """Stands for a model in a replay: it has the name and nothing behind it."""

    local = True

    def __init__(self, name: str, fingerprint: str = "") -> None:
        self.name, self.fingerprint = name, fingerprint
        self.chats = not name.startswith("embedded/")

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """Never: a replay answers from its recording."""
        raise ReplayMiss(f"{self.name} was called in a replay", todo="replays never call a model: this is a fault")

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> Any:
        """Never."""
        await self.generate(messages, 1, sampling)
        yield ""

    async def check(self) -> str:
        """One line: there is nothing to check."""
        return f"{self.name}: from the recording"

    async def aclose(self) -> None:
        """Nothing to close."""


__all__ = [
    "Cache",
    "Mode",
    "Recorded",
    "RecordedModel",
    "Request",
    "fingerprint_of",
    "folder_digest",
    "recorded",
    "requests_of",
]
