"""Retrieval policies by name: which of the items that may be shown come first for a query.

A policy is a function of `Candidates` that gives ids, best first; its keyword arguments are its options
(`policy_options` of a memory), and there is no registry beside `POLICIES`. Whatever it gives, `Candidates.fits` has
left out before what may not be shown (another standing, an excluded task, another scope, out of bounds, larger than the
token cap), and `retrieval.together` cuts it to what can stand in one prompt.

Nothing here is random: a lot is a hash of `seed`, query and id, so the same query on the same memory finds the same.
Ties go by id as text (`r10` before `r2`): ids need not be numbers, and so do indexes and SQL.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from verbal.errors import ConfigError, UnknownName

from .candidates import Candidates

if TYPE_CHECKING:
    from numpy.typing import NDArray

Policy = Callable[[Candidates], Iterable[str]]
"""Ids for a query, best first."""


def recent(found: Candidates) -> Iterable[str]:
    """The newest first, whatever is asked.

    Source: Reflexion, arXiv 2303.11366 (with scope `task`: the last k reflections on the task at hand).
    """
    return (i for i in reversed(found.items) if found.fits(i))


def everything(found: Candidates) -> Iterable[str]:
    """All that fits under `k` and the token cap, oldest first, so that prompts begin alike.

    Where not all fits, those with the lowest helped - harmed are left out, the oldest first.

    Source: ACE, arXiv 2510.04618 (the whole playbook; the eviction rule of our notes on it) and Training-Free GRPO,
    arXiv 2510.08191 (all experiences in their order).
    """
    newest = [i for i in reversed(found.items) if found.fits(i)]
    worth = {i: c.helped - c.harmed for i in newest for c in (found.items[i].counters,)}
    chosen = {r.id for r in found.together(sorted(newest, key=lambda i: -worth[i]))}
    return [i for i in reversed(newest) if i in chosen]


def similar(found: Candidates) -> Iterable[str]:
    """Words (BM25) and vectors fused by rank, irrelevant items dropped."""
    return found.alike()


def nearest(found: Candidates) -> Iterable[str]:
    """The nearest by vector alone, however little they have to do with it: for embedders that know what words mean."""
    return found.by_vector()


def value(
    found: Candidates,
    *,
    delta: float = 0.1,
    k1: int = 10,
    w_sim: float = 0.5,
    w_q: float = 0.5,
    sim_mean: float | None = None,
    sim_std: float | None = None,
    q_init: float = 0.0,
    q_min: float = -0.8,
    epsilon: float = 0.1,
    seed: int = 0,
) -> Iterable[str]:
    """What is near enough, ordered by similarity and value together.

    The candidates are those of `similar` (set `min_overlap = 0` for the source's, which are near by vector alone).

    Args:
        found: What may be shown.
        delta: Least cosine similarity. Its place depends on the embedder (source: 0.38; hashing lies lower).
        k1: How many of the nearest are weighed.
        w_sim: Weight of similarity.
        w_q: Weight of value.
        sim_mean: Mean of the similarities of a data set; None takes that of the candidates. The source fixes both.
        sim_std: Their standard deviation.
        q_init: Value of an item that has none yet.
        q_min: Items of lower value are left out.
        epsilon: Chance that a query is answered by chance: each candidate is as likely.
        seed: Of that lot.

    Source: MemRL, arXiv 2601.03192.
    """
    near = {i: s for i, s in found.similarity(list(found.alike())).items() if s >= delta}
    top = sorted(near, key=lambda i: (-near[i], i))[:k1]
    values = {i: q_init if (q := found.items[i].value) is None else q for i in top}
    scores = value_scores(
        {i: near[i] for i in top}, values, w_sim=w_sim, w_q=w_q, sim_mean=sim_mean, sim_std=sim_std, q_min=q_min
    )
    if lot(seed, found.query, "explore") < epsilon:
        return sorted(scores, key=lambda i: (lot(seed, found.query, i), i))
    return sorted(scores, key=lambda i: (-round(scores[i], 9), i))


def value_scores(
    similarity: Mapping[str, float],
    values: Mapping[str, float],
    *,
    w_sim: float = 0.5,
    w_q: float = 0.5,
    sim_mean: float | None = None,
    sim_std: float | None = None,
    q_min: float = -0.8,
) -> dict[str, float]:
    """Score = w_sim * (sim - mu) / sigma + w_q * clip((Q - mean) / std, -3, 3) of each candidate with Q >= q_min.

    Mean and std are those of all candidates, those below `q_min` included, as in the source's code; a spread of zero
    makes the term zero.
    """
    of_sim = _standard(similarity, sim_mean, sim_std)
    of_q = _standard(values)
    return {i: w_sim * of_sim[i] + w_q * min(max(of_q[i], -3.0), 3.0) for i in similarity if values[i] >= q_min}


def diverse(found: Candidates, *, balance: float = 0.7) -> Iterable[str]:
    """What is near and unlike what was taken before it.

    Args:
        found: What may be shown; the candidates are those of `similar`.
        balance: Weight of being near, 0 to 1; 1 orders by similarity alone.

    Source: Carbonell and Goldstein 1998, The use of MMR.
    """
    near = found.similarity(list(found.alike()))
    ids = sorted(near)
    return (ids[place] for place in mmr([near[i] for i in ids], found.likeness(ids), balance))


def mmr(relevance: Sequence[float], likeness: Callable[[int], NDArray[np.float64]], balance: float) -> Iterator[int]:
    """Places of all candidates, each time the one of the largest balance * relevance - (1 - balance) * likeness.

    Args:
        relevance: Of each candidate.
        likeness: Place -> how alike that candidate is to each. Shape: [candidates]. Only the largest to any that was
            taken before counts.
        balance: Weight of relevance, 0 to 1.
    """
    gain = balance * np.asarray(relevance, dtype=np.float64)
    nearest = np.zeros(len(gain))
    for step in range(len(gain)):
        best = int(np.argmax(np.round(gain - (1 - balance) * nearest, 9)))
        yield best
        gain[best] = -np.inf
        nearest = np.maximum(nearest, likeness(best)) if step else likeness(best)


def pareto(found: Candidates, *, pool: str = "relevant", seed: int = 0) -> Iterable[str]:
    """By lot among the items that are the best on some task, each as likely as the number of such tasks.

    An item's score on a task is its mean outcome there when shown. Items without a trial follow, as `similar` orders
    them; those that others beat everywhere do not come.

    Args:
        found: What may be shown.
        pool: `relevant`, the candidates of `similar`; `all`, every item whatever is asked, as in the source.
        seed: Of the lot.

    Source: GEPA, arXiv 2507.19457.
    """
    ids = [i for i in found.items if found.fits(i)] if pool == "all" else list(found.alike())
    scores = {i: s for i in ids if (s := found.outcomes(i))}
    means = {i: math.fsum(s.values()) / len(s) for i, s in scores.items()}
    weights = pareto_weights(pareto_fronts(scores), means)
    drawn = sorted(weights, key=lambda i: (-math.log(1 - lot(seed, found.query, i)) / weights[i], i))
    return [*drawn, *(i for i in ids if i not in scores)]


def pareto_fronts(scores: Mapping[str, Mapping[str, float]]) -> dict[str, set[str]]:
    """Task -> the candidates that reach the best score on it."""
    best: dict[str, float] = {}
    fronts: dict[str, set[str]] = {}
    for candidate, by_task in scores.items():
        for task, score in by_task.items():
            if score > best.get(task, -math.inf):
                best[task], fronts[task] = score, {candidate}
            elif score == best[task]:
                fronts[task].add(candidate)
    return fronts


def pareto_weights(fronts: Mapping[str, Collection[str]], means: Mapping[str, float]) -> dict[str, int]:
    """Candidate -> the number of fronts it stands in, without dominated ones.

    A candidate is dominated when every front that holds it holds another one that is left; the lowest mean is looked at
    first, ties by id.
    """
    left = {i for front in fronts.values() for i in front}
    for candidate in sorted(left, key=lambda i: (means[i], i)):
        if all(len(left.intersection(front)) > 1 for front in fronts.values() if candidate in front):
            left.remove(candidate)
    return {i: sum(i in front for front in fronts.values()) for i in sorted(left)}


def source_task(found: Candidates, *, tasks: int = 1) -> Iterable[str]:
    """All items of the task whose question is the nearest: found ones first, then by id.

    An item's question is its `when`, else its text; one without a task stands for itself. A task none of whose items
    may be shown falls through to the next.

    Args:
        found: What may be shown; the tasks are those of the candidates of `similar`.
        tasks: How many tasks are opened.

    Source: ReasoningBank, arXiv 2509.25140.
    """
    ranked = list(found.alike())
    asked = found.text_similarity([found.items[i].when or found.items[i].text for i in ranked])
    nearest: dict[tuple[str | None, str], float] = {}
    for item_id, similarity in zip(ranked, asked, strict=True):
        task = found.items[item_id].task
        key = (task, "" if task else item_id)
        nearest[key] = max(nearest.get(key, -math.inf), similarity)
    opened = sorted(nearest, key=lambda key: (-nearest[key], key[0] or "", key[1]))
    place = {i: n for n, i in enumerate(ranked)}
    chosen: dict[str, None] = {}
    for task, own in islice(opened, tasks):
        ids = [i for i in found.of_task(task) if found.fits(i)] if task else [own]
        chosen.update(dict.fromkeys(sorted(ids, key=lambda i: (place.get(i, len(place)), i))))
    return list(chosen)


POLICIES: dict[str, Callable[..., Iterable[str]]] = {
    "recent": recent,
    "all": everything,
    "similar": similar,
    "value": value,
    "diverse": diverse,
    "nearest": nearest,
    "pareto": pareto,
    "source_task": source_task,
    "last": recent,
}
"""Name -> policy. `last` is an older name of `recent`."""

_POOLS = ("relevant", "all")
_RANGES: dict[str, tuple[float, float]] = {
    "delta": (-1, 1), "k1": (1, 100_000), "w_sim": (0, 1e9), "w_q": (0, 1e9), "sim_mean": (-1, 1), "sim_std": (1e-9, 2),
    "q_init": (-1e9, 1e9), "q_min": (-1e9, 1e9), "epsilon": (0, 1), "seed": (-(2**63), 2**63), "balance": (0, 1),
    "tasks": (1, 1000),
}  # fmt: skip


def make_policy(name: str, options: Mapping[str, Any] | None = None, *, where: str = "") -> Policy:
    """The policy `name` with its options.

    Raises:
        UnknownName: no such policy, or it has no such option (lists the nearest). ConfigError: a value out of range.
    """
    if name not in POLICIES:
        raise UnknownName.of("retrieval policy", name, POLICIES, where=where)
    known = {
        p.name: p.default for p in inspect.signature(POLICIES[name]).parameters.values() if p.kind == p.KEYWORD_ONLY
    }
    for key, given in (options or {}).items():
        if key not in known:
            raise UnknownName.of(f"option of retrieval policy {name!r}", key, known, where=where)
        _check(name, key, given, whole=type(known[key]) is int, none=known[key] is None, where=where)
    return partial(POLICIES[name], **(options or {}))


def lot(seed: int, query: str, name: str) -> float:
    """A number in [0, 1) that depends on seed, query and name only."""
    told = "\0".join((str(seed), query, name)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") / 2.0**64 * (1 - 2.0**-53)


def _check(policy: str, key: str, given: object, *, whole: bool, none: bool, where: str) -> None:
    if key == "pool":
        if given not in _POOLS:
            raise UnknownName.of("pool of retrieval policy 'pareto'", str(given), _POOLS, where=where)
        return
    low, high = _RANGES[key]
    kinds = int if whole else (int, float)
    good = isinstance(given, kinds) and not isinstance(given, bool) and low <= given <= high
    if not good and not (none and given is None):
        raise ConfigError(
            f"option {key} = {given!r} of retrieval policy {policy!r}",
            where=where,
            todo=f"give {'a whole number' if whole else 'a number'} from {low:g} to {high:g}",
        )


def _standard(numbers: Mapping[str, float], mean: float | None = None, std: float | None = None) -> dict[str, float]:
    """The numbers less their mean, over their standard deviation (of all, not of a sample)."""
    if not numbers:
        return {}
    middle = math.fsum(numbers.values()) / len(numbers) if mean is None else mean
    spread = math.sqrt(math.fsum((x - middle) ** 2 for x in numbers.values()) / len(numbers)) if std is None else std
    return {i: (x - middle) / spread if spread > 1e-12 else 0.0 for i, x in numbers.items()}
