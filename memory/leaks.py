"""Secrets in a text: keys, tokens, passwords, private keys, connection strings; e-mail addresses if asked for.

Two kinds of evidence: a form that its issuer made to be recognised (`ghp_...`, a PEM header), and a value beside a word
such as `password` that looks random. A value that is a place-holder (`<your key>`, `$TOKEN`, `xxxx`) is none. What is
found is told by kind and place; the words themselves are never repeated.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Secret(NamedTuple):
    """Where a secret stands in a text."""

    kind: str
    start: int
    end: int
    """One after its last character."""


_FORMS: tuple[tuple[str, str], ...] = (
    ("private key", r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
     r"(?:[^-]{0,8000}-----END [A-Z0-9 ]{0,40}-----)?"),
    ("AWS key", r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA)[A-Z2-7]{16}\b"),
    ("GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{40,255}\b"),
    ("GitLab token", r"\bgl(?:pat|dt|rt|ptt|oas)-[\w-]{20,64}\b"),
    ("Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}\b|"
    r"\bhooks\.slack\.com/services/T\w{6,12}/B\w{6,14}/\w{16,30}\b"),
    ("Anthropic key", r"\bsk-ant-[\w-]{20,200}"),
    ("OpenAI key", r"\bsk-(?:proj-|svcacct-|admin-|None-)?(?=[A-Za-z_-]{0,60}\d)[A-Za-z0-9_-]{20,200}"),
    ("Google key", r"\bAIza[\w-]{35}\b|\bya29\.[\w-]{20,300}|\bGOCSPX-[\w-]{28}\b"),
    ("Stripe key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}\b|\bwhsec_[A-Za-z0-9+/]{24,80}"),
    ("Hugging Face token", r"\bhf_[A-Za-z0-9]{30,40}\b"),
    ("npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("PyPI token", r"\bpypi-[\w-]{50,300}"),
    ("SendGrid key", r"\bSG\.[\w-]{16,32}\.[\w-]{30,64}\b"),
    ("Telegram token", r"\b\d{8,10}:AA[\w-]{33}\b"),
    ("Azure key", r"\bAccountKey=[A-Za-z0-9+/]{60,100}={0,2}|\bSharedAccessKey=[A-Za-z0-9+/]{40,60}={0,2}"),
    ("JWT", r"\beyJ[\w-]{8,4000}\.eyJ[\w-]{8,8000}\.[\w-]{8,2000}"),
    ("bearer token", r"\b[Bb]earer\s{1,3}(?=[A-Za-z_.~+/=-]{0,80}\d)[\w.~+/-]{20,2000}=*|"
    r"\bBasic\s{1,3}(?=[A-Za-z]{0,80}\d)[A-Za-z0-9+/]{16,400}={0,2}"),
)  # fmt: skip
_MARKS: dict[str, tuple[str, ...]] = {
    "private key": ("PRIVATE KEY",),
    "AWS key": ("AKIA", "ASIA", "AGPA", "AIDA", "AROA", "ANPA", "ANVA"),
    "GitHub token": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    "GitLab token": ("glpat-", "gldt-", "glrt-", "glptt-", "gloas-"),
    "Slack token": ("xox", "hooks.slack.com"),
    "Anthropic key": ("sk-ant-",),
    "OpenAI key": ("sk-",),
    "Google key": ("AIza", "ya29.", "GOCSPX-"),
    "Stripe key": ("k_live_", "k_test_", "whsec_"),
    "Hugging Face token": ("hf_",),
    "npm token": ("npm_",),
    "PyPI token": ("pypi-",),
    "SendGrid key": ("SG.",),
    "Telegram token": (":AA",),
    "Azure key": ("AccountKey=", "SharedAccessKey="),
    "JWT": ("eyJ",),
    "bearer token": ("earer", "Basic"),
}
"""Kind -> texts of which its form holds one: a text without them needs no search, and that is most texts."""
_WORDS = ("key", "secret", "token", "pass", "pwd", "credential")
_COMPILED = [(kind, _MARKS[kind], re.compile(pattern)) for kind, pattern in _FORMS]

_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,30}://[^\s:/@'\"]{0,100}:(?P<value>[^\s@/'\"]{3,200})@[\w.\[-]")
_NAMED = re.compile(
    r"(?ix)(?<![a-z0-9])(?P<name>(?:[a-z0-9]{1,20}[_-]){0,4}(?:api[_\ -]?key|access[_\ -]?key|"
    r"secret(?:[_\ -]?(?:key|token))?|"
    r"auth[_\ -]?token|token|pass(?:word|wd|phrase|code)|pwd|client[_\ -]?secret|private[_\ -]?key|credentials?))"
    r"(?P<join>(?:\ (?:for|of|to|on|at)(?:\ [\w.@-]{1,40}){1,4}?)?\s{0,3}(?:=>|:=|=|:|\bis\b|\bwas\b)\s{0,3}|\s{1,3})"
    r"(?P<quote>['\"`]?)(?P<value>[^\s'\"`,;]{6,200})"
)
_KEY_LIKE = re.compile(r"(?<![\w+/=-])[A-Za-z0-9+/_-]{32,200}={0,2}(?![\w+/=-])")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_PLACEHOLDER = re.compile(
    r"(?i)^(?:[<{\[($%].*|.*[>}\])%]|\*+|x+|\.+|-+|_+|.*(?:your|example|placeholder|changeme|redacted|dummy|sample|"
    r"xxxx|\*\*\*|\.\.\.).*|(?:my|the|some|a)?[_-]?(?:pass(?:word|wd)?|pwd|secret|token|api[_-]?key|key|user)\d?|"
    r"none|null|true|false|os\.environ.*|env\..*|process\.env.*|getenv.*)$"
)
_DATE = re.compile(r"[\d:./TZ+-]+")
_HEX = re.compile(r"(?:0x)?[0-9a-fA-F-]+")


def find_secrets(text: str, *, emails: bool = False) -> list[Secret]:
    """The secrets of a text by place; those that overlap are told once, by the more telling kind.

    >>> [s.kind for s in find_secrets("connect to postgres://app:Tr0ub4dor@db/shop, password = status")]
    ['password in an address']

    Args:
        text: Any text.
        emails: Whether addresses of people count too.
    """
    found: list[Secret] = []
    # Searches that could only find nothing are not made: most texts hold no such word.
    for kind, marks, pattern in _COMPILED:
        if any(mark in text for mark in marks):
            found += [Secret(kind, m.start(), m.end()) for m in pattern.finditer(text)]
    if "://" in text:
        found += _valued("password in an address", _URL, text, lambda _: True)
    folded = text.casefold()
    if any(word in folded for word in _WORDS):
        found += _valued("named secret", _NAMED, text, _says_a_secret)
    found += [Secret("key-like text", m.start(), m.end()) for m in _KEY_LIKE.finditer(text) if _random(m[0])]
    if emails and "@" in text:
        found += [Secret("e-mail", m.start(), m.end()) for m in _EMAIL.finditer(text)]
    kept: list[Secret] = []
    taken = bytearray(len(text) if found else 0)
    for secret in found:
        if 1 not in taken[secret.start : secret.end]:
            taken[secret.start : secret.end] = b"\1" * (secret.end - secret.start)
            kept.append(secret)
    return sorted(kept, key=lambda s: s.start)


def masked(text: str, *, emails: bool = False) -> str:
    """A text with `[kind]` in place of each secret.

    >>> masked("key AKIAIOSFODNN7EXAMPLE works")
    'key [AWS key] works'
    """
    for secret in reversed(find_secrets(text, emails=emails)):
        text = f"{text[: secret.start]}[{secret.kind}]{text[secret.end :]}"
    return text


def _valued(kind: str, pattern: re.Pattern[str], text: str, fits: Callable[[re.Match[str]], bool]) -> Iterator[Secret]:
    for match in pattern.finditer(text):
        if not _PLACEHOLDER.match(match["value"]) and fits(match):
            yield Secret(kind, match.start("value"), match.end("value"))


def _says_a_secret(match: re.Match[str]) -> bool:
    """Whether the value beside a word such as `password` is one: words of a sentence, dates and columns are none."""
    value = match["value"].rstrip(".,;:)!?")
    if len(value) < 6 or _DATE.fullmatch(value) or "(" in value:
        return False
    digits = sum(c.isdigit() for c in value)
    signs = sum(not c.isalnum() and c not in "_-." for c in value)
    mixed = any(c.isupper() for c in value[1:]) and any(c.islower() for c in value)
    # `user.password` and `token_id` are columns: letters, digits at the end, `_` and `.`
    if re.fullmatch(r"[A-Za-z_]+(?:\.[A-Za-z_]+)*\d{0,2}", value) and not (mixed and digits and match["quote"]):
        return False
    classes = (digits > 0) + (signs > 0) + any(c.islower() for c in value) + any(c.isupper() for c in value)
    enough = classes >= 2 and entropy(value) >= 2.3
    if match["join"].strip():
        return enough
    return enough and digits >= 3 and len(value) >= 12  # without a sign between, any word may stand there


def _random(text: str) -> bool:
    """Whether a long run of characters looks drawn by lot; hashes in hex and UUIDs name things and keep no secret."""
    text = text.rstrip("=")
    longest = max(re.split(r"[/_-]", text), key=len)
    if _HEX.fullmatch(text) or len(longest) < 20:
        return False
    counts = (sum(map(test, text)) for test in (str.isdigit, str.isupper, str.islower))
    return all(count >= 3 for count in counts) and entropy(text) >= 4.2 and _switches(longest) >= 0.3


def _switches(text: str) -> float:
    """How often neighbours are of different kinds (digit, capital, small letter), as a share: CamelCase seldom does."""
    kinds = [(c.isdigit(), c.isupper()) for c in text]
    return sum(a != b for a, b in itertools.pairwise(kinds)) / max(len(kinds) - 1, 1)


def entropy(text: str) -> float:
    """Bits for each character, by how often each occurs in the text; 0 for an empty one."""
    size = len(text)
    return -sum(n / size * math.log2(n / size) for n in Counter(text).values()) if text else 0.0


__all__ = ["Secret", "entropy", "find_secrets", "masked"]
