"""A chat model of some thousand weights, an app it can learn in seconds, and weights that need no torch."""

import dataclasses
import hashlib
from pathlib import Path

import verbal.testing
from verbal.models.scripted import ScriptedModel
from verbal.recipe import AppTable, CriticsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.trainers.rollouts import Rollouts
from verbal.trainers.weights import Tokens

CODES = {"anchor": "3", "basket": "7", "candle": "1", "dagger": "9"}
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' <eos> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
_PROMPT = "# ## Role: solver Hints Tried Question What is the code of anchor? basket? candle? dagger?"


def recipe(codes=CODES, **loop):
    """A recipe of the tiny app whose verdict is its own critic."""
    where = Path(verbal.testing.__file__)
    return Recipe(
        name="tiny",
        app=AppTable(name=f"{where}:TinyApp", options={"codes": codes}),
        model=ModelTable(name="embedded"),
        loop=LoopTable(graph="group", critique=False, **loop),
        critics=CriticsTable(names=(f"{where}:TinyCritic",), verdict=f"{where}:TinyCritic"),
        memory=MemoryTable(name=""),
    )


def chat_model(folder, seed=0):
    """A random Llama with a word-level tokenizer and a chat template, as a folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", "<user>", "<assistant>", *_PROMPT.split(), *"0123456789"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=96, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


class WordWeights:
    """Weights whose policy is a function: every word is a token."""

    kind, network, tokenizer, context = "huggingface", None, None, 10_000

    def __init__(self, reply):
        self.model = ScriptedModel(reply)

    def prompt_ids(self, messages):
        return [_id(w) for m in messages for w in m["content"].split()]

    def answer_ids(self, messages, text):
        return [*(_id(w) for w in text.split()), 1]

    def tokens(self, attempt):
        if not attempt.steps:
            return None
        step = attempt.steps[0]
        ids = self.answer_ids([], step.text)
        prompt = self.prompt_ids([{"content": m.content} for m in step.prompt])
        return Tokens(prompt, ids, [1] * len(ids), [0.0] * len(ids))

    def policy(self):
        return self.model

    def refresh(self):
        pass

    def save(self, folder):
        pass


def rollouts(folder, reply, *, tasks=("train-anchor", "train-basket"), memory="", **changes):
    """Rollouts of a function over the tiny app; used as a context."""
    plan = dataclasses.replace(recipe(), **changes)
    return Rollouts(plan, tasks, WordWeights(reply), Path(folder), seed=0, temperature=1.0, max_tokens=8, memory=memory)


def _id(word):
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=3).digest(), "big")
