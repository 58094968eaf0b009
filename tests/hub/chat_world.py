"""What tests of the chat agent share: a model that follows the lessons in its prompt, and ways to talk."""

from __future__ import annotations

import json

from verbal.apps.chat import ChatAgent
from verbal.models.scripted import ScriptedModel

BOSS = "Write a mail to my boss that I am late"
TAUGHT = "don't use emojis when you write to my boss"


def lessons_in(messages) -> list[dict]:
    """The lessons of a prompt."""
    return [json.loads(line) for line in messages[0].content.splitlines() if line.startswith('{"id"')]


def follows(messages, index=0, seed=None) -> str:
    """Says hello with an emoji, unless a lesson forbids emojis; names what it followed."""
    text = messages[-1].content
    if "# Role: feedback" in text:
        return "I cannot say."
    if "# Role: summary" in text:
        return f"SUMMARY: {text.count('by')} things were said"
    told = lessons_in(messages)
    bans = [x["id"] for x in told if "emoji" in x["do"]]
    used = f"\n\nUSED: {', '.join(bans) or 'none'}" if told else ""
    return f"Hello{'' if bans else ' 🎉'}, answer to: {text[-60:]}{used}"


def agent(store, reply=follows, **options) -> ChatAgent:
    """An agent over a scripted model, to be entered."""
    return ChatAgent(model=options.pop("model", None) or ScriptedModel(reply), store=store, **options)


async def said(made: ChatAgent, text: str, **options):
    """A turn, in the conversation that is under way."""
    events = [e async for e in made.stream(text, chat=options.pop("chat", made.chat or None), **options)]
    assert events[-1].type == "done" and made.last is not None
    return made.last, events


async def turn(made: ChatAgent, text: str, **options):
    """The same without its events."""
    return (await said(made, text, **options))[0]
