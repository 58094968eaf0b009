"""Words that speak to the model rather than of the task: a lesson has no business to hold them.

A first, cheap line against poisoned memories; behind it stand quarantine, outcomes and prompts that show an item as
data. Patterns find what is written plainly, in a few languages' usual forms, and no more is claimed.
"""

from __future__ import annotations

import re
import unicodedata

from verbal.types import Reflection

_INVISIBLE = re.compile(
    "[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f]"
)
_RULES: tuple[tuple[str, str], ...] = (
    (
        "it tells the model to set its instructions aside",
        r"\b(ignore|disregard|forget|override|bypass|(do not|don't|never) (follow|obey))\b[^.\n]{0,40}"
        r"\b(previous|prior|above|earlier|preceding|all|any|your|the|other|system)\b[^.\n]{0,30}"
        r"\b(instructions?|prompts?|rules?|guidelines?|directions?|constraints?|safety|hints?)\b",
    ),
    (
        "it plays a role of the conversation",
        r"(<\|?\s*/?\s*(system|assistant|user|im_start|im_end|endoftext|tool)\b|\[/?INST\]|<<SYS>>|^\s*#{0,6}\s*"
        r"(system|assistant|developer)\s*(prompt|message)?\s*:)",
    ),
    ("it breaks out of its place in a prompt", r"(<\s*/?\s*hint\b|^\s*#{2,6}\s|^\s*```\s*$)"),
    (
        "it asks for what the model must not tell or be",
        r"\b((reveal|print|repeat|leak|show|output|exfiltrate|send|post|e-?mail|upload)\b[^.\n]{0,40}\b(system prompt|"
        r"(your|the) (instructions|prompt|rules|secrets?|api keys?|passwords?|credentials|tokens?)|gold( answers?)?)"
        r"|jailbreak|developer mode|do anything now|you are (now|no longer)\b|pretend (to be|that you|you)\b"
        r"|new instructions?\s*:)",
    ),
    (
        "it calls a tool",
        r"(<\s*/?\s*(tool_call|function_call|tool_use|invoke|function)\b|\"(tool|function)_?(call|name)\"\s*:"
        r"|\"name\"\s*:\s*\"[^\"]+\"\s*,\s*\"(arguments|parameters|input)\"\s*:|\b(os\.system|subprocess\.|eval\("
        r"|exec\(|rm -rf|curl |wget |powershell))",
    ),
    (
        "it writes to a database",
        r"\b(drop\s+(table|database|view|index|schema|user)|delete\s+from|insert\s+into|truncate\s+(table\s+)?\w+|"
        r"update\s+\w+\s+set\b|alter\s+(table|user|role|database)|create\s+(or\s+replace\s+)?(table|trigger|user|function|view)|"
        r"grant\s+(all|select|insert|update|delete|usage|execute)\b.{0,40}\b(on|to)\b|attach\s+database|load_extension|pragma\s+\w+\s*=|pg_read_file|xp_cmdshell|into\s+outfile)",
    ),
    ("it sends data to an address", r"(!\[[^\]]*\]\(\s*https?:|https?://\S+[?&][^\s=]+=(\{|%7b|<|\$))"),
)
_COMPILED = [(why, re.compile(pattern, re.IGNORECASE | re.MULTILINE)) for why, pattern in _RULES]


def instruction(item: Reflection) -> str:
    """What is wrong with an item's words, or an empty text."""
    told = "\n".join((item.title, item.when, item.text, item.boundary))
    if _INVISIBLE.search(told):
        return "it holds characters that cannot be seen"
    folded = unicodedata.normalize("NFKC", told)
    return next((why for why, pattern in _COMPILED if pattern.search(folded)), "")
