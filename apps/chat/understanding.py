"""What feedback in a message says, read by rules: English, no model, no cost. Its words are the person's own.

`may_teach` is the gate: only where it opens is a message looked at further, or a model asked (`reading.py`). A lesson,
its situation and its exceptions are cut out of the message (a situation may also come from the request before); nothing
is added but the few fixed words of `FIXED`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from verbal.types import Reflection

from .changes import WHEN, change, clean, says_something, telling
from .turn import Understanding

LONG = 600
"""Characters from which a message is taken for material: only its first and last sentence may teach."""
MOST = 4
"""Lessons of one message at most."""
FIXED = frozenset(
    ("do", "not", "be", "keep", "it", "shorter", "more", "detail", "formal", "casual", "simple", "precise")
)
"""Words that a lesson may hold although the message does not."""

_OPENERS = (
    r"(?:(?:please|ok(?:ay)?|and|but|also|so|hey|hi|hello|thanks|thank you|oh|well|sorry|great|nice|good|perfect|"
    r"excellent|lovely|never ?mind|pl[sz])(?:[\s,:.!-]+|$)|(?:no|nope)(?:[,.!-]+\s*|$))*"
)
_NOTHING = r"(?!(?:thanks?|problem|way|idea|worries|need|one|doubt|matter|rush|it|that|this|i|you|we|not)\b)"
_BAN = (
    r"(?:do not|don'?t|don’t|never|avoid|stop|no more|refrain from)\b"
    r"(?! (?:worry|bother|mind|know|think|you|forget(?! to)|panic|move|be sorry|get me wrong|give up|again)\b)"
)
_STANDING = (
    r"(?:from now on|in (?:the )?future|going forward|henceforth|(?:the )?next time|as a rule|"
    r"(?:remember|keep in mind|bear in mind)(?: that| to|:|,))"
)
_KINDS = (
    r"(?:e-?mails?|mails?|messages?|letters?|notes?|cards?|repl(?:y|ies)|answers?|posts?|tweets?|texts?|reports?|"
    r"summar(?:y|ies)|essays?|stor(?:y|ies)|code|scripts?|functions?|queries|commits?|comments?|docs?|documents?|"
    r"documentation|recipes?|slides?|presentations?|meetings?|chats?|conversations?|translations?|poems?|speeche?s?|"
    r"minutes|releases?|lists?|tables?|questions?|requests?|tasks?|topics?|problems?|invoices?|contracts?|articles?)"
)
_FORM = r"(?:be|use|keep|sign|format|spell|start|end|begin|skip|leave out|round|indent|stay)"
_OFTEN = rf"(?:{_FORM}|answer|reply|respond|speak|talk|address)"
_SPARE = r"(?:have|are|can|get|find|finish|know|see)\b"
_ASKING = r"(?:what|who|why|how|where|which|it|there|i|you|he|she|they|we|the|a|an|that|this|is|are|do|does|can|will)\b"
_HERE = r".*\b(?:below|above|following|attached|this|these)\b"
_VERB = (
    rf"(?:{_OFTEN}|put|call|write|give|add|include|show|make|translate|mention|quote|cite|list|say|tell|ask|explain|"
    r"check|name)"
)
_LIKE = (
    r"i(?: would|'d|’d)? (?:prefer|rather|(?:do not |don'?t |don’t )?(?:like|want) you to|"
    r"(?:hate|dislike|don'?t like) it)"
)
_TOO = r"too (?:\w+ )?(?:long|short|wordy|verbose|brief|formal|casual|informal|technical|complicated|vague|simple)"
_TELLS = r"(?:i (?:already )?(?:said|told you|asked you)|no\s*:|wrong\s*[:,])"
_COMPLAINS = (
    rf"(?:(?:that|this|it|your \w+)(?:'s|’s| is| was)?(?: much| far| a bit| way| still)* )?{_TOO}\b|"
    rf"(?:that|this|it)(?:'s|’s| is| was) (?:wrong|not (?:right|correct|true|what i))|{_TELLS}|"
    r"you (?:still|again|keep|kept|forgot|did it again|used|ignored)\b|not again\b|wrong\s*[.!]"
)
_POLITE = r"(?:can|could|would|will) you (?:please )?(?=(?:not|stop|always|never|avoid|remember)\b)"
_CUES = (
    rf"{WHEN} [^,?]{{2,80}}?,? (?:then )?(?:please )?(?:{_BAN}|always {_VERB}\b)",
    rf"{WHEN} [^,?]{{2,80}}, (?:then )?(?:please )?(?:{_VERB}|no)\b",
    rf"when(?:ever)? you (?!{_SPARE})[^,?]{{2,80}}, (?:then )?(?:please )?(?!{_ASKING})\w+",
    _BAN, _STANDING, rf"{_LIKE}\b", r"always \w+", _POLITE,
    r"you (?:should|must|need to|ought to) (?:not|never|always)\b", r"(?:call|address) me\b",
    rf"no {_NOTHING}[^\s,.?!]+(?: [\w-]+){{0,7}}\W*$",
    rf"(?:(?:a bit |much )?(?:\w+er|(?:more|less) \w+)|{_VERB} [^?]{{2,80}}) (?:please )?"
    r"(?:next time|from now on)[.!]*$",
    rf"{_OFTEN}\b.*\b(?:{WHEN} (?:you|i|we|my)\b|from now on|in future|instead of|except\b|unless\b)",
    rf"(?!{_ASKING})[a-z]+ [^?]*\bwhen(?:ever)? you (?!{_SPARE})\w+",
    rf"{_FORM}\b(?!{_HERE}).* (?:in|for|with|to) (?:[\w'’-]+ )?[\w'’-]+[^\Ws]s\b",
    rf"(?:in|for|with|on) [^,?]{{2,60}}, *(?:please )?(?:{_BAN}|always|no\b|{_VERB}\b)",
)  # fmt: skip
_CUE = re.compile(rf"{_OPENERS}(?:{'|'.join(_CUES)})", re.IGNORECASE)
_COMPLAINT = re.compile(rf"{_OPENERS}(?:{_COMPLAINS})", re.IGNORECASE)
# A wish in so few words may hold for good or for this answer: only a model can tell.
_WEAK = re.compile(
    rf"{_OPENERS}(?!{_HERE})(?:(?:only )?{_FORM}\b|"
    r"(?:answer|reply|respond|speak|talk) (?:in|with|only|more|less|briefly)\b|"
    rf"don'?t forget\b|i (?:like|hate|dislike|don'?t like)\b|you (?:may|don'?t (?:need|have) to)\b|"
    rf"(?:it|that)(?:'s| is) (?:fine|ok(?:ay)?) to\b|no {_NOTHING}|more\b|less\b)[^?:]{{3,60}}$|"
    rf"(?!{_ASKING})[a-z]+ [^?]{{3,100}} (?:in|for|to) (?:[\w'’-]+ )?(?:{_KINDS})(?<=s)[.!]*$",
    re.IGNORECASE,
)
# Other languages: these open the gate to a model and teach nothing by themselves.
_FOREIGN = re.compile(
    r"^(?:bitte (?:nicht|nie|immer|keine?n?)|nie(?:mals)?|immer|keine?n?|ab (?:jetzt|sofort)|künftig|in zukunft|"
    r"merk dir|vergiss|nur (?:für|wenn|bei)|nicht (?:für|wenn|bei)|nein[:,]|zu (?:lang|kurz)|wenn (?:du|ich)|ne |n'|"
    r"toujours|jamais|désormais|à l'avenir|souviens|oublie|seulement|trop |quand (?:tu|je)|nunca|siempre|"
    r"de ahora en adelante|recuerda|olvida|demasiado|cuando |sempre|mai |non |não |nunca)",
    re.IGNORECASE,
)
_FENCE = re.compile(r"```.*?(?:```|\Z)|^[ \t]*>[^\n]*$", re.DOTALL | re.MULTILINE)
_QUOTED = re.compile(
    r"[\"“„«][^\"”“»]*[.!?][^\"”“»]*[\"”“»]|"
    r"(?<=\bsaid |\bsays |rote |\btold |sked |lied )[^\"“„«\n]{0,30}[\"“„«][^\"”“»\n]*[\"”“»]",
    re.IGNORECASE,
)
_MATERIAL = re.compile(
    r"\s*(?:please |(?:can|could) you )?(?:summari[sz]e|translate|fix|correct|proofread|rewrite|rephrase|improve|"
    r"explain|review|edit|continue|classify|analy[sz]e|reply to|answer|shorten|check|read)\b[^:\n]{0,80}(?::|\n\s*\n)|"
    r"[^\n]{1,200}:[ \t]*(?=\n)",
    re.IGNORECASE,
)
# A letter that was pasted: its heads, or a greeting and a farewell on lines of their own.
_GREETING = re.compile(
    r"^(?:from|subject|sent|cc|von|betreff): [^\n]*$|"
    r"^(?P<hello>dear|hi|hello|hey|hallo|liebe[rs]?|sehr geehrte[rs]?)[ \t]+\w[^\n]{0,40}$",
    re.IGNORECASE | re.MULTILINE,
)
_FAREWELL = re.compile(
    r"^(?:best|kind|warm|many|regards|cheers|thanks|sincerely|yours|love|viele|beste|liebe|mit freundlichen|gruß|lg)\b"
    r"[^\n]{0,40}$",
    re.IGNORECASE | re.MULTILINE,
)
_PEOPLE = (
    r"(?:customers?|clients?|kids|children|beginners|friends?|colleagues?|strangers|students|managers?|people|experts)"
)
_SITUATION = re.compile(
    rf"(?:(?:(?!(?:in|for|to|with|on) )[\w'’-]+ ){{0,3}}{_KINDS}\b.*|(?:my|our) [\w'’-]+(?: [\w'’-]+){{0,3}}|"
    rf"(?:[\w'’-]+ ){{0,2}}{_PEOPLE}\b.*)$",
    re.IGNORECASE,
)
_AVOIDS = (
    rf"(?:{_BAN}|no |not |without|skip|leave out|i (?:hate|dislike|do|don)|"
    r"i(?: would|'d|’d) rather you (?:did not|didn'?t|didn’t|never)\b)"
)
_TWICE = r"(?:don'?t|don’t|do not|never) (?:hesitate|stop|forget|be (?:afraid|shy))\b"
_BUT = r",? but (?=(?:please )?(?:do|don'?t|don’t|use|always|never|keep|in|for|when)\b)"
# What is made once is no habit: "don't write a mail, write a letter", "don't forget to buy milk".
_ONCE = (
    r"\b(?:write|make|draft|send|create|give|tell)(?: me| us| her| him| them)? (?:a|an|the|this|that)\b|"
    r"^(?:don'?t|don’t|do not) forget to\b"
)
_FIX = {
    "long": "keep it shorter", "wordy": "keep it shorter", "verbose": "keep it shorter", "short": "more detail",
    "brief": "more detail", "vague": "be more precise", "formal": "be more casual", "casual": "be more formal",
    "informal": "be more formal", "technical": "keep it simple", "complicated": "keep it simple",
    "simple": "more detail",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What a message comes after."""

    text: str = ""
    """The request before."""
    reply: str = ""
    about: str = ""
    """Id of the lesson that was just taught or used: what `only for ...` is said of."""


