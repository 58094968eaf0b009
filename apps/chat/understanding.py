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

from verbal.parts import load_function
from verbal.types import Reflection

from .turn import Understanding

LONG = 600
"""Characters from which a message is taken for material: only its first and last sentence may teach."""
FIXED = frozenset(
    ("do", "not", "be", "keep", "it", "shorter", "more", "detail", "formal", "casual", "simple", "precise")
)
"""Words that a lesson may hold although the message does not."""

_OPENERS = (
    r"(?:(?:please|ok(?:ay)?|and|but|also|so|hey|hi|hello|thanks|thank you|oh|well|sorry|great|nice|good)"
    r"(?:[\s,:.!-]+|$)|(?:no|nope)(?:[,.!-]+\s*|$))*"
)
_NOTHING = r"(?!(?:thanks?|problem|way|idea|worries|need|one|doubt|matter|rush|it|that|this|i|you|we|not)\b)"
_BAN = (
    r"(?:do not|don'?t|don’t|never|avoid|stop|no more|refrain from)\b"
    r"(?! (?:worry|bother|mind|know|think|you|forget|panic|move|be sorry|get me wrong|give up|again)\b)"
)
_STANDING = (
    r"(?:from now on|in (?:the )?future|going forward|henceforth|(?:the )?next time|as a rule|"
    r"(?:remember|keep in mind|bear in mind)(?: that| to|:|,))"
)
_WHEN = r"(?:when(?:ever)?|every ?time|each time|any ?time|if|while)"
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
    rf"{_WHEN} [^,?]{{2,80}}?,? (?:then )?(?:please )?(?:{_BAN}|always {_VERB}\b)",
    rf"{_WHEN} [^,?]{{2,80}}, (?:then )?(?:please )?(?:{_VERB}|no)\b",
    rf"when(?:ever)? you (?!{_SPARE})[^,?]{{2,80}}, (?:then )?(?:please )?(?!{_ASKING})\w+",
    _BAN, _STANDING, rf"{_LIKE}\b", r"always \w+", _POLITE,
    r"you (?:should|must|need to|ought to) (?:not|never|always)\b", r"(?:call|address) me\b",
    rf"no {_NOTHING}[\w-]+(?: [\w-]+){{0,7}}\W*$",
    rf"{_OFTEN}\b.*\b(?:{_WHEN} (?:you|i|we|my)\b|from now on|in future|instead of|except\b|unless\b)",
    rf"(?!{_ASKING})[a-z]+ [^?]*\bwhen(?:ever)? you (?!{_SPARE})\w+",
    rf"{_FORM}\b(?!{_HERE}).* (?:in|for|with|to) (?:[\w'’-]+ )?[\w'’-]+[^\Ws]s\b",
    rf"(?:in|for|with|on) [^,?]{{2,60}}, *(?:please )?(?:{_BAN}|always|{_VERB}\b)",
)  # fmt: skip
_CUE = re.compile(rf"{_OPENERS}(?:{'|'.join(_CUES)})", re.IGNORECASE)
_COMPLAINT = re.compile(rf"{_OPENERS}(?:{_COMPLAINS})", re.IGNORECASE)
# A wish in so few words may hold for good or for this answer: only a model can tell.
_WEAK = re.compile(
    rf"{_OPENERS}(?!{_HERE})(?:{_FORM}\b|(?:answer|reply|respond|speak|talk) (?:in|with|only|more|less|briefly)\b|"
    rf"don'?t forget\b|i (?:like|hate|dislike|don'?t like)\b|no {_NOTHING}|more\b|less\b)[^?:]{{3,60}}$|"
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
_FENCE = re.compile(r"```.*?(?:```|\Z)|^[ \t]*>.*$", re.DOTALL | re.MULTILINE)
_QUOTED = re.compile(r"[\"“„«][^\"”“»]*[.!?][^\"”“»]*[\"”“»]")
_MATERIAL = re.compile(
    r"\s*(?:please |(?:can|could) you )?(?:summari[sz]e|translate|fix|correct|proofread|rewrite|rephrase|improve|"
    r"explain|review|edit|continue|classify|analy[sz]e|reply to|answer|shorten|check|read)\b[^:\n]{0,80}:|"
    r"[^\n]{1,200}:[ \t]*(?=\n)",
    re.IGNORECASE,
)
_SMALL = "don t never stop avoid always alway please ok okay thank hi hello hey sorry great nice good oh well it"
_EMPTY = frozenset(_SMALL.split())
_PEOPLE = (
    r"(?:customers?|clients?|kids|children|beginners|friends?|colleagues?|strangers|students|managers?|people|experts)"
)
_SITUATION = re.compile(
    rf"(?:(?:(?!(?:in|for|to|with|on) )[\w'’-]+ ){{0,3}}{_KINDS}\b.*|(?:my|our) [\w'’-]+(?: [\w'’-]+){{0,3}}|"
    rf"(?:[\w'’-]+ ){{0,2}}{_PEOPLE}\b.*)$",
    re.IGNORECASE,
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
    if _change(text, "any", None) is not None or _WEAK.fullmatch(" ".join(text.split())):
        return True
    return any(_cue(s) or _COMPLAINT.match(s) or _FOREIGN.match(s) for s in _sentences(text))


def understand(text: str, before: Before | None = None, known: Sequence[Reflection] = ()) -> Understanding:
    """What a message teaches, by rules; kind `none` when it is no feedback that they cover. Never raises.

    Args:
        text: The message.
        before: The turn before, if any.
        known: The person's lessons.

    >>> understand("don't use emojis when you write to my boss").when
    'you write to my boss'
    """
    before = before or Before()
    if (changed := _change(text, before.about, known)) is not None:
        return changed
    sentences = _sentences(text)
    told = [s for s in sentences if _cue(s) or _COMPLAINT.match(s)]
    asks = any(_telling(s) for s in sentences if s not in told)
    complains = bool(before.reply) and any(_COMPLAINT.match(s) for s in told)
    for sentence in told:
        made = _lesson(sentence, before, asks=asks)
        if made is not None:
            return dataclasses.replace(made, complains=complains, asks=asks or complains)
    return Understanding(kind="complaint" if complains else "none", complains=complains, asks=True)


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


def _sentences(text: str) -> list[str]:
    """What the person says themselves: without code, quotations, and the text that they want something done with."""
    plain = _QUOTED.sub(" ", _FENCE.sub("\n", text[: 20 * LONG]))
    if found := _MATERIAL.match(plain):
        plain = found[0]
    parts = [" ".join(s.split()) for s in re.split(r"(?<=[.!?])\s+|[;\n]+", plain)]
    parts = [s for s in parts if s]
    return parts if len(plain) <= LONG else list(dict.fromkeys([*parts[:1], *parts[-1:]]))


def _cue(sentence: str) -> bool:
    polite = re.match(rf"{_OPENERS}{_POLITE}", sentence, re.IGNORECASE)
    found = polite or (len(sentence) <= LONG and not sentence.endswith("?") and _CUE.match(sentence))
    return bool(found) and _telling(sentence)


def _lesson(sentence: str, before: Before, *, asks: bool) -> Understanding | None:
    """The lesson of one sentence, or None where it is a wish for this one answer, or no rule covers it."""
    body = _clean(re.sub(rf"^{_OPENERS}(?:{_POLITE})?", "", sentence, flags=re.IGNORECASE).rstrip("?"))
    told = re.match(_TELLS, body, re.IGNORECASE)
    body = re.sub(rf"^{_TELLS}\W*", "", body, flags=re.IGNORECASE)
    body = re.sub(r"^not(?: to)?\b", "do not", body, flags=re.IGNORECASE)
    if (found := _COMPLAINT.match(body)) and not told:
        where, wish = situation(before.text), _FIX.get(found[0].split()[-1].lower(), "")
        return Understanding(kind="teach", lesson=wish, when=where) if where and wish else None
    if told is not None and told[0][:2].lower() == "i " and not _CUE.match(body):
        return None
    standing = bool(re.search(rf"\b(?:{_STANDING}|always|never)", body, re.IGNORECASE))
    body = _clean(re.sub(rf"^{_STANDING}\W*|\W*\b(?:from now on|in (?:the )?future)$", "", body, flags=re.IGNORECASE))
    body = re.sub(
        r"^(?:i(?: would|'d|’d)? (?:like|want) you to|you (?:should|must|need to|ought to))\b", "", body, flags=re.I
    )
    body = re.sub(r"^\s*not(?: to)?\b", "do not", body, flags=re.IGNORECASE)
    body, boundary = _exception(_clean(body))
    lesson, when = _split(body)
    if not _telling(lesson) or re.match(rf"{_WHEN}\b", lesson, re.IGNORECASE) or (asks and not (standing or when)):
        return None
    bans = re.match(rf"(?:{_BAN}|no |not |without|skip|leave out|i (?:hate|dislike|do|don))", lesson, re.IGNORECASE)
    return Understanding(
        kind="teach", lesson=lesson, when=when, boundary=boundary, polarity="avoid" if bans else "do"
    )  # fmt: skip


def _split(body: str) -> tuple[str, str]:
    """The lesson and the situation of a sentence, in its own words."""
    if re.match(r"i (?:hate|dislike|don'?t like) it\b", body, re.IGNORECASE):
        return body, ""
    rest = rf"(?P<lesson>(?:please )?(?:{_BAN}|always \w|{_VERB}\b|no\b|i (?:prefer|want)).+)"
    if found := re.fullmatch(rf"when(?:ever)? (?P<when>you [^,]+), *(?:then )?(?P<lesson>(?!{_ASKING}).+)", body, re.I):
        return _clean(found["lesson"]), _clean(found["when"])
    for lead in (rf"{_WHEN} (?P<when>.+?)", r"(?:in|for|with|on) (?P<when>(?:(?!\b(?:a|an)\b).)+?)"):
        if found := re.fullmatch(
            rf"{lead}(?:, *(?:then )?| (?=(?:please )?(?:{_BAN}|always )))" + rest, body, re.IGNORECASE
        ):
            return _clean(found["lesson"]), _clean(found["when"])
    for tail in (
        rf"(?:, *| )(?:but )?(?:only |just )?{_WHEN} (?P<when>.+)",
        r" only (?:for|in|with|to|on) (?P<when>.+)",
    ):
        if found := re.fullmatch(r"(?P<lesson>.+?)" + tail, body, re.IGNORECASE):
            return _clean(found["lesson"]), _clean(found["when"])
    for found in re.finditer(r" (?:in|for|with|to|on) (?=(?P<when>.+)$)", body, re.IGNORECASE):
        lesson, when = body[: found.start()], found["when"]
        if len(lesson.split()) > 1 and len(when.split()) <= 8 and _SITUATION.match(when):
            return _clean(lesson), _clean(when)
    return _clean(body), ""


def _exception(body: str) -> tuple[str, str]:
    found = re.fullmatch(
        rf"(?P<body>.+?)(?:,? but not|,? except|, not|,? unless)(?: {_WHEN}| for| in| to| with| on| it(?:'s|’s| is))+"
        r" (?P<boundary>.+)",
        body,
        re.IGNORECASE,
    ) or re.fullmatch(r"(?P<body>.+?),? (?:except|unless) (?P<boundary>.+)", body, re.IGNORECASE)
    return (_clean(found["body"]), _clean(found["boundary"])) if found else (body, "")


def _change(text: str, about: str, known: Sequence[Reflection] | None) -> Understanding | None:
    """A message that as a whole changes a lesson: forget it, only for, also for, not for; None for any other.

    Without `known` any lesson may be meant (the gate).
    """
    said = " ".join(text.split())
    if len(said) > 200 or said.endswith("?"):
        return None
    said = _clean(re.sub(r"^(?:(?:please|ok(?:ay)?|and|but|no|hm+)[\s,.:;-]+)+", "", said, flags=re.IGNORECASE))
    place = rf"(?:{_WHEN}|for|in|with|to|on)"
    if found := re.fullmatch(
        r"forget (?:(?P<last>that|it|this)(?: (?:one|rule|lesson|again))?|(?:what i (?:said|told you) about|"
        r"the (?:rule|lesson|thing|one) (?:about|on|with|for)|about) (?P<what>.+))",
        said,
        re.IGNORECASE,
    ):
        target = about if found["last"] or known is None else _about(found["what"], known)
        return Understanding(kind="forget", about=target) if target else None
    if not about:
        return None
    if re.fullmatch(r"(?:always|everywhere|in general|for everything|in all (?:chats|cases))", said, re.IGNORECASE):
        return Understanding(kind="widen", about=about)
    for kind, lead in (
        ("when", rf"(?:that(?:'s|’s| is)? |apply (?:that|it) )?(?:only|just) {place}"),
        ("also", rf"(?:also|(?:the )?same(?: goes| holds| applies)?) {place}"),
        ("boundary", rf"(?:not {place}|except(?: {place})?|unless(?: it(?:'s|’s| is))?)"),
    ):
        if found := re.fullmatch(rf"{lead} (?P<where>.+)", said, re.IGNORECASE):
            where = _clean(found["where"])
            if not _telling(where):
                return None
            if kind == "boundary":
                return Understanding(kind="narrow", about=about, boundary=where)
            return Understanding(kind="narrow" if kind == "when" else "widen", about=about, when=where)
    return None


def _about(words: str, known: Sequence[Reflection]) -> str:
    """Id of the one lesson that some words name best, or an empty text."""
    wanted = set(_informative(words))
    shared = {r.id: len(wanted & set(_informative(f"{r.text} {r.when}"))) for r in known if r.status != "retired"}
    best = max(shared.values(), default=0)
    top = [i for i, n in shared.items() if n == best]
    return top[-1] if best and len(top) == 1 else ""


def _clean(text: str) -> str:
    return re.sub(
        r"^(?:please|then)\b[\s,]*|[\s,;:.!]*(?:\bplease)?[\s,;:.!]*$", "", text.strip(), flags=re.IGNORECASE
    ).strip()


def _informative(text: str) -> list[str]:
    found: list[str] = load_function("memory", "words", "informative")(text)
    return found


def _telling(text: str) -> bool:
    """Whether some words say what is wanted, beside that something is."""
    return bool(set(_informative(text)) - _EMPTY)


__all__ = ["FIXED", "LONG", "Before", "may_teach", "situation", "understand"]
