"""Answers from a network: sampling under the mask of allowed tokens, reading the result, never a query tried before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from verbal.models.embedded.codec import Answer, Encoded, Unsupported, decode_answer
from verbal.models.embedded.forward import Array, Cache, Network, choose, log_softmax
from verbal.models.embedded.mask import Mask
from verbal.models.embedded.vocabulary import INDEX, VOCABULARY

_EOS = INDEX["<eos>"]
_CACHED = 32
_AGAIN = 8
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled answer."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    """Log-probability of each token under the network itself (temperature 1, no mask)."""
    answer: Answer | None
    """None when the tokens are no well-formed answer, or no allowed one was found."""
    problem: str = ""
    """Why there is no answer."""
    finished: bool = True
    """False when the token limit cut it."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids."""
        return tuple(INDEX[token] for token in self.tokens)


class Decoder:
    """Samples answers of one network; keeps what it read of recent schemas."""

    def __init__(self, network: Network) -> None:
        """Uses `network`, whose vocabulary must be the codec's.

        Raises:
            ValueError: when it is not.
        """
        if network.embedding.shape[0] != len(VOCABULARY):
            raise ValueError(f"a network of {network.embedding.shape[0]} tokens; the codec has {len(VOCABULARY)}")
        self.network = network
        self._schemas: OrderedDict[tuple[str, ...], Cache] = OrderedDict()
        self._lock = Lock()

    def _read(self, encoded: Encoded) -> tuple[Array, Cache]:
        """Scores of the first answer token and the cache of the whole prompt."""
        schema = encoded.tokens[: encoded.schema_tokens]
        with self._lock:
            cache = self._schemas.get(schema)
        if cache is None:
            _, cache = self.network.read([INDEX[token] for token in schema])
        with self._lock:
            self._schemas[schema] = cache
            self._schemas.move_to_end(schema)
            while len(self._schemas) > _CACHED:
                self._schemas.popitem(last=False)
        return self.network.read([INDEX[token] for token in encoded.tokens[encoded.schema_tokens :]], cache)

    def right(self, encoded: Encoded) -> float:
        """Probability that a critic's (or judge's) verdict is `right`."""
        scores, _ = self._read(encoded)
        right, wrong = (float(scores[INDEX[word]]) for word in ("right", "wrong"))
        return 1.0 / (1.0 + float(np.exp(wrong - right)))

    def samples(
        self,
        encoded: Encoded,
        n: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        max_tokens: int = 128,
    ) -> list[Sample]:
        """`n` answers; sample i depends on the prompt, the settings and (seed, i) only.

        Raises:
            Unsupported: when the prompt leaves no room in the network's context.
        """
        room = min(max_tokens, self.network.context - len(encoded.tokens))
        if room < 1:
            raise Unsupported(f"a prompt of {len(encoded.tokens)} tokens, limit {self.network.context - 1}")
        first, cache = self._read(encoded)
        if temperature <= 0:
            rows = self._sampled(encoded, first, cache, [np.random.default_rng(seed)], 0.0, 1.0, room)
            return [_understood(encoded, *rows[0])] * n
        drawn = [np.random.default_rng((seed, place)) for place in range(n)]
        rows = self._sampled(encoded, first, cache, drawn, temperature, top_p, room)
        return [_understood(encoded, *row) for row in rows]

    def _sampled(
        self,
        encoded: Encoded,
        first: Array,
        cache: Cache,
        rngs: Sequence[np.random.Generator],
        temperature: float,
        top_p: float,
        room: int,
    ) -> list[tuple[list[int], list[float]]]:
        mask = Mask(encoded)
        done: list[tuple[list[int], list[float]]] = [([], []) for _ in rngs]
        active = list(range(len(rngs)))
        scores = np.repeat(first[None], len(rngs), axis=0)
        tails = self.network.grow(cache, len(rngs), room)
        for place in range(room):
            logs = log_softmax(scores)
            chosen: list[int] = []
            for row, sample in enumerate(active):
                token = choose(mask.apply(scores[row], done[sample][0]), temperature, top_p, rngs[sample])
                done[sample][0].append(token)
                done[sample][1].append(float(logs[row, token]))
                chosen.append(token)
            going = [row for row, token in enumerate(chosen) if token != _EOS]
            if not going or place + 1 == room:
                break
            if len(going) < len(active):
                tails.keep(going)
                active = [active[row] for row in going]
            scores = self.network.step(np.array([chosen[row] for row in going]), tails)
        return done

    def answers(
        self,
        encoded: Encoded,
        n: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        max_tokens: int = 128,
        avoid: Collection[str] = (),
    ) -> list[Sample]:
        """`n` answers of which none is malformed or has a query in `avoid`, as far as sampling on finds others.

        A sample that has to be replaced is drawn again, hotter each time; where nothing is found its `answer` is None.

        Args:
            encoded: the prompt.
            n: number of answers.
            temperature: 0 for the best.
            top_p: share of the probability that is drawn from.
            seed: of the draws.
            max_tokens: longest answer.
            avoid: SQL texts as `decode_answer` writes them.
        """
        found = self.samples(encoded, n, temperature, top_p, seed, max_tokens)
        for turn in range(_ROUNDS):
            if all(_good(sample, avoid) for sample in found):
                return found
            heat = max(temperature, 0.7) + 0.3 * turn
            spare = self.samples(encoded, _AGAIN, heat, 1.0, seed + 7919 * (turn + 1), max_tokens)
            good = sorted((one for one in spare if _good(one, avoid)), key=lambda one: -sum(one.logprobs))
            for place, sample in enumerate(found):
                if good and not _good(sample, avoid):
                    found[place] = good[0] if len(good) == 1 else good.pop(0)
        return [one if _good(one, avoid) else replace(one, answer=None, problem=_problem(one)) for one in found]


def _good(sample: Sample, avoid: Collection[str]) -> bool:
    return sample.answer is not None and not (sample.answer.sql and sample.answer.sql in avoid)


def _problem(sample: Sample) -> str:
    return sample.problem or "every query that was found had been tried before"


def _understood(encoded: Encoded, ids: list[int], logprobs: list[float]) -> Sample:
    tokens = tuple(VOCABULARY[token] for token in ids)
    finished = bool(ids) and ids[-1] == _EOS
    try:
        answer = decode_answer(encoded, tokens) if finished else None
        problem = "" if finished else "the answer was cut at its token limit"
    except Unsupported as error:
        answer, problem = None, str(error)
    return Sample(tokens, tuple(logprobs), answer, problem, finished)