def may_teach(text: str) -> bool:
    """Whether a message may hold feedback; a plain question or request does not get through."""
    if change(text, "any", None) is not None or _WEAK.fullmatch(" ".join(text.split())):
        return True
    return any(_cue(s) or _COMPLAINT.match(s) or _FOREIGN.match(s) for s in _sentences(text))


def understand(text: str, before: Before | None = None, known: Sequence[Reflection] = ()) -> Understanding:
    """The first thing that a message teaches; see `understand_all`.

    >>> understand("don't use emojis when you write to my boss").when
    'you write to my boss'
    """
    return understand_all(text, before, known)[0]


def understand_all(text: str, before: Before | None = None, known: Sequence[Reflection] = ()) -> list[Understanding]:
    """What a message teaches, by rules; one of kind `none` when it is no feedback that they cover. Never raises.

    Args:
        text: The message.
        before: The turn before, if any.
        known: The person's lessons.

    >>> [u.when for u in understand_all("No lists in mails to my boss. In summaries, never use bold text.")]
    ['mails to my boss', 'summaries']
    """
    before = before or Before()
    if (changed := change(text, before.about, known)) is not None:
        return [changed]
    sentences = _sentences(text)
    told = [s for s in sentences if _cue(s) or _COMPLAINT.match(s)]
    asks = any(says_something(s) for s in sentences if s not in told)
    complains = bool(before.reply) and any(_COMPLAINT.match(s) for s in told)
    made = [lesson for sentence in told for lesson in _lessons(sentence, before, known, asks=asks)]
    if made:
        return [dataclasses.replace(m, complains=complains, asks=asks or complains) for m in made[:MOST]]
    return [Understanding(kind="complaint" if complains else "none", complains=complains, asks=True)]


