"""A few lessons in fewer words: one small call of a model, or the lessons that differ by their words."""

from __future__ import annotations

from collections.abc import Sequence

from verbal.contracts import Model
from verbal.lessons import Lesson, read_lessons
from verbal.prompt import load_prompt
from verbal.types import Reflection

from .asking import ask
from .curator import NoveltyCurator
from .relation import source_of


async def condensed(
    model: Model | None,
    lessons: Sequence[Reflection],
    *,
    most: int,
    prompt: str = "memory/condense",
    prompts: str | None = None,
    tries: int = 3,
    max_tokens: int = 1024,
) -> list[Reflection]:
    """At most `most` lessons that say what `lessons` say; those given when the model writes nothing usable.

    Each is filed under the task of the lesson it has most words from, with the attempts of all. Without a model `most`
    is no bound: what differs stays.

    Args:
        model: Who is asked; None compares words, as `curator` does.
        lessons: One call is made for all of them, so they should be few.
        most: Lessons wanted at most.
        prompt: Name of the prompt (variables lessons, most).
        prompts: A folder of the user's that overrides prompts of the package.
        tries: Replies asked for at most, the first included.
        max_tokens: Of one reply.

    Raises:
        ModelError: a call failed.
    """
    if len(lessons) < 2:
        return list(lessons)
    attempts = tuple(dict.fromkeys(a for r in lessons for a in r.attempts))
    if model is None:
        ops = await NoveltyCurator().propose(lessons, [])
        kept = [op.item for op in ops if op.op == "ADD" and op.item is not None]
        return [r.replace(attempts=attempts) for r in kept] if len(kept) == 1 else kept

    def read(reply: str) -> tuple[Lesson, ...]:
        said = tuple(x for x in read_lessons(reply) if x.text)
        if not 0 < len(said) <= most:
            raise ValueError(f"it holds {len(said)} lines `HINT: ...`, wanted are 1 to {most}")
        return said

    text = load_prompt(prompt, prompts).fill(lessons="\n".join(_line(r) for r in lessons), most=str(most))
    said = await ask(model, text, read, tries=tries, max_tokens=max_tokens, form="such lines")
    if isinstance(said, str):
        return list(lessons)
    made: list[Reflection] = []
    for lesson in said:
        source = source_of(lesson.text, lessons)
        when, boundary = lesson.when or source.when, lesson.boundary or source.boundary
        made.append(
            source.replace(
                text=lesson.text, title=lesson.title or source.title, when=when, boundary=boundary, attempts=attempts
            )
        )
    return made


def _line(item: Reflection) -> str:
    said = [" ".join(part.split()) for part in (item.title, item.text) if part]
    return f"- {': '.join(said)}" + (f" (not for: {' '.join(item.boundary.split())})" if item.boundary else "")
