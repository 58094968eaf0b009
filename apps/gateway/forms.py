"""The protocols that clients may speak, each as what reads it, writes it and overhears it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from .answers import Head, Heard, Writer
from .fields import ChatRequest
from .messages import read_messages, teach_messages
from .messages_reply import Answer, HeardMessage, break_messages
from .refusal import Refusal
from .reply import Completion, HeardCompletion, break_chat
from .request import read_chat, teach_chat
from .responses import read_responses, teach_responses
from .responses_reply import HeardResponse, Response, break_responses


class _Reads(Protocol):
    def __call__(self, body: Mapping[str, Any], *, loose: bool = False) -> ChatRequest: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One protocol."""

    name: Literal["chat", "responses", "messages"]
    path: str
    """Below `/v1`."""
    prefix: str
    """Of the ids of answers."""
    read: _Reads
    """The request that a body is."""
    teach: Callable[[dict[str, Any], str], None]
    """Puts lessons into a body."""
    writer: Callable[[Head], Writer]
    heard: Callable[[str], Heard]
    broken: Callable[[Refusal], bytes]
    """The last event of another server's stream that broke."""


CHAT = Form(
    name="chat", path="chat/completions", prefix="chatcmpl-", read=read_chat, teach=teach_chat, writer=Completion,
    heard=HeardCompletion, broken=break_chat,
)  # fmt: skip
"""OpenAI's chat completions."""
RESPONSES = Form(
    name="responses", path="responses", prefix="resp_", read=read_responses, teach=teach_responses, writer=Response,
    heard=HeardResponse, broken=break_responses,
)  # fmt: skip
"""OpenAI's responses."""
MESSAGES = Form(
    name="messages", path="messages", prefix="msg_", read=read_messages, teach=teach_messages, writer=Answer,
    heard=HeardMessage, broken=break_messages,
)  # fmt: skip
"""Anthropic's messages."""
FORMS = (CHAT, RESPONSES, MESSAGES)
"""All of them."""

__all__ = ["CHAT", "FORMS", "MESSAGES", "RESPONSES", "Form"]
