"""A tiny world for methods that train other roles than the solver; its parts stand in role_parts.py."""

import dataclasses
import hashlib
import re
from pathlib import Path

from verbal.contracts import Reply
from verbal.models.scripted import ScriptedModel
from verbal.recipe import CriticsTable
from verbal.trainers.rollouts import Rollouts
from verbal.types import Usage

from .group_runs import WordWeights, recipe

HERE = str(Path(__file__).with_name("role_parts.py"))
GOLD = {"anchor": "777", "basket": "888"}


def world(critic="Percent", app="", codes=GOLD, **loop):
    """A recipe over the tiny app with a critic of that file."""
    plan = recipe(codes, **loop)
    name = f"{HERE}:{critic}"
    plan = dataclasses.replace(plan, critics=CriticsTable(names=(name,), verdict=name))
    return dataclasses.replace(plan, app=dataclasses.replace(plan.app, name=f"{HERE}:{app}")) if app else plan


class TellingWeights(WordWeights):
    """Weights that tell tokens and log-probabilities, where they are asked to (`mute` roles never do)."""

    def __init__(self, reply, mute=()):
        self.heard = []

        def tell(messages, index, seed):
            text, prompt = reply(messages, index, seed), messages[-1].content
            self.heard.append((prompt, text))
            role = re.search(r"# Role: (\w+)", prompt)[1]
            ids = tuple(
                int.from_bytes(hashlib.blake2b(w.encode(), digest_size=2).digest(), "big") for w in text.split()
            )
            told = () if role in mute else ids
            usage = Usage(calls=1, prompt_tokens=1, completion_tokens=len(ids))
            return Reply(text=text, usage=usage, token_ids=told or None, logprobs=tuple(-0.5 for _ in told) or None)

        self.model = ScriptedModel(tell)


def opened(folder, plan, weights, tasks=("train-anchor",), temperature=1.0):
    """Rollouts of weights over a recipe; used as a context."""
    return Rollouts(plan, tasks, weights, Path(folder), seed=0, temperature=temperature, max_tokens=8)
