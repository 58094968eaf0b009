"""Words and numbers for people: text that is safe to show, shares, money, durations. Used by terminal and page."""

from __future__ import annotations

# Terminals act on control characters, and direction marks reorder what is read: each is replaced by a visible sign.
_SIGNS = {
    **{code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)},
    0x7F: 0x2421,
    **dict.fromkeys([*range(0x80, 0xA0), 0x200E, 0x200F, 0x2028, 0x2029], 0xFFFD),
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)], 0xFFFD),
}


def visible(text: object, limit: int | None = None, *, line: bool = False) -> str:
    r"""Text that is safe to show: control characters become visible signs, line feeds and tabs stay.

    Args:
        text: Anything; shown as `str` gives it.
        limit: Characters at most; what is longer ends in an ellipsis.
        line: Also joins lines and runs of blanks, so that it fits one line.

    >>> visible("a\x1b[31mb\r\n"), visible("one\n  two", line=True), visible("abcdef", 4)
    ('a␛[31mb\n', 'one two', 'abc…')
    """
    shown = str(text).replace("\r\n", "\n").translate(_SIGNS)
    shown = " ".join(shown.split()) if line else shown
    return shown if limit is None or len(shown) <= limit else shown[: max(limit - 1, 0)] + "…"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 as per cent; a dash when there is none (None, not a number).

    >>> percent(0.6125), percent(None)
    ('61.3 %', '–')
    """
    return "–" if share is None or share != share else f"{100 * share:.{digits}f} %"


def money(cost: float | None) -> str:
    """US dollars, with more digits for small sums; says so when no price is known.

    >>> money(12.3456), money(0.0123), money(0.0), money(None)
    ('$12.35', '$0.0123', '$0.00', 'no price known')
    """
    if cost is None:
        return "no price known"
    if 0 < cost < 0.0001:
        return "< $0.0001"
    return f"${cost:,.4f}" if 0 < cost < 0.1 else f"${cost:,.2f}"


def clock(seconds: float) -> str:
    """A duration as `m:ss` or `h:mm:ss`.

    >>> clock(7.9), clock(3725)
    ('0:07', '1:02:05')
    """
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
