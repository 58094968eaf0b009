"""Prices: the table inside litellm read offline, a file of one's own, and what is not known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import verbal.testing
from verbal.errors import ConfigError
from verbal.models._prices import Price, find_price, price_of, read_prices
from verbal.models.http import HttpModel
from verbal.models.scripted import ScriptedModel
from verbal.recipe import CriticsTable, LimitsTable, MemoryTable, ModelTable, Recipe
from verbal.run import open_workshop
from verbal.store import Store
from verbal.testing import TinyApp

CRITIC = f"{verbal.testing.__file__}:TinyCritic"
ABROAD = "http/mine@https://models.example.org/v1"


def written(folder: Path, text: str) -> Path:
    path = folder / "prices.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_prices(tmp_path: Path) -> None:
    path = written(
        tmp_path, '["http/mine"]\nprompt = 1.2\ncompletion = 4\n["openai/new.model"]\nprompt = 0\ncompletion=0\n'
    )
    found = read_prices(path)
    assert found == {
        "http/mine": Price(prompt=1.2, completion=4.0), "openai/new.model": Price(prompt=0.0, completion=0.0),
    }  # fmt: skip
    assert found["http/mine"].cost(1_000_000, 500_000) == pytest.approx(3.2)
    assert read_prices(written(tmp_path, "")) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('["a/b"]\nprompt = 1.2\n', "not a price of 'a/b'"),
        ('["a/b"]\nprompt = 1.2\ncompletion = 1\nper = "token"\n', "not a price of 'a/b'"),
        ('["a/b"]\nprompt = -1\ncompletion = 1\n', "not a price of 'a/b'"),
        ('["a/b"]\nprompt = nan\ncompletion = 1\n', "not a price of 'a/b'"),
        ('["a/b"]\nprompt = inf\ncompletion = 1\n', "not a price of 'a/b'"),
        ('["a/b"]\nprompt = true\ncompletion = 1\n', "not a price of 'a/b'"),
        ('["a/b"]\nprompt = "1.2"\ncompletion = 1\n', "not a price of 'a/b'"),
        ('"a/b" = 1.2\n', "not a price of 'a/b': 1.2"),
        ("[a/b]\nprompt = 1\n", "the prices cannot be read"),
        ("\x00", "the prices cannot be read"),
    ],
)
def test_a_malformed_file_says_what_where_and_how(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_prices(path)
    assert caught.value.where == str(path) and '["provider/model"]' in caught.value.todo


@pytest.mark.parametrize("kind", ["missing", "folder", "bytes"])
def test_a_file_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="the prices cannot be read") as caught:
        read_prices(path)
    assert caught.value.where == str(path)


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_longer_call_never_costs_less(prompt: int, completion: int, more: int) -> None:
    price = Price(prompt=1.0, completion=2.0, above=((200_000, 2.0, 3.0), (1_000_000, 4.0, 5.0)))
    cost = price.cost(prompt, completion)
    assert 0 <= cost <= price.cost(prompt + more, completion) and cost <= price.cost(prompt, completion + more)


def test_a_long_prompt_is_priced_whole_at_the_higher_rate() -> None:
    price = Price(prompt=1.0, completion=2.0, above=((10, 3.0, 4.0), (20, 5.0, 6.0)))
    assert [price.rates(n) for n in (10, 11, 20, 21)] == [(1.0, 2.0), (3.0, 4.0), (3.0, 4.0), (5.0, 6.0)]


def test_the_table_is_read_offline_and_without_litellm() -> None:
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = refuse\n"
        "from verbal.models._prices import find_price\n"
        "assert find_price('openai/gpt-4o-mini').prompt > 0\n"
        "assert find_price('anthropic/no-such-model') is None\n"
        "assert 'litellm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_table_knows_a_model_of_its_provider_only() -> None:
    known = find_price("openai/gpt-4o-mini")
    assert known is not None and 0 < known.prompt < known.completion
    assert find_price("litellm/openai/gpt-4o-mini") == known
    for name in ("gpt-4o-mini", "anthropic/gpt-4o-mini", "openai/", "", "openai/text-embedding-3-small", "a/b/c"):
        assert find_price(name) is None


def test_a_table_that_is_not_there_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from verbal.models import _prices

    monkeypatch.setattr(_prices.importlib.util, "find_spec", lambda _: None)
    _prices._read_table.cache_clear()
    try:
        assert find_price("openai/gpt-4o-mini") is None
    finally:
        _prices._read_table.cache_clear()


def test_what_runs_on_this_machine_is_free() -> None:
    for model in (ScriptedModel(["x"]), HttpModel("m", "http://127.0.0.1:1/v1"), HttpModel("m", "http://localhost:1")):
        assert price_of(model) == Price(prompt=0.0, completion=0.0)
    assert price_of(HttpModel("m", "https://models.example.org/v1")) is None


# at the start of a run ------------------------------------------------------------------------------------------------


async def opened(folder: Path, **options: object) -> float | None:
    """The price of a million prompt tokens, for a run on a server abroad; nothing is called."""
    table = ModelTable(name=ABROAD, price_in=options.get("price_in"), price_out=options.get("price_out"))  # type: ignore[arg-type]
    recipe = Recipe(
        model=table,
        critics=CriticsTable(names=(CRITIC,), verdict=CRITIC),
        memory=MemoryTable(name=""),
        limits=LimitsTable(prices=str(options.get("prices", "")), max_cost=options.get("max_cost")),  # type: ignore[arg-type]
    )

    class Quiet(HttpModel):
        async def check(self) -> str:
            return "ok"

    model = Quiet("mine", "https://models.example.org/v1")
    with Store(folder / "v.db") as store:
        async with open_workshop(recipe, store, run="r", model=model, app=TinyApp()) as shop:
            price = shop.roles("solver").price
            return None if price is None else float(price.prompt)


@pytest.mark.parametrize("limit", [None, 1.0])
async def test_an_unknown_price_stops_a_run_before_its_first_call(limit: float | None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the price of this model is not known") as caught:
        await opened(tmp_path, max_cost=limit)
    assert "http/mine" in caught.value.where
    for flag in ("--prices FILE", "--set model.price_in=", "model.price_out=", "0 for a model that is free"):
        assert flag in caught.value.todo
    with Store(tmp_path / "v.db") as store:
        assert store.usage() == {} and store.runs() == []


async def test_a_price_is_told_by_a_file_or_an_option_and_the_option_wins(tmp_path: Path) -> None:
    path = written(tmp_path, '["http/mine"]\nprompt = 3.0\ncompletion = 4.0\n')
    assert await opened(tmp_path, prices=path) == 3.0
    assert await opened(tmp_path, prices=path, price_in=7.0, price_out=8.0) == 7.0
    assert await opened(tmp_path, price_in=0.0, price_out=0.0, max_cost=1.0) == 0.0
    with pytest.raises(ConfigError, match="not known"):
        await opened(tmp_path, price_in=1.0)
    other = written(tmp_path, '["http/other"]\nprompt = 3.0\ncompletion = 4.0\n')
    with pytest.raises(ConfigError, match="not known"):
        await opened(tmp_path, prices=other)
    with pytest.raises(ConfigError, match="cannot be read"):
        await opened(tmp_path, prices=tmp_path / "none.toml")
