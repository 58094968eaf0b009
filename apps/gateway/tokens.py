"""Tokens that nobody has counted: at worst, before a model is asked; about how many, where no answer said it.

At worst a token is 2.5 bytes of UTF-8, an image 1,500 tokens, and every reply as long as it may be; what a server adds
where a request sets no limit (or for files that it reads) is not known before. Where an answer told no usage (a stream
that was cut, a server that counts nothing), a token is four characters; of an answer that nobody saw, as many are
counted as a fast model writes in the time.
"""

from __future__ import annotations

import json
import re

from verbal.types import Usage

from .exchange import Exchange

_BYTES = 2.5
_CHARACTERS = 4.0
_OVERHEAD = 8
"""Tokens around a message at most."""
_USUAL = 4
"""Tokens around a message."""
_IMAGE = 1500
_IMAGES = re.compile(r"\[(?:input_)?image(?:_url)?\]")
"""How a part that is no text is named in what is read of a request for another server (`fields.text_of`)."""
_PACE = 100.0
"""Tokens that a fast model writes in a second."""
_MAYBE_BILLED = (499, 502, 504)
"""Statuses after which an upstream may have answered all the same."""


def at_worst(exchange: Exchange) -> tuple[int, int]:
    """The tokens of the prompt and of all replies that a request may take."""
    texts = [m.content for m in exchange.messages]
    texts += [t for m in exchange.messages for c in m.tool_calls for t in (c.name, c.arguments)]
    if exchange.sampling.tools:
        texts.append(json.dumps([dict(t) for t in exchange.sampling.tools], ensure_ascii=False))
    size = sum(len(t) if t.isascii() else len(t.encode("utf-8", "surrogatepass")) for t in texts)
    images = sum(len(_IMAGES.findall(m.content)) for m in exchange.messages if "image" in m.content)
    prompt = int(size / _BYTES) + _OVERHEAD * len(exchange.messages) + _IMAGE * images
    return prompt, exchange.sampling.max_tokens * exchange.n


def estimate(exchange: Exchange) -> Usage | None:
    """What an exchange used, about; None where the model said it, or none was used."""
    reply = exchange.reply
    if reply.usage.tokens if reply is not None else exchange.status not in _MAYBE_BILLED:
        return None
    messages = exchange.messages
    prompt = sum(len(m.content) + sum(len(c.arguments) for c in m.tool_calls) for m in messages) / _CHARACTERS
    said = len(reply.text) + sum(len(c.arguments) for c in reply.tool_calls) if reply is not None else 0
    completion = int(said / _CHARACTERS)
    if not said and (reply is None or reply.finish == "error"):
        completion = min(exchange.sampling.max_tokens * exchange.n, int(_PACE * exchange.seconds))
    return Usage(calls=1, prompt_tokens=int(prompt) + _USUAL * len(messages), completion_tokens=completion, cost=None)


__all__ = ["at_worst", "estimate"]
