"""The app's own proof: what `verbal check apps/social` runs on every scenario.

A scenario is worth practising when somebody who knows the person wins, silence and pressure do not, what is hidden
stays out of the prompt, and the person answers the same way every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verbal.contracts import Critic, CriticContext, Reply
from verbal.parts import make_part
from verbal.types import Attempt, Task

from .conversation import Transcript
from .people import moves_in
from .scenarios import scenario_of
from .speaker import SAYS

if TYPE_CHECKING:
    from .app import Social

Finding = dict[str, Any]
"""One result of one check."""


async def check_app(app: Social, critic: Critic | None = None, *, split: str | None = None) -> list[Finding]:
    """All findings on the app's scenarios, those that passed as well.

    Args:
        app: Its tasks are checked, with the person played by rules.
        critic: The judge on trial; the critic `goal` when None.
        split: Only the tasks of this split.
    """
    judge: Critic = critic or make_part("critics", "goal")
    tasks = app.tasks(split)
    found = [_finding("scenarios", "", bool(tasks), f"{len(tasks)} scenarios")]
    for move, sentences in SAYS.items():
        heard = [moves_in(s) for s in sentences]
        found.append(_finding("a sentence is one move", "", all(h == [move] for h in heard), f"{move}: {heard}"))
    seen: dict[str, str] = {}
    for task in tasks:
        found += [*(await _scores(app, judge, task)), _hidden(app, task), await _same_again(app, task)]
        same = seen.setdefault(str(task.info["question"]), task.id)
        found.append(_finding("new scenario", task.id, same == task.id, f"the same as {same}"))
    return found


def _finding(check: str, task: str, ok: bool, what: str) -> Finding:
    return {"check": check, "task": task, "ok": ok, "what": f"{task}: {what}" if task else what}


async def _scores(app: Social, judge: Critic, task: Task) -> list[Finding]:
    """A script that fits the person scores 1; nothing, silence, pressure alone and a bare request do not."""
    pushed = str(Transcript(tuple(("ME", s) for s in (*SAYS["pressure"], *SAYS["request"]))))
    asked = str(Transcript((("ME", SAYS["request"][0]),)))
    answers = [("a good script scores 1", task.gold or "", True), ("an empty answer scores 0", "", False),
               ("pressure does not win", pushed, False), ("a bare request does not win", asked, False)]  # fmt: skip
    attempts, observed = [], {}
    for number, (_, answer, _) in enumerate(answers):
        attempts.append(Attempt(id=f"check/{task.id}/{number}", run="check", task=task.id, answer=answer))
        observed[attempts[-1].id] = await app.execute(task, answer)
    said = await judge.evaluate(task, attempts, CriticContext(observations=observed, execute=app.execute))
    found = []
    for (check, _, good), feedback in zip(answers, said, strict=True):
        ok = feedback.value == 1.0 if good else feedback.value is not None and feedback.value < 1.0
        found.append(_finding(check, task.id, ok, f"{judge.name} gives {feedback.value} {feedback.reason}"))
    return found


def _hidden(app: Social, task: Task) -> Finding:
    """Nothing hidden stands in what the policy reads."""
    made, prompt = scenario_of(task), " ".join(m.content for m in app.messages("solver", task)).lower()
    leaks = [k for k in ("secret", "wish") if (v := getattr(made, k).lower()) and v in prompt]
    return _finding("hidden stays hidden", task.id, not leaks, f"in the prompt: {leaks}")


async def _same_again(app: Social, task: Task) -> Finding:
    """Turn by turn the conversation goes as it does at once, and twice alike."""
    ends = []
    for _ in range(2):
        talk = app.environment()
        await talk.start(task.replace(gold=None))
        seen = None
        for line in (task.gold or "").splitlines():
            if line.startswith("ME: ") and not (seen and seen.done):
                seen = await talk.step(Reply(text=line))
        ends.append(seen.answer if seen else "")
    return _finding("deterministic", task.id, ends == [task.gold, task.gold], f"{ends}")
