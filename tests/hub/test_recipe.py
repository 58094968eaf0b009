"""Recipes: one TOML file to checked values; whatever is wrong names the key, the place and the nearest right one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from verbal.curation import check_memory
from verbal.errors import ConfigError, UnknownName, VerbalError
from verbal.recipe import Recipe, load_recipe, parse_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_resolves_and_is_short(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    assert all("verbal." in line for line in recipe.resolve())
    assert len(Path(__file__).parents[2].joinpath("verbal", "recipes", f"{name}.toml").read_text().splitlines()) < 30


def test_tables_become_frozen_values() -> None:
    text = '[model]\nname = "openai/x"\ntemperature = 1\n[critics]\nnames = ["a", "b"]\n[limits]\nmax_cost = 2\n'
    recipe = parse_recipe(text)
    assert (recipe.model.name, recipe.model.temperature) == ("openai/x", 1.0)
    assert isinstance(recipe.model.temperature, float)
    assert recipe.critics.names == ("a", "b")
    assert (recipe.limits.max_cost, recipe.limits.max_calls) == (2.0, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.seed = 1  # type: ignore[misc]


def test_the_plain_form_reads_back() -> None:
    recipe = load_recipe("reflect", ["loop.rounds=4", "app.options={db = 'a.sqlite'}"])
    plain = recipe.to_dict()
    assert plain["loop"]["rounds"] == 4
    assert plain["app"]["options"] == {"db": "a.sqlite"}
    assert plain["critics"]["names"] == list(recipe.critics.names)


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("loop.rounds=3", "loop", "rounds", 3),
        ("loop.critique=false", "loop", "critique", False),
        ("model.name=openai/gpt", "model", "name", "openai/gpt"),
        ("model.name = 'embedded'", "model", "name", "embedded"),
        ('critics.names=["x"]', "critics", "names", ("x",)),
        ("model.roles.judge=openai/gpt", "model", "roles", {"judge": "openai/gpt"}),
        ("limits.max_minutes=1.5", "limits", "max_minutes", 1.5),
    ],
)
def test_an_override_replaces_one_value(override: str, table: str, key: str, value: object) -> None:
    assert getattr(getattr(parse_recipe("", [override]), table), key) == value
    assert parse_recipe("seed = 3", ["seed=4"]).seed == 4


@pytest.mark.parametrize(
    ("text", "overrides", "what", "todo"),
    [
        ("[loop]\nroundz = 3", [], "unknown recipe key 'loop.roundz'", "did you mean 'loop.rounds'"),
        ("[lop]\nrounds = 3", [], "unknown recipe key 'lop'", "did you mean 'loop'"),
        ("", ["model.nmae=x"], "unknown recipe key 'model.nmae'", "did you mean 'model.name'"),
        ("loop = 3", [], "loop is a table, found 3", "write [loop]"),
        ("[loop]\nrounds = 'three'", [], "loop.rounds must be of type int, found 'three'", ""),
        ("[loop]\nrounds = true", [], "loop.rounds must be of type int, found True", ""),
        ("[critics]\nnames = 'judge'", [], "critics.names must be of type tuple, found 'judge'", ""),
        ("[loop", [], "not TOML", "see a shipped recipe"),
        ("", ["rounds"], "cannot read the override 'rounds'", "write it as loop.rounds=3"),
        ("", ["=3"], "cannot read the override '=3'", "write it as"),
        ("seed = 1", ["seed.x=3"], "'seed' in the override 'seed.x=3' is not a table", ""),
    ],
)
def test_what_is_wrong_is_named(text: str, overrides: list[str], what: str, todo: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(text, overrides, where="mine.toml")
    assert what in caught.value.what
    assert todo in caught.value.todo
    assert caught.value.where in ("mine.toml", "--set")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownName) as caught:
        load_recipe("reflct")
    assert "did you mean 'reflect'" in caught.value.todo
    with pytest.raises(ConfigError, match="no recipe file") as missing:
        load_recipe(tmp_path / "none.toml")
    assert "reflect" in missing.value.todo


def test_a_file_of_the_user_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[loop]\nsamples = 2\n', encoding="utf-8")
    assert (load_recipe(path).name, load_recipe(str(path)).loop.samples) == ("mine", 2)


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["loop.rounds=0"], "at least 1"),
        (["loop.graph=reflekt"], "unknown graph 'reflekt'"),
        (["critics.verdict=jugde"], "'jugde' is not among critics.names"),
        (['critics.names=["sql_result", "slef_check"]'], "unknown part of critics 'slef_check'"),
        (["memory.name=chrome"], "unknown part of memory 'chrome'"),
        (["app.name=text2sq"], "unknown part of apps 'text2sq'"),
    ],
)
def test_the_dry_run_finds_what_cannot_be_made(overrides: list[str], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("reflect", overrides).resolve()
    assert what in caught.value.what
    assert caught.value.where


def test_no_memory_is_a_choice() -> None:
    assert not [line for line in load_recipe("reflect", ["memory.name=''"]).resolve() if line.startswith("memory")]
    assert Recipe().resolve()


def test_a_recipe_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "größe"'.encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        load_recipe(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("memory.k=0", "memory.k is 0"),
        ("memory.trials=-1", "memory.trials is -1"),
        ("memory.withhold=1.0", "memory.withhold is 1.0"),
        ("loop.lessons='some'", "unknown lessons 'some'"),
        ("loop.guidance='memory/reflexon'", "unknown prompt 'memory/reflexon'"),
    ],
)
def test_what_is_wrong_with_memory_and_loop_is_told(said: str, told: str) -> None:
    with pytest.raises(VerbalError, match=told):
        load_recipe("reflect", [said]).resolve()


@pytest.mark.parametrize(
    "said",
    [
        'memory.options={policy="nonsense"}', 'memory.options={polcy="value"}', 'memory.options={embedder="nope"}',
        'memory.options={token_cap="many"}', "memory.curator_options={foo=1}", "memory.credit_options={alpha=3}",
        'memory.options={embedder="endpoint/some-model"}',
    ],
)  # fmt: skip
def test_options_of_a_memory_are_tried_before_anything_is_paid_for(said: str, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    check_memory(load_recipe("reflect"))
    with pytest.raises(VerbalError):
        check_memory(load_recipe("reflect", [said]))


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (
            "postgresql://ann:s3cr3t@db.example:5432/shop?sslmode=require",
            "postgresql://ann@db.example:5432/shop?sslmode=require",
        ),
        ("postgresql://u:p@s3cr3t@h/db", "postgresql://u@h/db"),
        ("postgresql://u@h/db?password=s3cr3t", "postgresql://u@h/db"),
        ("postgresql://u@h/db?password=s3cr3t&schema=x", "postgresql://u@h/db?schema=x"),
        ("mysql://u:a s3cr3t \\\\ b@h/db", "mysql://u@h/db"),
        ("a:b@c.jsonl", "a:b@c.jsonl"),
        ("http://host:8000/v1", "http://host:8000/v1"),
    ],
)
def test_what_is_kept_of_a_recipe_has_no_password_of_a_url(url: str, kept: str) -> None:
    recipe = parse_recipe(f'[app.options]\ndb = "{url}"\n')
    assert recipe.to_dict()["app"]["options"] == {"db": kept}
    assert "s3cr3t" in url or url == kept
