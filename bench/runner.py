"""Attempts a second of our runner beside bare asyncio, bare LangGraph and DSPy's evaluator, all around one model.

Everyone answers the same tiny questions (`verbal.testing`) with the same scripted model at the same latency: prompt,
model call, environment, critic. Only ours keeps anything: calls written ahead, replies, attempts, feedback and groups
in SQLite (WAL), with the replay cache in mode `record` on a fresh store; its time is all of `verbal.run.learn`.

asyncio: a semaphore and one coroutine a task. langgraph: nodes and edges of our graph `reflect`, in memory, without a
checkpointer, behind the same semaphore. dspy: `dspy.Evaluate` with as many threads, caches and history off, around a
module that calls the model and reads the answer by itself (`dspy`, the figure that counts) or through `dspy.Predict`
(`dspy_predict`). DSPy's threads sleep and call the script directly, which costs them less than our model costs us.

Competitors alternate, each figure is the best of the repetitions: the machine is shared. `cpu_parts` is where one
attempt of ours goes at zero latency, by cProfile (which makes calls dearer than they are; read the shares). Writes
bench/results/runner.json.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import importlib.metadata
import json
import logging
import pstats
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

import verbal.testing
from verbal.contracts import CriticContext, Model, Sampling
from verbal.loop.episodes import rare_collections
from verbal.recipe import CriticsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.run import learn, open_workshop
from verbal.testing import ScriptedModel, TinyApp, TinyCritic, temporary_store, tiny_reply
from verbal.types import Attempt, Message, Task

CRITIC = f"{verbal.testing.__file__}:TinyCritic"
GREEDY = Sampling()
LOADS = {
    # name: (latency of a call in seconds, calls in flight, attempts as a share of the option, who takes part)
    "0ms_256": (0.0, 256, 1.0, ("runner", "asyncio", "langgraph", "langgraph_rare", "dspy", "dspy_predict")),
    "50ms_256": (0.05, 256, 1.0, ("runner", "asyncio", "langgraph", "dspy", "dspy_predict")),
    "50ms_32": (0.05, 32, 0.5, ("runner", "asyncio", "langgraph", "dspy", "dspy_predict")),
    "1s_256": (1.0, 256, 0.5, ("runner", "asyncio", "langgraph")),
}
PARTS = {
    # part: files whose own time is counted under it, the first that fits
    "langgraph and langchain": ("/langgraph/", "/langchain_core/", "contextvars", "langsmith", "/pregel/"),
    "database": ("sqlite3", "/verbal/database.py", "/verbal/store"),
    "records to JSON and back": ("/verbal/types.py", "/json/", "_json", "dataclasses", "enum.py", "typing.py"),
    "model calls": ("/verbal/models/_", "/verbal/ledger.py", "contextlib", "/tenacity/", "uuid", "copy.py"),
    "replay cache": ("/verbal/cache.py", "hashlib", "blake2", "sha256"),
    "nodes of the loop": ("/verbal/loop/", "/verbal/run.py"),
    "model, app and critic": ("/verbal/testing.py", "/verbal/models/scripted.py", "/re/", "re.Pattern"),
    "event loop": ("asyncio", "selectors", "select.epoll"),
}


def main() -> None:
    """Runs every load and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=2048, help="attempts of a full load")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--loads", nargs="*", default=list(LOADS), choices=list(LOADS))
    parser.add_argument("--only", nargs="*", default=None, help="competitors to run, for a quick look")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "runner.json")
    options = parser.parse_args()
    began = time.perf_counter()
    missing = dspy_missing()
    found: dict[str, Any] = {}
    for name in options.loads:
        latency, in_flight, share, who = LOADS[name]
        who = tuple(w for w in who if (options.only is None or w in options.only) and not (missing and "dspy" in w))
        found[name] = measure(latency, in_flight, int(options.attempts * share), who, options.repetitions)
    result = {
        **headlines(found),
        "dspy_missing": missing,
        "attempts_per_second": found,
        "attempts": options.attempts,
        "repetitions": options.repetitions,
        **profiled(min(options.attempts, 1024)),
        "versions": {name: version(name) for name in ("langgraph", "langchain-core", "dspy", "litellm")},
        "seconds": round(time.perf_counter() - began, 1),
    }
    text = json.dumps(result, indent=2) + "\n"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(text)


def headlines(found: dict[str, dict[str, float]]) -> dict[str, float | None]:
    """The ratios that have goals, and those at loads a provider gives; None for what was not measured."""

    def ratio(load: str, ours: str, theirs: str) -> float | None:
        rates = found.get(load, {})
        return round(rates[ours] / rates[theirs], 3) if ours in rates and theirs in rates else None

    return {
        "runner_vs_asyncio_50ms": ratio("50ms_256", "runner", "asyncio"),
        "runner_vs_langgraph_0ms": ratio("0ms_256", "langgraph", "runner"),
        "runner_vs_langgraph_0ms_same_collector": ratio("0ms_256", "langgraph_rare", "runner"),
        "runner_vs_dspy": ratio("50ms_256", "runner", "dspy"),
        "runner_vs_dspy_predict": ratio("50ms_256", "runner", "dspy_predict"),
        "runner_vs_asyncio_50ms_32_in_flight": ratio("50ms_32", "runner", "asyncio"),
        "runner_vs_asyncio_1s_256_in_flight": ratio("1s_256", "runner", "asyncio"),
        "runner_vs_dspy_50ms_32_in_flight": ratio("50ms_32", "runner", "dspy"),
        "langgraph_vs_asyncio_50ms": ratio("50ms_256", "langgraph", "asyncio"),
    }


