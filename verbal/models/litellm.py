"""Any provider litellm knows, as `PROVIDER/MODEL`. One attempt a call.

litellm's own retries, cache, telemetry and its look-up of prices over the network are off; keys are what litellm reads
from the environment for the provider. Its import takes seconds, so it happens at the first call.
"""

from __future__ import annotations

import copy
import difflib
import importlib.util
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self
from weakref import WeakSet

from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, UnknownName
from verbal.models._sdk import translated
from verbal.models._wire import Dialect, StreamedReply, check_url, read_replies, together, with_seed
from verbal.types import Message

_IN_USE: WeakSet[LiteLLMModel] = WeakSet()


class LiteLLMModel:
    """A model of any provider of litellm.

    Args:
        model: `PROVIDER/MODEL` in litellm's words, such as `groq/llama-3.1-8b-instant`.
        url: Address of the API, when it is not the provider's own.
        timeout: Seconds for one attempt; `ModelCalls` usually stops it earlier.
        extra: More arguments of every call.

    Raises:
        ConfigError: not a URL, or credentials stand in it.
    """

    def __init__(
        self, model: str, *, url: str | None = None, timeout: float = 600.0, extra: Mapping[str, Any] | None = None
    ) -> None:
        self.name = f"litellm/{model}"
        self.model = model
        self.url = check_url(url, where=f"model {self.name}") if url else None
        self.one_per_call = False
        self._timeout = timeout
        self._extra = dict(extra or {})
        self._dialect = Dialect()
        self._takes: frozenset[str] | None = None
        self._where = f"{self.name} at {self.url}" if self.url else self.name

    def __repr__(self) -> str:
        return f"LiteLLMModel({self.model!r}, url={self.url!r})"

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies; for a provider without `n`, single calls side by side with seeds of their own."""
        if n > 1 and "n" not in self._known(load_litellm()):
            self.one_per_call = True
        replies = (await self._complete(messages, 1 if self.one_per_call else n, sampling))[:n]
        if len(replies) < n:
            self.one_per_call = True
            rest = [self._complete(messages, 1, with_seed(sampling, i)) for i in range(len(replies), n)]
            replies += await together(rest)
        return replies

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """Pieces of one reply as they come."""
        async for piece in self.stream_reply(messages, sampling):
            if isinstance(piece, str):
                yield piece

    async def stream_reply(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str | Reply]:
        """Pieces of one reply as they come, then the whole reply with its usage."""
        litellm = load_litellm()
        sent = self._request(litellm, messages, 1, sampling)
        with translated(self._where, "", dialect=self._dialect, sent=sent):
            chunks = await litellm.acompletion(**sent, stream=True, stream_options={"include_usage": True})
            streamed = StreamedReply(name=self.name, where=self._where)
            async for chunk in chunks:
                if piece := streamed.add(chunk.model_dump()):
                    yield piece
            yield streamed.reply()

    def also(self, fields: Mapping[str, Any]) -> Self:
        """The same model with more fields in every request; connections are shared."""
        _IN_USE.add(self)  # it closes the connections of its views
        view = copy.copy(self)
        view._extra = self._extra | dict(fields)
        return view

    def warm(self) -> None:
        """Loads litellm, which takes seconds at the first time."""
        load_litellm()

    async def check(self) -> str:
        """One line that says the provider exists and its keys are set. No network: litellm offers no such check.

        Raises:
            ConfigError: unknown provider (names the nearest), or a key is missing.
        """
        litellm = load_litellm()
        provider, _, name = self.model.partition("/")
        providers = [str(getattr(p, "value", p)) for p in litellm.provider_list]
        if provider not in providers:
            near = difflib.get_close_matches(provider, providers, n=5, cutoff=0.4)
            forms = "openai/MODEL, anthropic/MODEL, http/MODEL@URL, embedded, scripted:FILE, or a provider of litellm"
            todo = f"did you mean {' or '.join(near)}? {forms}" if near else forms
            raise UnknownName(f"litellm knows no provider {provider!r}", where=self._where, todo=todo)
        found = litellm.validate_environment(self.model, api_base=self.url)
        missing = [str(k) for k in found.get("missing_keys") or () if not str(k).endswith("_API_BASE") or not self.url]
        if missing and not found.get("keys_in_environment"):
            raise ConfigError(f"{' and '.join(missing)} not set", where=self._where, todo=f"export {missing[0]}=...")
        known = self.model in litellm.model_cost or name in litellm.model_cost
        note = "" if known else "; litellm has no price for it, so its name is not verified and its cost is not known"
        return f"{self._where}: provider known, keys set (not called){note}"

    async def aclose(self) -> None:
        """Closes the connections litellm keeps, unless another model still uses them (litellm shares them)."""
        if self not in _IN_USE:
            return
        _IN_USE.discard(self)
        if not _IN_USE:
            litellm = load_litellm()
            await litellm.close_litellm_async_clients()
            # litellm would go on with the closed clients.
            litellm.in_memory_llm_clients_cache.flush_cache()

    async def _complete(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        litellm = load_litellm()
        sent = self._request(litellm, messages, n, sampling)
        with translated(self._where, "", dialect=self._dialect, sent=sent):
            response = await litellm.acompletion(**sent)
            body = response.model_dump()
        return read_replies(body, name=self.name, where=self._where)

    def _request(self, litellm: Any, messages: Sequence[Message], n: int, sampling: Sampling) -> dict[str, Any]:
        sent = self._dialect.request(self.model, messages, n, sampling)
        # What a provider has no word for (a seed, log-probabilities) litellm would refuse; the rest must be taken.
        known = self._known(litellm)
        sent = {k: v for k, v in sent.items() if k in known or k not in ("seed", "logprobs", "top_p")}
        control: dict[str, Any] = {"timeout": self._timeout, "max_retries": 0, "num_retries": 0, "caching": False}
        if sent.get("tools") and importlib.util.find_spec("mcp") is None:
            # With tools litellm imports its MCP gateway, which fails without the optional package mcp.
            control["_skip_mcp_handler"] = True
        return sent | control | ({"api_base": self.url} if self.url else {}) | self._extra

    def _known(self, litellm: Any) -> frozenset[str]:
        _IN_USE.add(self)
        if self._takes is None:
            with translated(self._where, ""):
                self._takes = frozenset(litellm.get_supported_openai_params(self.model) or ())
        return self._takes


def load_litellm() -> Any:
    """The litellm module, with everything off that acts by itself."""
    # Read at import: without it litellm fetches prices over the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.num_retries = None
    litellm.cache = None
    litellm.drop_params = False
    return litellm


__all__ = ["LiteLLMModel", "load_litellm"]
