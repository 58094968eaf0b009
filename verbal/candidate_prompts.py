"""Candidate prompts of an app: written to folders, tried by the loop, written anew by the reflector.

A candidate maps a role to the instruction of its prompt. It is tried by first attempts of the recipe's loop without a
memory: calls go through ledger and replay cache, and finished episodes are found again in the store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbal.contracts import Sampling
from verbal.errors import STOPS, ConfigError, ModelError, TransientError
from verbal.instructions import cleaned, copies, split_prompt
from verbal.loop.context import Context, Prompted, query
from verbal.parts import make_part
from verbal.prompt import load_prompt, parse_prompt
from verbal.run import Workshop, make_context, run_batch
from verbal.types import Message, Task


@dataclass(frozen=True, slots=True)
class Row:
    """One task as a candidate did it."""

    question: str
    answer: str
    score: float
    feedback: str


class CandidatePrompts:
    """Candidates as prompts of the app, tried by the loop; and the reflector."""

    def __init__(
        self,
        workshop: Workshop,
        run: str,
        scratch: Path,
        components: Sequence[str],
        tasks: Sequence[Task],
    ) -> None:
        recipe = workshop.recipe
        loop = dataclasses.replace(recipe.loop, graph="reflect", rounds=1, critique=False, reflect=False)
        self._recipe = dataclasses.replace(recipe, loop=loop)
        self._shop, self._run, self._scratch, self._tasks = workshop, run, scratch, tasks
        self._own: str | None = recipe.app.options.get("prompts")
        name = workshop.app.name
        self._prompts = {role: load_prompt(f"{name}/{role}", self._own) for role in components}
        self._parts = {role: split_prompt(prompt) for role, prompt in self._prompts.items()}
        self._reflector = workshop.roles("reflector")
        if not components or not getattr(self._reflector, "chats", True):
            what = f"{self._reflector.name} follows no free instructions, so it cannot write a prompt"
            raise ConfigError(
                what if components else "no role is named",
                where="GEPA",
                todo="set model.roles.reflector to one that does",
            )
        self._template = load_prompt("memory/gepa_instruction", self._own)
        self.reflections = self.refused = self.unscored = 0

    def texts(self) -> dict[str, str]:
        """The instructions as they are."""
        return {role: parts.instruction for role, parts in self._parts.items()}

    def write(self, texts: Mapping[str, str], folder: Path) -> None:
        """Writes a candidate's prompts to a folder, beside the user's own if there are some."""
        if self._own is not None:
            shutil.copytree(self._own, folder, dirs_exist_ok=True)
        for role, text in texts.items():
            old = self._prompts[role]
            head = [f"purpose: {old.purpose}", f"variables: {', '.join(old.variables)}"]
            head.append(f"source: GEPA (arXiv 2507.19457), run {self._run}, from {old.hash}")
            made = "\n".join(["---", *head, "---", self._parts[role].body(text), ""])
            parse_prompt(old.name, made)
            path = folder / f"{old.name}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made, encoding="utf-8")

    async def tried(self, texts: Mapping[str, str], tasks: Sequence[Task]) -> list[Row]:
        """How a candidate does on tasks, in their order; what the store has is not made again."""
        digest = hashlib.sha256(json.dumps(dict(texts), sort_keys=True).encode()).hexdigest()[:12]
        folder = self._scratch / digest
        if not folder.exists():
            self.write(texts, folder)
        app, ours = self._open(str(folder))
        try:
            shop = dataclasses.replace(self._shop, app=app)
            own = {t.id: t for t in tasks}
            context = make_context(
                shop, list(own.values()), run=self._run, arm=f"gepa:{digest}", seed=self._recipe.seed,
                recipe=self._recipe, memory=None, learning=False,
            )  # fmt: skip
            if unfinished := await run_batch(context, list(own.values()), self._shop.progress):
                what = f"{len(unfinished)} tasks could not be tried, such as {unfinished[0]!r}"
                raise TransientError(
                    what, where=f"run {self._run}", todo="the model could not be reached: resume later"
                )
            rows = {id: await self._row(context, task) for id, task in own.items()}
        finally:
            if ours:
                await app.aclose()
        return [rows[t.id] for t in tasks]

    async def _row(self, context: Context, task: Task) -> Row:
        group = context.store.group(self._run, task.id, context.arm)
        attempt = context.store.attempt(group.attempts[0]) if group else None
        assert attempt is not None
        score = context.score(attempt)
        self.unscored += score is None
        said = [f"{f.critic}: {f.text or f.reason}" for f in context.store.feedback([attempt.id])[attempt.id]]
        said += [
            f"a right answer: {f.correction}" for f in context.store.feedback([attempt.id])[attempt.id] if f.correction
        ]
        seen = (await context.observation(attempt)).text if attempt.answer else attempt.error or "no answer"
        words = "; ".join([f"score {score or 0.0:g} of 1", f"result: {seen}", *(s for s in said if s.strip())])
        return Row(query(task), attempt.answer or "none", score or 0.0, words)

    async def reflect(self, role: str, text: str, dataset: Sequence[Mapping[str, Any]]) -> str | None:
        """A new instruction for a role, or None when none was given that can be used."""
        from gepa.strategies.instruction_proposal import InstructionProposalSignature as Signature

        template = self._template.fill(current="<curr_param>", examples="<side_info>")
        prompt = Signature.prompt_renderer(
            {"current_instruction_doc": text, "dataset_with_feedback": list(dataset), "prompt_template": template}
        )
        self.reflections += 1
        table = self._recipe.model
        seed = int.from_bytes(hashlib.blake2b(f"{self._recipe.seed}/{prompt}".encode(), digest_size=4).digest(), "big")
        sampling = Sampling(temperature=table.temperature, max_tokens=max(table.max_tokens, 2048), seed=seed >> 1)
        try:
            reply = (await self._reflector.generate([Message(role="user", content=str(prompt))], 1, sampling))[0]
        except STOPS:
            raise
        except ModelError:
            self.refused += 1
            return None
        said = Signature.output_extractor(reply.text.strip())["new_instruction"] if "```" in reply.text else ""
        made = cleaned(said, self._parts[role].instruction)
        if made is None or made == text or copies(made, self._tasks):
            self.refused += 1
            return None
        return made

    def _open(self, folder: str) -> tuple[Prompted, bool]:
        """The app with the prompts of a folder, and whether it is ours to close: one that can shares its workers."""
        if callable(share := getattr(self._shop.app, "with_prompts", None)):
            return share(folder), False
        options = {**self._recipe.app.options, "prompts": folder}
        return make_part("apps", self._recipe.app.name, where="[app]", **options), True


__all__ = ["CandidatePrompts", "Row"]
