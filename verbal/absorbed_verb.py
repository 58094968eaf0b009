"""`verbal memory absorbed`: which lessons of a memory the weights know by now, with evidence, and their retirement."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from verbal.errors import STOPS, ConfigError, UnknownName
from verbal.memory_verbs import known_memory, read_state
from verbal.parts import load_function
from verbal.screen import Screen, usage_table
from verbal.store import Store
from verbal.tables import estimate_words, literal, points
from verbal.text import percent
from verbal.verbs import make_recipe, open_store

if TYPE_CHECKING:
    from rich.table import Table

    from verbal.absorbed import Absorption, Claim, Finding
    from verbal.recipe import Recipe
    from verbal.types import Task

_WORDS = {"absorbed": "absorbed", "needed": "still needed", "need_more": "need more"}
_STYLES = {"absorbed": "green", "needed": "cyan", "need_more": "yellow"}


def run_absorbed(
    options: dict[str, Any],
    url: str,
    name: str,
    *,
    model: str,
    splits: Sequence[str] = ("train", "dev"),
    trained: bool = False,
    limit: int | None = None,
    only: Sequence[str] = (),
    seeds: int = 3,
    claim: Claim | None = None,
    apply: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Judges each active item of a memory under a model; with `apply` retires what was absorbed.

    Args:
        options: Recipe, model, app, overrides (`verbal.cli`).
        url: The store.
        name: The memory, as it is now.
        model: As `--model` takes it, for the log.
        splits: Whose tasks are attempted; never `test`.
        trained: Tasks the weights were trained on count, too: there they may remember the answer only.
        limit: Tasks at most, evenly spread over those that there are.
        only: Ids of items; all active ones when empty.
        seeds: Attempts of each task on each side.
        claim: What has to be shown.
        apply: Retire what was absorbed.
        dry_run: Find tasks, estimate, call nothing.
        quiet: Print nothing.

    Returns:
        items (id, text, verdict, reason, tasks, differences, interval, wealth, its effect before), version it was
        looked at and version now, retired ids, estimate, usage, run, what has to be promoted.

    Raises:
        UnknownName: no such memory or item. ConfigError: the sealed split, no tasks, or a budget below one task.
    """
    from verbal.absorbed import Claim

    if "test" in splits:
        todo = "take train or dev tasks: what is sealed decides nothing"
        raise ConfigError("the split 'test' is sealed", where="--split", todo=todo)
    with open_store(url) as store, Screen(f"verbal memory absorbed: {name}", quiet=quiet) as screen:
        known_memory(store, name)
        asked = {"splits": list(splits), "trained": trained, "limit": limit, "seeds": seeds}
        recipe = make_recipe(options, store)
        look = _Look(store, recipe, screen, name, model or recipe.model.name, claim or Claim())
        return asyncio.run(look.go(asked, only, apply=apply, dry_run=dry_run))


