"""The offline default embedder: hashed words and pairs of words. No model, no download, the same in every process."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from verbal.errors import ConfigError

from .words import STOP_WORDS, words


class HashingEmbedder:
    """Texts to unit vectors by feature hashing.

    A word weighs 1 + log(count), a stop word 0.1 of that, a pair of neighbouring informative words 0.7. Each feature
    goes to one dimension with one sign, both from BLAKE2b. Numbers are rounded to six digits: the log keeps them.

    Source: Weinberger et al. 2009, arXiv:0902.2206 (signed feature hashing).

    Args:
        dimension: Length of the vectors.
    """

    def __init__(self, dimension: int = 384) -> None:
        if dimension < 2:
            raise ConfigError(f"dimension {dimension} is too small", where="embedder hashing", todo="take 384")
        self.dimension = dimension
        self.name = f"hashing-{dimension}"

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One unit vector per text; a text without words gets one fixed direction."""
        return [self._embed(text) for text in texts]

    def _embed(self, text: str) -> tuple[float, ...]:
        found = words(text)
        kept = [w for w in found if w not in STOP_WORDS]
        weights: dict[str, float] = {}
        for word, count in Counter(found).items():
            weights[word] = (0.1 if word in STOP_WORDS else 1.0) * (1 + math.log(count))
        for pair, count in Counter(itertools.pairwise(kept)).items():
            weights[" ".join(pair)] = 0.7 * (1 + math.log(count))
        vector = [0.0] * self.dimension
        for feature, weight in sorted(weights.items()) or [("", 1.0)]:
            place, sign = _place(feature, self.dimension)
            vector[place] += sign * weight
        length = math.sqrt(sum(x * x for x in vector))
        if length == 0.0:  # every feature met its opposite in its dimension
            vector[_place("", self.dimension)[0]] = length = 1.0
        return tuple(round(x / length, 6) + 0.0 for x in vector)


@lru_cache(maxsize=65536)
def _place(feature: str, dimension: int) -> tuple[int, float]:
    number = int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return (number >> 1) % dimension, 1.0 if number & 1 else -1.0


__all__ = ["HashingEmbedder"]
