"""What every training method keeps to: those of the room, found by the shipped recipes that name a trainer."""

import dataclasses
import importlib
import inspect
import subprocess
import sys

import pytest

from verbal.contracts import Example, Method
from verbal.errors import ConfigError, TrainError, VerbalError
from verbal.parts import load_part, make_part
from verbal.recipe import load_recipe, recipe_names
from verbal.store import Store

RECIPES = [name for name in recipe_names() if load_recipe(name).trainer.name]
METHODS = sorted({load_recipe(name).trainer.name for name in RECIPES})


def test_the_methods_of_the_mission_are_there():
    wanted = "sft dpo kto grpo critique_grpo relift sft_then_rl retroformer r3l c3po mae sdpo sdft"
    assert set(wanted.split()) <= set(METHODS)


def test_no_method_needs_torch_to_be_imported_and_made():
    """In one fresh process for all: options are checked, rows are built and refused without torch, trl or datasets."""
    lines = [
        "import sys",
        "from verbal.parts import make_part",
        f"for name in {METHODS!r}: make_part('trainers', name)",
        "heavy = sorted({'torch', 'trl', 'transformers', 'datasets', 'peft', 'accelerate'} & set(sys.modules))",
        "assert not heavy, heavy",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", METHODS)
def test_its_name_is_its_file_and_it_is_documented(name):
    part = load_part("trainers", name)
    method = part()
    assert isinstance(method, Method) and method.name == name
    module = importlib.import_module(part.__module__)
    assert module.__name__ == f"verbal.trainers.{name}" and module.__all__[0] == part.__name__
    assert dataclasses.is_dataclass(part) and part.__dataclass_params__.frozen
    assert "Source" in (part.__doc__ or "") and (module.__doc__ or "").strip()
    wanted = inspect.signature(Method.train)
    found = inspect.signature(part.train)
    assert list(found.parameters) == list(wanted.parameters)
    assert {p.name: p.default for p in found.parameters.values()} == {
        p.name: p.default for p in wanted.parameters.values()
    }


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_option_is_refused_by_name(name):
    with pytest.raises(ConfigError, match="spilts") as error:
        make_part("trainers", name, spilts=("train",))
    assert "did you mean 'splits'" in error.value.todo or "splits" not in parameters(name)


def parameters(name):
    return inspect.signature(load_part("trainers", name)).parameters


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_recipe_resolves_and_its_options_are_the_methods(recipe):
    loaded = load_recipe(recipe)
    assert loaded.resolve()
    method = make_part("trainers", loaded.trainer.name, **loaded.trainer.options)
    assert isinstance(method, Method)
    assert loaded.about and (recipe not in METHODS or loaded.trainer.name == recipe)


@pytest.mark.parametrize("name", METHODS)
def test_a_store_that_cannot_feed_it_is_refused(name, tmp_path):
    with Store(tmp_path / "empty.db") as store, pytest.raises(TrainError) as error:
        make_part("trainers", name).examples(store)
    assert error.value.what and error.value.todo


@pytest.mark.parametrize("name", METHODS)
def test_no_rows_and_rows_of_another_method_are_refused_before_anything_is_written(name, tmp_path):
    method = make_part("trainers", name)
    strange = Example(columns={"letters": "abc"}, attempts=("a1",))
    for rows in ([], [strange]):
        with pytest.raises(TrainError) as error:
            method.train(rows, "embedded", str(tmp_path / "out"))
        assert error.value.todo
    assert not (tmp_path / "out" / "verbal.json").exists()


@pytest.mark.parametrize("name", METHODS)
def test_every_option_has_a_type_and_a_default(name):
    for field in dataclasses.fields(load_part("trainers", name)):
        assert field.type
        assert field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


@pytest.mark.parametrize("name", METHODS)
def test_an_option_out_of_range_is_an_error_of_ours(name):
    part = load_part("trainers", name)
    broken = [f.name for f in dataclasses.fields(part) if f.name in ("steps", "group", "batch", "tasks")]
    for option in broken:
        with pytest.raises(VerbalError):
            part(**{option: -1})
