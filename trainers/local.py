"""A Hugging Face model folder on this machine as a `Model`: `--model hf:FOLDER`. For checking what was just trained.

One call at a time, no batching over prompts: serve a model that many use with vLLM and reach it by `http/`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from verbal.cache import folder_digest
from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, ContextLengthError, ModelError
from verbal.types import Message, Usage

__all__ = ["LocalModel"]


class LocalModel:
    """Generates with `transformers` on the GPU if there is one, else on the CPU; weights are read at the first call.

    Args:
        path: A folder with config.json, weights and a tokenizer that has a chat template.
        loaded: Its model and tokenizer, where they are in memory already (a training under way).

    Raises:
        ConfigError: there is no such folder.
    """

    local = True

    def __init__(self, path: str, loaded: tuple[Any, Any] | None = None) -> None:
        self.path = Path(path)
        if loaded is None and not (self.path / "config.json").is_file():
            raise ConfigError(f"no model in {path!r}", where="--model", todo="give a folder that holds config.json")
        self.name = f"hf/{self.path.name}"
        self._lock = threading.Lock()
        self._loaded = loaded

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the folder: what was recorded of other weights is not theirs."""
        return folder_digest(self.path) if self.path.is_dir() else ""

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies, with token ids and their log-probabilities under what was sampled from (temperature applied).

        Raises:
            ConfigError: tools were asked for. ContextLengthError: the prompt is too long.
        """
        if sampling.tools:
            raise ConfigError(f"{self.name} does not call tools", todo="serve it with vLLM and use http/MODEL@URL")
        return await asyncio.to_thread(self._generate, messages, n, sampling)

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """The whole reply as one piece."""
        yield (await self.generate(messages, 1, sampling))[0].text

    async def check(self) -> str:
        """One line that says the weights load.

        Raises:
            ConfigError: they do not, or the tokenizer has no chat template.
        """
        await asyncio.to_thread(self._load)
        return f"{self.name}: loaded from {self.path}"

    async def aclose(self) -> None:
        """Lets the weights go."""
        self._loaded = None

    def _load(self) -> tuple[Any, Any]:
        import torch
        import transformers

        with self._lock:
            if self._loaded is None:
                device = "cuda" if torch.cuda.is_available() else "cpu"
                bars = transformers.logging.is_progress_bar_enabled()
                transformers.logging.disable_progress_bar()  # a command draws its own
                try:
                    tokenizer = transformers.AutoTokenizer.from_pretrained(self.path)
                    model = transformers.AutoModelForCausalLM.from_pretrained(self.path, dtype="auto").to(device).eval()
                except (OSError, ValueError) as error:
                    raise ConfigError(f"{self.name} cannot be loaded: {error}", where=str(self.path)) from error
                finally:
                    if bars:
                        transformers.logging.enable_progress_bar()
                if tokenizer.chat_template is None:
                    raise ConfigError(f"the tokenizer of {self.name} has no chat template", where=str(self.path))
                self._loaded = model, tokenizer
            return self._loaded

    def _generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        import torch

        model, tokenizer = self._load()
        chat = [{"role": m.role, "content": m.content} for m in messages]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        length = prompt["input_ids"].shape[1]
        window = getattr(model.config, "max_position_embeddings", None)
        if window is not None and length >= window:
            raise ContextLengthError(f"the prompt has {length} tokens, {self.name} reads {window}")
        warm = bool(sampling.temperature)
        options: dict[str, Any] = {"do_sample": warm, "num_return_sequences": n if warm else 1}
        if warm:
            # Nothing but temperature and top_p may bend what is sampled from: its log-probabilities are trained on.
            options |= {"temperature": sampling.temperature, "top_p": sampling.top_p or 1.0, "top_k": 0}
            options |= {"repetition_penalty": 1.0}
        began = time.perf_counter()
        # The seed is global in torch, so draws of different calls must not mix.
        with self._lock, torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(sampling.seed or 0)
            made = model.generate(
                **prompt.to(model.device),
                **options,
                max_new_tokens=min(sampling.max_tokens, window - length if window else sampling.max_tokens),
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
                return_dict_in_generate=True,
                output_scores=True,
            )
            scores = model.compute_transition_scores(made.sequences, made.scores, normalize_logits=True)
        seconds = (time.perf_counter() - began) / n
        ids = made.sequences[:, length:]
        if ids.shape[1] == 0:
            raise ModelError(f"{self.name} generated nothing", where=str(self.path))
        ends = _ends(model, tokenizer)
        replies = [
            self._reply(
                tokenizer, ids[i].tolist(), scores[i].tolist(), ends, length if i == 0 else 0, seconds, sampling
            )
            for i in range(ids.shape[0])
        ]
        return replies if warm else replies * n

    def _reply(
        self, tokenizer: Any, ids: list[int], scores: list[float], ends: set[int], prompt: int, seconds: float,
        sampling: Sampling,
    ) -> Reply:  # fmt: skip
        end = next((i for i, token in enumerate(ids) if token in ends), None)
        kept = ids if end is None else ids[: end + 1]
        text = tokenizer.decode(kept, skip_special_tokens=True)
        for stop in sampling.stop:
            text = text.split(stop)[0]
        return Reply(
            text=text,
            finish="length" if end is None else "stop",
            usage=Usage(
                calls=1 if prompt else 0, prompt_tokens=prompt, completion_tokens=len(kept), cost=0.0, seconds=seconds
            ),
            model=self.name,
            token_ids=tuple(kept),
            logprobs=tuple(scores[: len(kept)]),
        )


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a reply; what comes after one is padding, which nobody said."""
    own = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
