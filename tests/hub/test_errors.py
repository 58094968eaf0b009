"""Errors: three parts, pickled whole, caught as the standard error they refine, drawn in the docstring."""

from __future__ import annotations

import inspect
import pickle

import pytest

import verbal.errors
from verbal.errors import MissingExtra, StoreError, TransientError, UnknownName, VerbalError

CLASSES = [c for _, c in inspect.getmembers(verbal.errors, inspect.isclass) if issubclass(c, VerbalError)]
REFINED = {
    "ConfigError": ValueError,
    "UnknownName": LookupError,
    "MissingExtra": ImportError,
    "DataError": ValueError,
    "ModelError": RuntimeError,
    "EnvironmentFault": RuntimeError,
    "CriticError": RuntimeError,
    "StoreError": OSError,
    "TrainError": RuntimeError,
}


@pytest.mark.parametrize("error", CLASSES, ids=lambda c: c.__name__)
def test_the_message_has_three_parts_and_survives_pickling(error: type[VerbalError]) -> None:
    one = error("no file 'a.db'", where="--store", todo="give another path")
    assert str(one) == "no file 'a.db'\n  where: --store\n  to do: give another path"
    again = pickle.loads(pickle.dumps(one))
    assert type(again) is error
    assert (again.what, again.where, again.todo, str(again)) == (one.what, one.where, one.todo, str(one))


def test_parts_that_are_unknown_are_left_out() -> None:
    assert str(StoreError("the disk is full")) == "the disk is full"


def test_extra_attributes_survive_pickling() -> None:
    error = TransientError("429", where="http")
    error.retry_after = 2.5
    assert pickle.loads(pickle.dumps(error)).retry_after == 2.5
    assert TransientError("timed out").retry_after is None


@pytest.mark.parametrize(("name", "standard"), REFINED.items())
def test_each_is_also_the_standard_error_it_refines(name: str, standard: type[Exception]) -> None:
    with pytest.raises(standard):
        raise getattr(verbal.errors, name)("x")


def test_the_tree_in_the_docstring_shows_every_class() -> None:
    assert [c.__name__ for c in CLASSES if c.__name__ not in (verbal.errors.__doc__ or "")] == []


def test_an_unknown_name_lists_the_nearest_first_then_all() -> None:
    error = UnknownName.of("critic", "juge", ["sql_result", "judge", "vote"], where="recipe.toml")
    assert error.what == "unknown critic 'juge'"
    assert error.todo == "did you mean 'judge'? known: judge, sql_result, vote"
    assert UnknownName.of("critic", "zzz", []).todo == "known: none"


def test_a_missing_extra_names_the_command() -> None:
    error = MissingExtra.of("torch", "train")
    assert "'torch'" in error.what
    assert error.todo == "pip install 'verbal[train]'"