class _Look:
    """One look at a memory, from its tasks to what is told of it."""

    def __init__(self, store: Store, recipe: Recipe, screen: Screen, name: str, model: str, claim: Claim) -> None:
        self.store, self.recipe, self.screen, self.name, self.model, self.claim = (
            store, recipe, screen, name, model, claim,
        )  # fmt: skip
        self.state = read_state(store, name)

    async def go(self, asked: dict[str, Any], only: Sequence[str], *, apply: bool, dry_run: bool) -> dict[str, Any]:
        import dataclasses

        from verbal.absorbed import Absorption
        from verbal.run import Progress
        from verbal.study import Study

        for item in only:
            if item not in self.state.items:
                raise UnknownName.of(f"item of memory {self.name!r}", item, self.state.items, where=self.store.where)
        told = {**asked, "claim": dataclasses.asdict(self.claim), "only": sorted(only), "model": self.model}
        # A look that its budget ended goes on under a larger one.
        parts = {k: v for k, v in self.recipe.to_dict().items() if k != "limits"}
        key = json.dumps([told, parts, self.state.version], sort_keys=True)
        run = f"absorbed-{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        # An attempt is the first one: nobody says right or wrong to what serves.
        recipe = dataclasses.replace(self.recipe, loop=dataclasses.replace(self.recipe.loop, rounds=1))
        progress = Progress(changed=self.screen.show, solved=None)
        study = Study(store=self.store, recipe=recipe, run=run, progress=progress, stage=self.screen.stage)
        async with study.open({}) as shop:
            look = Absorption(
                shop=shop, name=self.name, version=self.state.version, run=run, seeds=range(asked["seeds"]),
                claim=self.claim,
            )  # fmt: skip
            tasks, aside = self._tasks(shop.app, asked)
            self.screen.stage("finding the tasks of each item")
            found = await look.found(tasks, only)
            expected = await self._price(look, found, tasks, aside)
            head = {"memory": self.name, "model": self.model, "run": run, "judged_at": self.state.version}
            head |= {"tasks": len(tasks), "trained_on": aside, "estimate": expected}
            if dry_run:
                self.screen.print("nothing was called")
                return {**head, "items": [{"id": i, "tasks": len(t)} for i, t in found.items()]}
            findings = await self._judge(look, found, {**told, **head})
            shop.ledger.flush()
        retired, version = self._apply(findings, run) if apply else ([], self.state.version)
        return self._tell(head, findings, retired, version, apply=apply)

    def _tasks(self, app: Any, asked: Mapping[str, Any]) -> tuple[list[Task], int]:
        """The tasks that may be attempted, and how many were left out because the weights were trained on them."""
        from verbal.evaluate import spread
        from verbal.verbs import pick_tasks
        from verbal.versions import trained_on

        every = [t for split in asked["splits"] for t in app.tasks(split) if t.split != "test"]
        known = set() if asked["trained"] else trained_on(self.store, self.model)
        tasks = pick_tasks([t for t in every if t.id not in known], ", ".join(asked["splits"]), None)
        return spread(tasks, asked["limit"] or len(tasks)), len(every) - len(tasks)

    async def _price(
        self, look: Absorption, found: Mapping[str, Sequence[Task]], tasks: Sequence[Task], aside: int
    ) -> dict[str, Any]:
        """What it will cost, told; a budget that does not buy one task is refused."""
        from verbal.absorbed import passes
        from verbal.estimate import check_budget, estimate

        sets = passes({i: [t.id for t in each] for i, each in found.items() if each})
        attempted = list({t.id: t for each in found.values() for t in each}.values())
        once = [*attempted, *(t for each in found.values() for t in each)]
        # Withholding what was absorbed together comes to one more attempt of each task at most, as a rule.
        expected = (await estimate(look.shop, once or tasks[:1], passes={"score": len(look.seeds)})).plain()
        expected["calls_high"] += len(attempted) * len(look.seeds)
        left = f" ({aside} the weights were trained on are left out)" if aside else ""
        self.screen.print(
            f"{len(found)} active items, found on {len(attempted)} of {len(tasks)} tasks{left}, "
            f"withheld in {len(sets)} pass{'' if len(sets) == 1 else 'es'}: {estimate_words(expected)}"
        )
        if once:
            one = await estimate(look.shop, once, passes={"score": len(look.seeds)})
            if buys := check_budget(look.shop, one):
                self.screen.print(buys)
        look.shop.progress.update(total=(len(once) + len(attempted)) * len(look.seeds), done=0)
        return expected

    async def _judge(
        self, look: Absorption, found: Mapping[str, Sequence[Task]], spec: Mapping[str, Any]
    ) -> list[Finding]:
        store, status = self.store, "failed"
        info = {"command": "absorbed", **{k: v for k, v in spec.items() if k != "estimate"}, **look.shop.info}
        store.start_run(look.run, look.shop.recipe.to_dict(), info)
        try:
            self.screen.stage("attempting with each item shown and withheld")
            findings = await look.judge(found)
            status = "done"
        except STOPS:
            status = "stopped"
            raise
        finally:
            done = {"absorbed": [f.plain() for f in findings]} if status == "done" else None
            store.finish_run(look.run, status, done)
        return findings

    def _apply(self, findings: Sequence[Finding], run: str) -> tuple[list[str], int]:
        from verbal.absorbed import retire_absorbed

        name = self.model if self.model.startswith("checkpoint:") else f"model {self.model}"
        return retire_absorbed(
            self.store, self.name, self.state.version, findings, model=name.replace(":", " ", 1), run=run
        )

    def _tell(
        self, head: dict[str, Any], findings: Sequence[Finding], retired: list[str], version: int, *, apply: bool
    ) -> dict[str, Any]:
        from verbal.study import plain_usage

        rows = [self._row(f) for f in findings]
        usage = self.store.usage(head["run"])
        counts = {k: sum(r["verdict"] == k for r in rows) for k in _WORDS}
        words = (
            self._promotion(retired, version) if apply else ["nothing was changed; --apply retires what is absorbed"]
        )
        self.screen.stage("")
        self.screen.print(_table(rows))
        self.screen.print(usage_table(usage), ", ".join(f"{n} {_WORDS[k]}" for k, n in counts.items()), *words)
        return {
            **head, "items": rows, **counts, "retired": retired, "version": version, "told": words,
            "usage": plain_usage(usage),
        }  # fmt: skip

    def _row(self, finding: Finding) -> dict[str, Any]:
        (item,) = finding.items
        drawn = [t for t in self.state.trials.get(item, ()) if t.chance < 1]
        before = None
        if drawn:
            effect = load_function("memory", "effects", "effect")(drawn)
            before = {"trials": len(drawn), **{k: getattr(effect, k) for k in ("mean", "low", "high")}}
        plain = {k: v for k, v in finding.plain().items() if k != "items"}
        return {"id": item, "text": self.state.items[item].text, "before": before, **plain}

    def _promotion(self, retired: Sequence[str], version: int) -> list[str]:
        """What became of the memory, and what that means for what serves."""
        from verbal.versions import active

        if not retired:
            return ["nothing was absorbed, so nothing was changed"]
        was = f"{self.name}@{self.state.version}"
        words = [
            f"{len(retired)} retired: {', '.join(retired)}; {self.name} is at version {version} now",
            f"other weights still need them, and find them in {was}; "
            f"to take them back: verbal memory absorbed {self.name} --undo",
        ]
        serving = active(self.store)
        if serving and serving[1].memory == self.name:
            words.append(f"version {serving[0]['number']} goes on serving {serving[1].words()}, as it was adopted")
        promote = f"verbal promote --memory {self.name}@{version}"
        if serving and serving[1].model == self.model:
            points_ = f"{-100 * self.claim.margin:g}"
            return [
                *words,
                f"it gains nothing, so the gate is asked if it loses: {promote} --margin {points_} --finite",
            ]
        return [*words, f"it serves once the gate lets it: {promote} --model {self.model}"]


