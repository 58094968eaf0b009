"""A corridor of doors as an app of several turns, chat weights of byte-level tokens, and models that walk by rule."""

import itertools
import json
import re
from pathlib import Path

from verbal.contracts import Observation, Reply
from verbal.models.scripted import ScriptedModel
from verbal.recipe import AppTable, CriticsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.trainers.rollouts import Rollouts
from verbal.trainers.weights import open_weights
from verbal.types import Feedback, Message, StopReason, Task, Usage

HERE = Path(__file__)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETFUL = CHATML.replace("m['content']", "(m['content'] if loop.last or m['role'] != 'assistant' else '...')")
"""A template that rewrites the turns before the last message."""
STRICT = "{% if messages[1:] | selectattr('role', 'eq', 'system') | list %}{{ raise_exception('system') }}{% endif %}"
"""Before a template: refuses a system message that is not the first."""


class Corridor:
    """Left or right, door by door; the replies decide what is seen, unless it is restless."""

    name = "corridor"

    def __init__(self, doors=3, restless=False):
        self.doors, self.restless, self.opened = doors, restless, 0

    def tasks(self, split=None):
        walks = [" ".join(w) for w in itertools.product(("left", "right"), repeat=self.doors)]
        return [self.task(f"corridor {i}", id=f"c{i}").replace(gold=w) for i, w in enumerate(walks)]

    def task(self, question, *, id, db=None):
        message = Message(role="user", content=question)
        return Task(id=id, kind="corridor", messages=(message,), info={"question": question}, split="train")

    def environment(self):
        self.opened += 1
        return Walk(self)

    async def execute(self, task, answer):
        return Observation(text="the end", done=True, answer=answer)

    def messages(self, role, task, **fields):
        return [Message(role="user", content=f"{role}: {task.info['question']}")]

    def parse(self, role, text, *, n=0):
        return text.strip() or None

    async def preflight(self, split=None):
        return 0

    async def aclose(self):
        pass


class Walk:
    def __init__(self, app):
        self.app, self.moves = app, []

    async def start(self, task, *, hints=(), tried=()):
        told = "".join(f" hint: {h.text}" for h in hints)
        return [Message(role="user", content=f"{task.info['question']}, {self.app.doors} doors.{told} Door 0?")]

    async def step(self, reply):
        found = re.search(r"left|right", reply.text)
        self.moves.append(found[0] if found else "none")
        door, answer = len(self.moves), " ".join(self.moves)
        if door == self.app.doors:
            return Observation(text="the end", done=True, answer=answer, stop=StopReason.ANSWERED)
        mood = f" (number {self.app.opened})" if self.app.restless else ""
        return Observation(text=f"You went {self.moves[-1]}. Door {door}?{mood}", done=False, answer=answer)

    async def aclose(self):
        pass


class Walked:
    """The share of doors that were right; its words name the first that was not."""

    name, oracle = "walked", True

    async def evaluate(self, task, group, context):
        return [self._one(a, task.gold.split()) for a in group]

    def _one(self, attempt, gold):
        moves = [*attempt.answer.split(), *[""] * len(gold)][: len(gold)]
        good = [a == b for a, b in zip(moves, gold, strict=True)]
        text = "all right" if all(good) else f"door {good.index(False)} was wrong"
        return Feedback(attempt=attempt.id, critic="walked", value=sum(good) / len(good), text=text, source="gold",
                        oracle=True)  # fmt: skip


def record(**changes):
    """A valid reflection as text."""
    said = {
        "trajectory_summary": "walked", "root_cause_analysis": "a wrong door", "trajectory_outcome": "failure",
        "improvement_suggestion": "take the other door", "retry_from_step": 0,
    }  # fmt: skip
    return json.dumps({k: v for k, v in {**said, **changes}.items() if v is not None})


def look_back(messages, index=0, seed=0):
    """The reflection that the words of the critic ask for."""
    text = messages[-1].content
    if "all right" in text:
        return f"Well: {record(trajectory_outcome='success', improvement_suggestion='', retry_from_step=0)} done"
    wrong = int(re.search(r"walked: door (\d+) was wrong", text)[1])
    return record(retry_from_step=wrong, improvement_suggestion=f"At door {wrong} take the other one.")


class Reflector(ScriptedModel):
    """A model of its own for the role of the reflector."""

    def __init__(self):
        super().__init__(look_back)


def walker(wrong=("right", "left", "left"), other=None):
    """A policy that goes one way, and where it is advised the other; it reflects as `look_back`."""
    other = other or {"left": "right", "right": "left"}

    def reply(messages, index, seed):
        text = "\n".join(m.content for m in messages)
        if "JSON object" in text:
            return look_back(messages)
        door = sum(m.role == "assistant" for m in messages)
        way = wrong[door]
        told = re.findall(r"At door (\d+)", text)
        return f"I go {other[way] if str(door) in told else way}"

    return reply


def recipe(*, doors=3, restless=False, roles=None, **loop):
    """A recipe of the corridor."""
    return Recipe(
        name="corridor",
        app=AppTable(name=f"{HERE}:Corridor", options={"doors": doors, "restless": restless}),
        model=ModelTable(name="embedded", roles=dict(roles or {})),
        loop=LoopTable(graph="group", critique=False, **loop),
        critics=CriticsTable(names=(f"{HERE}:Walked",), verdict=f"{HERE}:Walked"),
        memory=MemoryTable(name=""),
    )


def byte_model(folder, template=CHATML, seed=0, context=512):
    """A random Qwen2 with a byte-level tokenizer and a ChatML template, as a folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["You went left. Door 1? You went right. I go left I go right corridor doors"] * 8, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=template
    )
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=context, pad_token_id=0, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


class ByRule(ScriptedModel):
    """A policy by rule that answers in the tokens of weights, and cuts its turns where it is told to."""

    def __init__(self, weights, reply, limit=None):
        super().__init__(reply)
        self.weights, self.limit = weights, limit

    async def generate(self, messages, n, sampling):
        made = await super().generate(messages, n, sampling)
        return [self._tokens(r, [{"role": m.role, "content": m.content} for m in messages]) for r in made]

    def _tokens(self, reply, messages):
        ids = self.weights.answer_ids(messages, reply.text)[: self.limit]
        text = self.weights.tokenizer.decode(ids, skip_special_tokens=True)
        over = ids[-1] == self.weights.tokenizer.eos_token_id
        usage = Usage(calls=1, completion_tokens=len(ids))
        return Reply(text=text, finish="stop" if over else "length", token_ids=tuple(ids),
                     logprobs=(-0.5,) * len(ids), usage=usage)  # fmt: skip


def corridor(model, folder, reply=None, *, tasks=("c0",), limit=None, max_tokens=6, chats=True, **changes):
    """Rollouts of the corridor with the weights of a folder, or walking by rule; used as a context."""
    weights = open_weights(model)
    if reply is not None:
        weights._policy = ByRule(weights, reply, limit)
        weights._policy.chats = chats
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Rollouts(recipe(**changes), tasks, weights, Path(folder), seed=0, temperature=1.0, max_tokens=max_tokens)
