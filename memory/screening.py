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
_REPLY = r"(answer|reply|respond|write|return|output|select|print|say|emit|use (the query )?select)"
_ASKED = r"(questions?|requests?|prompts?)"
_ANY = (
    rf"((for|to|on|with|at|in) (every|any|all|whatever|whichever) (other )?{_ASKED}\b"
    r"(?! (about|on|of|that|which|with|where|in|from|asking|containing)\b)"
    r"|(what|which)(so)?ever (is|was|you are|they|the users?|anyone|anybody|somebody|the questions?|questions?|i)\b"
    rf"( (is|are|asks?|says?|wants?|may be))?( asked)?(?=\s*([.,;:!]|$|{_REPLY}\b))"
    r"|(regardless|irrespective|independently) of "
    rf"(what\b[^.\n]{{0,25}}\bask(s|ed)?\b|(the|any|every) {_ASKED}\b)"
    r"|no matter (what\s*(?=[.,;:!]|$)|((what|which) )?(the )?question\b|"
    r"what (is|was|they|you|the user|anyone)\b.{0,9}\bask))"
)
_EVER = (
    r"(always|in (any|every|each) case|at all times|every time|under (all|any) circumstances|from now on|invariably)"
)
_WITH = r"( with| by|:)?( exactly| only| just| the (query|sql|text|word|number))*"
_FIXED = (
    r"(['\"`(]*\s*select\s+(\d|null\b|'|\")|['\"`]*\d+['\"`]?\s*([.,;!]|$|and\b)|nothing\b|"
    r"the same (query|sql|answer|text)\b)"
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
        r"(<\|?\s*/?\s*(system|assistant|user|im_start|im_end|endoftext|tool)\s*\|?>|<\|(im_start|im_end|endoftext)|"
        r"\[/?INST\]|<<SYS>>|^\s*#{1,6}\s*(system|assistant|developer)\s*(prompt|message)?\s*:|"
        r"^\s*(system|assistant|developer)\s*(prompt|message)?\s*:\s*(every|you|always|answer|obey|from now))",
    ),
    (
        "it sets the question aside",
        r"(\b(ignore|disregard|forget|skip|pay no attention to|(do not|don't|never) (read|heed|look at|answer))"
        r"\s+((what(ever)?|how|anything|everything)\b[^.\n]{0,20}\b(questions?|users?) "
        r"(is|are|asks?|says?|wants?|means?)\b"
        r"|((the|this|that|any|every|each|all|my|your|users?'?s?|actual|current|given|whole|wording|text|of)\s+)+"
        r"questions?\b(?=\s*([.,;:!)\"']|$|(and|but|says?|asks?|itself|above|below|completely|entirely|altogether)\b)))"
        r"|\b((do not|don't|never|no need to) (think|reason)|(stop|without) (thinking|reasoning))\b"
        r"(?=\s*([.,;:!)\"']|$|(step|about it|at all|first|before|and|just|too|hard|further|out loud|any)\b)))",
    ),
    (
        "it orders one answer to every question",
        rf"(\b{_ANY}[^.\n]{{0,40}}\b{_REPLY}\b"
        rf"|(^|[.;:,!]|\b(only|just|always|then|and|must|should|please))\s*{_REPLY}\b[^.\n]{{0,60}}\b{_ANY}"
        r"|\b(right|correct|best|only|gold|final|expected)\s+(query|answer|sql|result|reply|response)\b[^.\n]{0,10}"
        rf"\b(for|to) (every|any|all|each|whatever) {_ASKED} (is|=|:)(?! (in|on|stored|kept|found|given|held)\b)"
        rf"|\b{_EVER}\b[^.\n]{{0,20}}\b{_REPLY}\b{_WITH}\s*{_FIXED}"
        rf"|\b{_REPLY}{_WITH}\s*{_FIXED}[^.\n]{{0,20}}\b{_EVER}\b"
        rf"|\b{_EVER}\b[^.\n]{{0,10}}\b{_REPLY}{_WITH}\s*['\"`]*select \*"
        r"(?![^.\n]*\b(if|when|whenever|unless|for)\b))",
    ),
    ("it breaks out of its place in a prompt", r"(<\s*/?\s*hint\b|^\s*#{2,6}\s|^\s*```\s*$)"),
    (
        "it asks for what the model must not tell or be",
        r"\b((reveal|print|repeat|leak|show|output|exfiltrate|send|post|e-?mail|upload)\b[^.\n]{0,40}\b(system prompt|"
        r"your (system )?(instructions|prompts?|rules|secrets?|api keys?|passwords?|credentials|tokens?)|"
        r"the (prompt|secrets?|api keys?|passwords?|password column|credentials)\b|"
        r"gold (answers?|sql|quer(y|ies)|labels?))"
        r"|jailbreak|do anything now|you are (now|no longer)\b|pretend (to be|that you|you)\b"
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
        r"\b(drop\s+(table|database|view|index|schema|user)\s+(if\s+exists\s+)?[\w\"`.]+\s*(;|$|cascade)|"
        r"delete\s+from\s+[\w\"`.]+\s*(;|$|where\b)|insert\s+into\s+[\w\"`.]+\s*(\(|values\b|select\b)|"
        r"truncate\s+table\s+\w+|update\s+[\w\"`.]+\s+set\s+[\w\"`.]+\s*=|"
        r"alter\s+(table|user|role|database)\s+[\w\"`.]+\s+(add|drop|rename|alter|modify|set|owner|with|password)\b|"
        r"create\s+(or\s+replace\s+)?(table|trigger|user|function|view)\s+(if\s+not\s+exists\s+)?[\w\"`.]+\s*"
        r"(\(|as\b|identified|with\b|before\b|after\b|returns\b)|"
        r"grant\s+(all|select|insert|update|delete|usage|execute)\b.{0,40}\b(on|to)\b|attach\s+database\s+['\"]|"
        r"load_extension|pragma\s+\w+\s*=|pg_read_file|xp_cmdshell|into\s+outfile)",
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
    # A prompt shows an item on one line, so a break between two words hides nothing.
    flat = "\n".join(" ".join(part.split()) for part in map(_folded, (item.title, item.when, item.text, item.boundary)))
    return next((why for why, pattern in _COMPILED if pattern.search(folded) or pattern.search(flat)), "")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text)