def run_take_back(url: str, name: str, model: str, *, quiet: bool) -> dict[str, Any]:
    """Believes again what was retired as absorbed, by one model or by any.

    Raises:
        UnknownName: no such memory.
    """
    from verbal.absorbed import take_back

    with open_store(url) as store, Screen(f"verbal memory absorbed: {name}", quiet=quiet) as screen:
        known_memory(store, name)
        back = asyncio.run(take_back(store, name, model.replace(":", " ", 1)))
        for old, new in back.items():
            screen.print(f"{old} is believed again, as {new}")
        screen.print(f"{name} is at version {store.memories()[name]}" if back else "nothing was retired as absorbed")
        return {"memory": name, "back": back, "version": store.memories()[name]}


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The items: tasks that were solved, score with and without, points with their interval for new tasks, verdict."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="Lessons under these weights",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("lesson", overflow="ellipsis", no_wrap=True)
    for name, width in (("tasks", 5), ("with", 5), ("without", 7), ("difference", 16)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("verdict", no_wrap=True, min_width=12)
    for row in rows:
        gain = row["gain"]
        words = literal(f"{row['id']} ", style="dim").append_text(literal(row["text"], 120))
        table.add_row(
            words,
            str(row["used"]),
            percent(row["shown"], 0),
            percent(row["withheld"], 0),
            f"{points(gain['mean']).partition('.')[0]} [{', '.join(points(gain[k])[:-2] for k in ('low', 'high'))}]",
            literal(_WORDS[row["verdict"]], style=_STYLES[row["verdict"]]),
        )
    return table


__all__ = ["run_absorbed", "run_take_back"]