def measure(latency: float, in_flight: int, count: int, who: Sequence[str], repetitions: int) -> dict[str, float]:
    """Attempts a second of each competitor, the best of the repetitions, in which they alternate."""
    seconds: dict[str, list[float]] = {w: [] for w in who}
    for _ in range(repetitions):
        for name in who:
            gc.collect()
            seconds[name].append(COMPETITORS[name](latency, in_flight, count))
    return {name: round(count / min(taken), 1) for name, taken in seconds.items()}


def app_of(count: int) -> TinyApp:
    """A tiny app with so many questions, each about a word of its own."""
    return TinyApp({f"word{i}": str(100 + i % 900) for i in range(count)})


def scripted(latency: float) -> ScriptedModel:
    """The model everyone calls."""
    return ScriptedModel(tiny_reply, latency=latency)


# ours -----------------------------------------------------------------------------------------------------------------


def run_ours(latency: float, in_flight: int, count: int, profile: cProfile.Profile | None = None) -> float:
    """Seconds of one `learn` on a fresh store: one attempt a task, all tasks in one batch."""
    recipe = Recipe(
        model=ModelTable(concurrency=in_flight),
        loop=LoopTable(rounds=1, batch=max(256, count)),
        critics=CriticsTable(names=(CRITIC,), verdict=CRITIC),
        memory=MemoryTable(name=""),
    )

    async def work() -> float:
        app, model = app_of(count), scripted(latency)
        with temporary_store() as store:
            async with open_workshop(recipe, store, run="bench", model=model, app=app) as shop:
                tasks = app.tasks("train")
                if profile is not None:
                    profile.enable()
                began = time.perf_counter()
                await learn(shop, tasks, run="bench")
                taken = time.perf_counter() - began
                if profile is not None:
                    profile.disable()
            rows = len(store.attempts("bench")), len(store.groups("bench")), len(store.replies("bench"))
            assert rows == (count, count, count) and not store.open_calls("bench") and model.calls == count
        return taken

    return asyncio.run(work())


# bare asyncio ---------------------------------------------------------------------------------------------------------


async def attempted(app: TinyApp, task: Task, model: Model) -> Attempt:
    """Prompt, model call and environment, in memory."""
    environment = app.environment()
    try:
        messages = await environment.start(task.replace(gold=None))
        (reply,) = await model.generate(messages, 1, GREEDY)
        seen = await environment.step(reply)
    finally:
        await environment.aclose()
    return Attempt(id=task.id, run="bench", task=task.id, answer=seen.answer)


def run_asyncio(latency: float, in_flight: int, count: int) -> float:
    """Seconds of a semaphore and a coroutine a task."""
    app, model, critic, nothing = app_of(count), scripted(latency), TinyCritic(), CriticContext()
    tasks = app.tasks("train")

    async def one(task: Task, slots: asyncio.Semaphore) -> float | None:
        async with slots:
            made = await attempted(app, task, model)
        return (await critic.evaluate(task, [made], nothing))[0].value

    async def work() -> float:
        slots, began = asyncio.Semaphore(in_flight), time.perf_counter()
        values = await asyncio.gather(*(one(t, slots) for t in tasks))
        taken = time.perf_counter() - began
        assert values == [0.0] * count and model.calls == count
        return taken

    return asyncio.run(work())


# bare LangGraph -------------------------------------------------------------------------------------------------------


class Plain(TypedDict, total=False):
    """What a program without a store would keep."""

    task: Task
    round: int
    attempts: list[Attempt]
    solved: bool


def plain_graph(app: TinyApp, model: Model) -> Any:
    """The shape of our graph `reflect`: the same nodes and edges, all in memory."""
    critic, nothing = TinyCritic(), CriticContext()

    async def retrieve(state: Plain) -> Plain:
        return {"round": 0, "attempts": [], "solved": False}

    async def attempt(state: Plain) -> Plain:
        made = await attempted(app, state["task"], model)
        return {"attempts": [*state["attempts"], made], "round": state["round"] + 1}

    async def judge(state: Plain) -> Plain:
        (feedback,) = await critic.evaluate(state["task"], state["attempts"][-1:], nothing)
        return {"solved": feedback.value == 1.0}

    async def nothing_more(state: Plain) -> Plain:
        return {}

    async def after_judge(state: Plain) -> str:
        return "finish" if state["solved"] or state["round"] >= 1 else "critique"

    async def after_reflect(state: Plain) -> str:
        return "attempt"

    graph = StateGraph(Plain)
    for node in (retrieve, attempt, judge):
        graph.add_node(node.__name__, node)
    for name in ("critique", "reflect", "finish"):
        graph.add_node(name, nothing_more)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "attempt")
    graph.add_edge("attempt", "judge")
    graph.add_conditional_edges("judge", after_judge, ["critique", "finish"])
    graph.add_edge("critique", "reflect")
    graph.add_conditional_edges("reflect", after_reflect, ["attempt", "finish"])
    graph.add_edge("finish", END)
    return graph.compile()


