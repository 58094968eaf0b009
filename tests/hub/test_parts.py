"""Parts: by name, by file, by entry point; whatever is wrong is said with the nearest name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from verbal.errors import ConfigError, MissingExtra, UnknownName
from verbal.parts import ROOMS, load_part, make_part, part_names

MINE = """
class Mine:
    def __init__(self, limit: int = 3) -> None:
        self.limit = limit

class Other: ...

number = 3
"""


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_sorted_names(room: str) -> None:
    assert part_names(room) == sorted(part_names(room))


def test_a_part_of_a_room_is_found_by_the_name_of_its_file() -> None:
    part = load_part("memory", "hashing")
    assert part.__module__ == "verbal.memory.hashing"
    assert isinstance(make_part("memory", "hashing"), part)


@pytest.mark.parametrize("name", ["hashin", "os.path", "../log", "", "__init__"])
def test_an_unknown_part_lists_the_nearest_and_all(name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        load_part("memory", name, where="recipe.toml: memory.index")
    assert caught.value.what == f"unknown part of memory {name!r}"
    assert caught.value.where == "recipe.toml: memory.index"
    assert "hashing" in caught.value.todo
    assert name != "hashin" or caught.value.todo.startswith("did you mean 'hashing'")


def test_wrong_options_name_the_part() -> None:
    with pytest.raises(ConfigError, match=r"memory part 'hashing': .*'colour'") as caught:
        make_part("memory", "hashing", where="recipe.toml", colour="red")
    assert caught.value.where == "recipe.toml"
    assert "verbal.memory.hashing" in caught.value.todo


def test_a_file_of_the_user_is_a_part(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    assert make_part("critics", f"{path}:Mine", limit=5).limit == 5
    assert load_part("critics", f"{path}:Mine") is load_part("critics", f"{path}:Mine")
    with pytest.raises(UnknownName) as caught:
        load_part("critics", f"{path}:Mien")
    assert caught.value.todo == "did you mean 'Mine'? known: Mine, Other"
    with pytest.raises(UnknownName):
        load_part("critics", f"{path}:number")


def test_a_file_that_is_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        load_part("critics", f"{tmp_path / 'none.py'}:Mine")
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0", encoding="utf-8")
    for _ in range(2):  # a second try must not find half a module of the first
        with pytest.raises(ZeroDivisionError):
            load_part("critics", f"{broken}:Mine")


def test_an_entry_point_is_a_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real installed distribution: its metadata lies on the path."""
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[verbal.critics]\noutside = outside_critic:Mine\n", encoding="utf-8")
    (tmp_path / "outside_critic.py").write_text(MINE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert "outside" in part_names("critics")
    assert make_part("critics", "outside").limit == 3


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "needs.py"
    path.write_text("import duckdb\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtra) as caught:
        load_part("critics", f"{path}:Mine")
    assert caught.value.todo == "pip install 'verbal[sql]'"
    path.write_text("import no_such_package_anywhere\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_anywhere"):
        load_part("critics", f"{path}:Mine")


def test_a_file_without_a_class_in_front_is_no_part() -> None:
    with pytest.raises(UnknownName, match="is not a part"):
        load_part("memory", "log")
