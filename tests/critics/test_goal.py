"""The critic `goal` says what the environment saw, and nothing where it saw nothing."""

from __future__ import annotations

from verbal.contracts import CriticContext, Observation
from verbal.parts import make_part
from verbal.types import Attempt, StopReason, Task

TASK = Task(id="t", kind="social", messages=())


async def judged(*, info=None, answer="ME: x", stop=StopReason.ANSWERED, execute=None):
    attempt = Attempt(
        id="a", run="r", task="t", answer=answer, stop=stop, error="gone\nwhere" if info is None else None
    )
    seen = {} if info is None else {"a": Observation(text="Yes. (reached)", done=True, info=info)}
    (found,) = await make_part("critics", "goal").evaluate(
        TASK, [attempt], CriticContext(observations=seen, execute=execute)
    )
    return found


async def test_reached_is_one_and_missed_is_zero() -> None:
    assert (await judged(info={"reached": True})).value == 1.0
    assert (await judged(info={"reached": False})).value == 0.0
    assert (await judged(answer=" ")).value == 0.0


async def test_what_is_not_known_is_none_with_a_reason() -> None:
    assert (await judged(info={})).reason == "the environment does not say whether a goal was reached"
    broken = await judged(stop=StopReason.ERROR)
    assert broken.value is None and broken.reason == "the attempt broke off: gone"


async def test_an_attempt_of_another_process_is_played_again() -> None:
    async def execute(task, answer):
        return Observation(text="", done=True, info={"reached": answer == "ME: x"})

    assert (await judged(execute=execute)).value == 1.0