def run_langgraph(latency: float, in_flight: int, count: int) -> float:
    """Seconds of the plain graph, driven by asyncio.gather."""
    app, model = app_of(count), scripted(latency)
    tasks, graph = app.tasks("train"), plain_graph(app, model)

    async def one(task: Task, slots: asyncio.Semaphore) -> bool:
        async with slots:
            return bool((await graph.ainvoke({"task": task}))["solved"])

    async def work() -> float:
        slots, began = asyncio.Semaphore(in_flight), time.perf_counter()
        values = await asyncio.gather(*(one(t, slots) for t in tasks))
        taken = time.perf_counter() - began
        assert values == [False] * count and model.calls == count
        return taken

    return asyncio.run(work())


def run_langgraph_rare(latency: float, in_flight: int, count: int) -> float:
    """The same with Python's collector of cycles set as our runner sets it while episodes are under way."""
    with rare_collections():
        return run_langgraph(latency, in_flight, count)


# DSPy -----------------------------------------------------------------------------------------------------------------


def dspy_missing() -> str | None:
    """Why DSPy takes no part, or None."""
    try:
        import dspy  # noqa: F401
    except ImportError as error:
        return f"{error}: pip install verbal[bench]"
    return None


def run_dspy(latency: float, in_flight: int, count: int, predict: bool = False) -> float:
    """Seconds of `dspy.Evaluate` around the script."""
    import dspy

    app = app_of(count)

    class Scripted(dspy.BaseLM):
        def __init__(self) -> None:
            super().__init__("scripted", cache=False)

        def forward(self, prompt: Any = None, messages: Any = None, **options: Any) -> Any:
            if latency:
                time.sleep(latency)
            text = tiny_reply([Message(role="user", content=messages[-1]["content"])], 0, None)
            text = f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]" if predict else text
            message = SimpleNamespace(content=text, tool_calls=None, reasoning_content=None)
            choice = SimpleNamespace(message=message, finish_reason="stop", logprobs=None)
            usage = {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}
            return SimpleNamespace(choices=[choice], usage=usage, model="scripted")

    class Bare(dspy.Module):
        def forward(self, question: str) -> Any:
            (said,) = dspy.settings.lm(messages=[{"role": "user", "content": question}])
            text = said if isinstance(said, str) else said["text"]
            return dspy.Prediction(answer=app.parse("solver", text) or "")

    def right(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(app.parse("solver", prediction.answer) == example.gold)

    examples = [
        dspy.Example(question=app.messages("solver", t)[0].content, gold=t.gold).with_inputs("question")
        for t in app.tasks("train")
    ]
    dspy.settings.configure(lm=Scripted(), disable_history=True, provide_traceback=False)
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    evaluate = dspy.Evaluate(devset=examples, metric=right, num_threads=in_flight, display_progress=False)
    module = dspy.Predict("question -> answer") if predict else Bare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("dspy").setLevel(logging.ERROR)
        began = time.perf_counter()
        found = evaluate(module)
        taken = time.perf_counter() - began
    assert [bool(r[2]) for r in found.results] == [False] * count and all(r[1].answer for r in found.results)
    return taken


# where our time goes --------------------------------------------------------------------------------------------------


def profiled(count: int) -> dict[str, Any]:
    """CPU milliseconds of one attempt of ours at zero latency, in all and by part."""
    began = time.process_time()
    run_ours(0.0, 256, count)
    whole = (time.process_time() - began) * 1000 / count
    profile = cProfile.Profile()
    run_ours(0.0, 256, count, profile)
    parts: dict[str, float] = dict.fromkeys([*PARTS, "other"], 0.0)
    stats: Any = pstats.Stats(profile)
    for (file, _, name), (_, _, own, _, _) in stats.stats.items():
        where = f"{file} {name}"
        part = next((p for p, marks in PARTS.items() if any(m in where for m in marks)), "other")
        parts[part] += own
    total = sum(parts.values())
    return {
        "cpu_ms_per_attempt": round(whole, 3),
        "cpu_parts": {p: round(s / total, 3) for p, s in sorted(parts.items(), key=lambda x: -x[1])},
    }


def version(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


COMPETITORS: dict[str, Callable[[float, int, int], float]] = {
    "runner": run_ours,
    "asyncio": run_asyncio,
    "langgraph": run_langgraph,
    "langgraph_rare": run_langgraph_rare,
    "dspy": run_dspy,
    "dspy_predict": lambda latency, in_flight, count: run_dspy(latency, in_flight, count, predict=True),
}

if __name__ == "__main__":
    main()