def situation(request: str) -> str:
    """What a request is about, as a situation in its own words, or an empty text.

    >>> situation("Write a mail to my boss that I am late")
    'mail to my boss'
    """
    plain = " ".join(_FENCE.sub(" ", request).split())[:LONG]
    found = re.search(
        rf"\b({_KINDS})(?: (to|for|of) ((?:my|our|the|a|an) )?([\w'’-]+)( (?!that\b|about\b|and\b|asking\b|saying\b)"
        r"(?:team|group|family|office|boss|manager|customers?|clients?))?)?",
        plain,
        re.IGNORECASE,
    )
    if found:
        return found[0]
    found = re.search(r"\bwrite to ((?:my|our|the) )?[\w'’-]+", plain, re.IGNORECASE)
    return found[0] if found else ""


def own_part(text: str) -> str:
    r"""What the person says themselves: without code, pasted letters, and the text that they want something done with.

    >>> own_part("From now on, be brief. Summarise this:\n\nAlways name our shop."), own_part("> never\nno lists")
    ('From now on, be brief. Summarise this:', '\n\nno lists')
    """
    plain = _FENCE.sub("\n", text[: 20 * LONG])
    found = _GREETING.search(plain)
    if found and (not found["hello"] or _FAREWELL.search(plain, found.end())):
        plain = plain[: found.start()]
    material = _MATERIAL.match(plain)
    return material[0] if material else plain


