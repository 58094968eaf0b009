"""Which of the shown reflections a reply names."""

from __future__ import annotations

import re
from collections.abc import Sequence


def cited(text: str, shown: Sequence[str]) -> tuple[str, ...]:
    """The ids of `shown` that a reply names outside of its code, in the order shown."""
    prose = re.sub(r"```.*?(```|\Z)", " ", text, flags=re.DOTALL)
    return tuple(i for i in dict.fromkeys(shown) if re.search(rf"(?<![\w.-]){re.escape(i)}(?![\w-])", prose))
