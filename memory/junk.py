"""What is written in a memory and is no lesson: small talk, prompts said again, news of the day, empty sentences.

Patterns over the words of one item, made for few false alarms: a definition (`today means date('now')`), a rule with
code in it, or a fact with a source is not junk for a word that junk uses too. What a pattern cannot see (a lesson that
is wrong) is for outcomes to decide. English only, and no more is claimed.

The kinds follow what people found who read a memory of 10,134 items by hand: prompts said again, heartbeats and logs,
passing state, invented profiles, small talk (mem0, issue 4573).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from verbal.types import Reflection

from .words import informative, split_term, words

_GENERIC = frozenset(
    """
    accurate accurately again always answer answered answering approach appropriate ask asked asking attempt attention
    avoid aware bad best better careful carefully check checking clear clearly complete completed completely consider
    consistent context correct correctly detail double effort empty ensure error essential every everything fail
    failed failure final find focus follow generate give good great happen help helpful important improve information
    input instruction instructions keep know learn learned lesson look luck make mind mistake na need never next nice
    none note nothing null ok okay output pay perform possible practice previous problem proceed proper properly provide
    query question ready reason relevant remember request require required requirement response result right solution
    solve something step successful successfully sure task thing think thoroughly time todo try trying understand
    review unknown useful verify want way well work worked working write wrong yes
    """.split()  # noqa: SIM905  (a list of words is easier to read)
)
# Words are compared in the form in which `informative` gives them.
_GENERIC_STEMS = frozenset(stem for word in _GENERIC for stem in words(word))
_CODE = re.compile(r"'[^']+'|\"[^\"]+\"|`[^`]+`|[<>!=]=|[=<>(){}\[\]_]|\b[A-Z]{3,}\b|\d")
_LITERAL = re.compile(r"'[^'\n]{1,60}'")  # a time in quotes is a value of a query
_GREETING = re.compile(
    r"(?i)^\W*(?:hi|hello|hey|good (?:morning|afternoon|evening|night|day)|thanks?(?: you)?|thank you|you'?re welcome|"
    r"welcome|bye|goodbye|see you|cheers|congratulations|nice to meet you|how are you|how can i help|"
    r"(?:sure|certainly|of course|absolutely|great)\s*[,!.]|i'?m sorry|i apologi[sz]e|sorry\b|as an ai\b|"
    r"i(?:'m| am) (?:an ai|a (?:large )?language model|happy to|glad to|here to)|let me know if|have a (?:nice|"
    r"great|good)|"
    r"the (?:user|assistant|agent|bot) (?:said|says|greeted|thanked|wished|replied|responded with)\b"
    r".{0,30}\b(?:hi|hello|hey|good morning|thanks?|thank|bye|goodbye|user|assistant|greeting))"
)
_PROMPT = re.compile(
    r"(?i)(?:^\W*you are\b.{0,80}\b(?:assistant|agent|model|bot|expert|analyst|engineer|ai|chatbot)\b|"
    r"^\W*(?:your|the (?:assistant|agent|model|ai)(?:'s|’s)) (?:task|role|job|goal|purpose|name|mission|persona) is\b|"
    r"\bthe (?:ai )?(?:assistant|agent|model|bot) (?:is|was|has been|must be|should be) "
    r"(?:instructed|told|configured|prompted|designed|programmed|expected|named|called|responsible|equipped|"
    r"required)\b|"
    r"\b(?:system prompt|boot file|(?:AGENTS|SOUL|IDENTITY|TOOLS|MEMORY|CLAUDE|HEARTBEAT)\.md)\b.{0,40}\b(?:says?|"
    r"tells?|"
    r"states?|instructs?|requires?|contains?|loaded|read|is|was|defines?)\b|\b(?:in|of|to|by|from) (?:the|its|my|"
    r"your) system prompt\b|"
    r"\b(?:the )?(?:assistant|agent|ai|bot) (?:has access to|can (?:use|access|call|read|write)|uses?|should "
    r"(?:always|never)|"
    r"must (?:always|never)|always|never)\b)"
)
_PROFILE = re.compile(
    r"(?:\b(?:[Tt]he )?[Uu]ser(?:'s|’s) (?:(?:full |first |last |nick)?name|age|birthday|wife|husband|partner|dog|"
    r"cat|hobby|"
    r"hobbies|job|employer|profession|occupation|home ?town|favou?rite \w+|nationality|location|e-?mail|phone)\b(?: "
    r"\w+)? "
    r"(?:is|are|was)\b|"
    r"\b(?:[Tt]he )?[Uu]ser (?:is (?:called|named|married|single|vegan|vegetarian|based in|located in|from|"
    r"interested in|"
    r"fluent in|(?:a|an) (?:\w+ ){0,3}?(?:developer|engineer|designer|manager|student|teacher|doctor|lawyer|nurse|"
    r"artist|"
    r"writer|musician|analyst|consultant|scientist|researcher|accountant|entrepreneur|fan|parent|person|man|woman|"
    r"american|german|vegetarian|native)|\d{1,3} years)|lives? (?:in|at|with)|works? (?:at|for|as|in)|was born|"
    r"(?:likes?|loves?|enjoys?|hates?|prefers?|owns?|plays?|speaks?|studies|studied) |"
    r"has (?:a|an|one|two|three|\d+) (?:\w+ )?(?:dogs?|cats?|children|kids?|son|daughter|sister|brother|wife|"
    r"husband|pet|"
    r"interest|preference|passion|background|degree)))"
)
_STRONG = re.compile(
    r"(?i)\b(?:\d{4}-\d\d-\d\d[t ]\d\d:\d\d|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|"
    r"(?:session|request|trace|run|job|process|message|chat|conversation|thread) ?id\W{0,3}(?=\w*\d)\w{4,}|"
    r"pid\W{0,3}\d{2,7}|"
    r"heartbeat(?:_ok| ok| (?:check|ping|received|sent|at|completed|ran|was))|cron ?(?:job)? (?:ran|fired|completed|"
    r"finished|ran|was|"
    r"started|triggered|executed)|(?:pr|pull request|build|deploy(?:ment)?|pipeline|ticket) #?\d+ (?:is|was|has|"
    r"failed|passed|"
    r"merged|pending|running|still)|(?:server|service|container|deployment|gateway|daemon) (?:is|was) (?:now |"
    r"currently |still )?"
    r"(?:up|down|running|restarting|restarted|offline|online|unreachable|healthy|starting)|"
    r"(?:disk|cpu|memory|ram) (?:usage|load)\W{1,3}(?:is |was |at )*\d+|no (?:new|unread|pending) (?:messages|"
    r"e-?mails|tasks|"
    r"notifications|alerts))"
)
_WEAK = re.compile(
    r"(?i)\b(?:today|yesterday|tomorrow|tonight|currently|right now|just now|at the moment|a (?:minute|moment|"
    r"while) ago|"
    r"(?:minutes?|hours?|days?) ago|this (?:morning|afternoon|evening|session|conversation|chat|message|turn)|"
    r"(?:is|are|was) (?:still )?(?:in progress|pending|being (?:debugged|worked on|deployed|fixed))|"
    r"(?:still|now) (?:working on|waiting for|debugging|looking at|running)|next steps? (?:is|are|will)|"
    r"last (?:night|week|seen|updated|checked)|as of (?:now|today|\d{4}))\b"
)
_BIDI = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")
_BLANK = re.compile("[\u00ad\u180e\u200b\u2060-\u2064\ufeff\U000e0000-\U000e007f\u3164\u115f\u1160\uffa0]")
_JOINER = re.compile("(?<![^\\x00-\\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\\x00-\\x7f])")
_ALPHABETS = (("latin", re.compile("[A-Za-z\u00c0-\u024f]")), ("cyrillic", re.compile("[\u0400-\u052f]")))


def junk(item: Reflection) -> Iterator[tuple[str, str]]:
    """(kind, what is wrong) of what an item's words are instead of a lesson: at most one of the kinds `empty`,
    `greeting`, `restated`, `profile` and `transient`.
    """
    text, sourced = item.text[:4000], bool(item.attempts or item.task)
    if found := _vacuous(item):
        yield "empty", found
    elif _GREETING.match(text) and len(text) < 200 and not _lesson(text):
        yield "greeting", "small talk, not a lesson"
    elif match := _PROMPT.search(text):
        yield "restated", f"says what a system prompt says: {match[0][:60]!r}"
    elif not sourced and (match := _PROFILE.search(text)):
        yield "profile", f"a fact about a person that no attempt supports: {match[0][:60].strip()!r}"
    elif match := _STRONG.search(_LITERAL.sub(" ", text)):
        yield "transient", f"state of a moment: {match[0][:60].strip()!r}"
    elif (match := _WEAK.search(text)) and not _lesson(text):
        yield "transient", f"state of a moment: {match[0][:60]!r}"


def unclean(text: str) -> str:
    """Characters of a text that people do not see or that show another text than is there; empty when there are none.

    Joiners between letters that need them (Persian, Hindi, emoji) and line breaks are fine.
    """
    found = []
    if any(unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn") and c not in "\n\t\r" for c in set(text)):
        found.append("control characters or half characters")
    if text.isascii():
        return ", ".join(found)
    if _BIDI.search(text):
        found.append("marks that turn the direction of writing")
    if _BLANK.search(text) or _JOINER.search(text):
        found.append("characters that cannot be seen")
    if any(all(alphabet.search(word) for _, alphabet in _ALPHABETS) for word in set(re.findall(r"[^\W\d_]+", text))):
        found.append("letters of two alphabets in one word")
    return ", ".join(found)


def _vacuous(item: Reflection) -> str:
    """Why an item says nothing, or an empty text."""
    if item.title.strip() and item.when.strip():
        return ""
    if not (kept := {w for w in informative(item.text[:4000]) if len(w) > 1 or not w.isascii()}):
        return "" if _CODE.search(item.text) else "it has no words that say anything"
    if kept <= _GENERIC_STEMS and not _CODE.search(item.text.replace("_", " ")):
        return "every word of it fits every task"
    return ""


def _lesson(text: str) -> bool:
    """Whether a text has the form of something learned: a definition, or code in it."""
    return split_term(text) is not None or len(_CODE.findall(text)) >= 2


__all__ = ["junk", "unclean"]