def _sentences(text: str) -> list[str]:
    """The sentences that a person says themselves, without quotations."""
    plain = _QUOTED.sub(" ", own_part(text))
    parts = [re.sub(r"^[^\w\"'“„«(]+", "", " ".join(s.split())) for s in re.split(r"(?<=[.!?])\s+|[;\n]+", plain)]
    parts = [s for s in parts if s]
    return parts if len(plain) <= LONG else list(dict.fromkeys([*parts[:1], *parts[-1:]]))


def _cue(sentence: str) -> bool:
    polite = re.match(rf"{_OPENERS}{_POLITE}", sentence, re.IGNORECASE)
    found = polite or (len(sentence) <= LONG and not sentence.endswith("?") and _CUE.match(sentence))
    return bool(found) and says_something(sentence)


def _lessons(sentence: str, before: Before, known: Sequence[Reflection], *, asks: bool) -> list[Understanding]:
    """The lessons of one sentence: what comes after a `but` is one of its own, or where the first does not hold."""
    first, *rest = re.split(_BUT, sentence, maxsplit=1, flags=re.IGNORECASE)
    made = _lesson(first, before, known, asks=asks)
    if made is None or not rest:
        return [made] if made else []
    other = _lesson(rest[0], before, known, asks=asks)
    if re.search(r"\b(?:it|them|that|so)\b", rest[0], re.IGNORECASE):
        where = other.when if other else _split(clean(rest[0]))[1]
        return [dataclasses.replace(made, boundary=where or made.boundary)]
    return [made, other] if other else [made]


