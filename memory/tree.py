"""Many lessons at once: condensed in small groups, then the condensed ones, then curated; never all in one call.

Of n lessons each group holds ceil(sqrt(n)), so the largest prompt grows with the root of the batch, and what one call
forgets is one group's. The curator inside sees few lessons, and proposes small operations as ever.

Source: the map and reduce of ComBEE, which gepa 0.1.4 names as a reflection strategy; ACE (arXiv 2510.04618) on why one
call should never rewrite a whole memory.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from verbal.contracts import Curator, Model
from verbal.errors import ConfigError
from verbal.parts import load_part, make_part
from verbal.types import MemoryOp, Reflection

from .condense import condensed


class TreeCurator:
    """Puts a tree of condensations before another curator.

    Args:
        model: Who condenses (and curates, where the curator asks a model); None compares words in both.
        curator: Name of the curator that proposes the operations.
        options: Its options.
        least: Lessons from which they are condensed; fewer go to the curator as they are.
        keep: Lessons that a group may become.
        prompt: Name of the prompt (variables lessons, most).
        prompts: A folder of the user's that overrides prompts of the package.
        tries: Replies asked for at most, the first included; a group that cannot be condensed stays as it is.
        max_tokens: Of one reply.
    """

    author = "tree"

    def __init__(
        self,
        model: Model | None = None,
        *,
        curator: str = "curator",
        options: Mapping[str, Any] | None = None,
        least: int = 9,
        keep: int = 2,
        prompt: str = "memory/condense",
        prompts: str | None = None,
        tries: int = 3,
        max_tokens: int = 1024,
    ) -> None:
        if curator == "tree" or least < 2 or keep < 1 or tries < 1:
            what = f"curator {curator!r}, least {least}, keep {keep}, tries {tries}"
            raise ConfigError(
                what, where="tree", todo="name another curator; least 2 or more, keep and tries 1 or more"
            )
        given = dict(options or {})
        if "model" in inspect.signature(load_part("memory", curator, where="tree")).parameters:
            given["model"] = model
        self._inner: Curator = make_part("memory", curator, where="tree", **given)
        self._model, self._least, self._keep = model, least, keep
        self._condensed = partial(condensed, prompt=prompt, prompts=prompts, tries=tries, max_tokens=max_tokens)

    async def propose(self, lessons: Sequence[Reflection], existing: Sequence[Reflection]) -> list[MemoryOp]:
        """What the curator proposes for the condensed lessons; requests to forget reach it as they are.

        Raises:
            ModelError: a call failed (nothing is proposed then).
        """
        forget = [r for r in lessons if r.status == "retired"]
        taught = [r for r in lessons if r.status != "retired" and r.text.strip()]
        if len(taught) >= self._least:
            size = group_size(len(taught))
            for _ in range(2):
                taught = await self._level(taught, size)
        return await self._inner.propose([*taught, *forget], existing) if taught or forget else []

    async def _level(self, lessons: Sequence[Reflection], size: int) -> list[Reflection]:
        """The lessons after each group of `size` was condensed, one group after the other."""
        found: list[Reflection] = []
        for at in range(0, len(lessons), size):
            group = lessons[at : at + size]
            found += await self._condensed(self._model, group, most=min(self._keep, len(group)))
        return found


def group_size(n: int) -> int:
    """ceil(sqrt(n)): lessons of one group.

    >>> group_size(9), group_size(10), group_size(100)
    (3, 4, 10)
    """
    return math.isqrt(n - 1) + 1 if n else 0


__all__ = ["TreeCurator", "group_size"]