def _lesson(sentence: str, before: Before, known: Sequence[Reflection], *, asks: bool) -> Understanding | None:
    """The lesson of one sentence, or None where it is a wish for this one answer, or no rule covers it."""
    body = clean(re.sub(rf"^{_OPENERS}(?:{_POLITE})?", "", sentence, flags=re.IGNORECASE).rstrip("?"))
    told = re.match(_TELLS, body, re.IGNORECASE)
    body = re.sub(rf"^{_TELLS}\W*", "", body, flags=re.IGNORECASE)
    body = re.sub(r"^not(?: to)?\b", "do not", body, flags=re.IGNORECASE)
    if (found := _COMPLAINT.match(body)) and not told:
        where, wish = situation(before.text), _FIX.get(found[0].split()[-1].lower(), "")
        return Understanding(kind="teach", lesson=wish, when=where) if where and wish else None
    if told is not None and told[0][:2].lower() == "i " and not _CUE.match(body):
        return None
    standing = bool(re.search(rf"\b(?:{_STANDING}|always|never)", body, re.IGNORECASE))
    body = clean(
        re.sub(rf"^{_STANDING}\W*|\W*\b(?:from now on|next time|in (?:the )?future)$", "", body, flags=re.IGNORECASE)
    )
    body = re.sub(
        r"^(?:i(?: would|'d|’d)? (?:like|want) you to|you (?:should|must|need to|ought to))\b", "", body, flags=re.I
    )
    body = re.sub(r"^\s*not(?: to)?\b", "do not", body, flags=re.IGNORECASE)
    body, boundary = _exception(clean(body))
    lesson, when = _split(body)
    if not says_something(lesson) or re.match(rf"{WHEN}\b", lesson, re.IGNORECASE) or (asks and not (standing or when)):
        return None
    if not (standing or when) and re.search(_ONCE, lesson, re.IGNORECASE):
        return None
    if (
        told and told[0][:2].lower() == "i " and not when
    ):  # said before, of what was asked just now: it holds no wider than it did, or than that
        same = [r for r in known if r.status != "retired" and set(telling(r.text)) == set(telling(lesson))]
        lesson, when = (same[-1].text, same[-1].when) if same else (lesson, situation(before.text))
    return Understanding(kind="teach", lesson=lesson, when=when, boundary=boundary, polarity=polarity(lesson))


def polarity(lesson: str) -> Literal["do", "avoid"]:
    """Whether a lesson asks for something or forbids it.

    >>> polarity("don't use emojis"), polarity("don't hesitate to use emojis")
    ('avoid', 'do')
    """
    twice = re.match(_TWICE, lesson, re.IGNORECASE)
    return "avoid" if not twice and re.match(_AVOIDS, lesson, re.IGNORECASE) else "do"


def _split(body: str) -> tuple[str, str]:
    """The lesson and the situation of a sentence, in its own words."""
    if re.match(r"i (?:hate|dislike|don'?t like) it\b", body, re.IGNORECASE):
        return body, ""
    rest = rf"(?P<lesson>(?:please )?(?:{_BAN}|always \w|{_VERB}\b|no\b|i (?:prefer|want)).+)"
    if found := re.fullmatch(rf"when(?:ever)? (?P<when>you [^,]+), *(?:then )?(?P<lesson>(?!{_ASKING}).+)", body, re.I):
        return clean(found["lesson"]), clean(found["when"])
    for lead in (rf"{WHEN} (?P<when>.+?)", r"(?:in|for|with|on) (?P<when>(?:(?!\b(?:a|an)\b).)+?)"):
        if found := re.fullmatch(
            rf"{lead}(?:, *(?:then )?| (?=(?:please )?(?:{_BAN}|always )))" + rest, body, re.IGNORECASE
        ):
            return clean(found["lesson"]), clean(found["when"])
    for tail in (
        rf"(?:, *| )(?:but )?(?:only |just )?{WHEN} (?P<when>.+)",
        r" only (?:for|in|with|to|on) (?P<when>.+)",
    ):
        if found := re.fullmatch(r"(?P<lesson>.+?)" + tail, body, re.IGNORECASE):
            return clean(found["lesson"]), clean(found["when"])
    for found in re.finditer(r" (?:in|for|with|to|on) (?=(?P<when>.+)$)", body, re.IGNORECASE):
        lesson, when = body[: found.start()], found["when"]
        if len(lesson.split()) > 1 and len(when.split()) <= 8 and _SITUATION.match(when):
            return clean(lesson), clean(when)
    return clean(body), ""


def _exception(body: str) -> tuple[str, str]:
    found = re.fullmatch(
        rf"(?P<body>.+?)(?:,? but not|,? except|, not|,? unless)(?: {WHEN}| for| in| to| with| on| it(?:'s|’s| is))+"
        r" (?P<boundary>.+)",
        body,
        re.IGNORECASE,
    ) or re.fullmatch(r"(?P<body>.+?),? (?:except|unless) (?P<boundary>.+)", body, re.IGNORECASE)
    return (clean(found["body"]), clean(found["boundary"])) if found else (body, "")


__all__ = [
    "FIXED", "LONG", "MOST", "Before", "may_teach", "own_part", "polarity", "situation", "understand", "understand_all",
]  # fmt: skip
