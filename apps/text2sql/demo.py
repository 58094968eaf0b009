"""The demo database: an online shop with eleven tables, made from a seed when it is first needed.

Its codes say nothing by themselves (`status = 'K2'`), as in many real databases, and its staff speak in terms that
no column name reveals: `TERMS`. Nothing here is downloaded; names are from lists of our own.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

from verbal.errors import DataError

from .user_cache import user_cache

VERSION = 1
"""Raised when the generator changes what it makes."""

_SCHEMA = """
CREATE TABLE region (region_id INTEGER PRIMARY KEY, name TEXT, zone TEXT, manager TEXT);
CREATE TABLE customer (
  customer_id INTEGER PRIMARY KEY, name TEXT, login TEXT, city TEXT, status TEXT, segment TEXT, points INTEGER,
  joined DATE, phone TEXT, region_id INTEGER, FOREIGN KEY (region_id) REFERENCES region (region_id));
CREATE TABLE category (category_id INTEGER PRIMARY KEY, name TEXT, department TEXT);
CREATE TABLE supplier (supplier_id INTEGER PRIMARY KEY, name TEXT, country TEXT, rating REAL, since DATE);
CREATE TABLE product (
  product_id INTEGER PRIMARY KEY, name TEXT, price REAL, cost REAL, landed_cost REAL, stock INTEGER,
  reorder_level INTEGER, grade TEXT, launched DATE, category_id INTEGER, supplier_id INTEGER,
  FOREIGN KEY (category_id) REFERENCES category (category_id),
  FOREIGN KEY (supplier_id) REFERENCES supplier (supplier_id));
CREATE TABLE carrier (carrier_id INTEGER PRIMARY KEY, name TEXT, country TEXT, fee REAL);
CREATE TABLE employee (employee_id INTEGER PRIMARY KEY, name TEXT, title TEXT, hired DATE, salary INTEGER);
CREATE TABLE orders (
  order_id INTEGER PRIMARY KEY, ordered DATE, promised DATE, shipped DATE, delivered DATE, mode TEXT, depot TEXT,
  channel TEXT, amount REAL, freight REAL, units INTEGER, customer_id INTEGER, carrier_id INTEGER,
  FOREIGN KEY (customer_id) REFERENCES customer (customer_id),
  FOREIGN KEY (carrier_id) REFERENCES carrier (carrier_id));
CREATE TABLE order_item (
  item_id INTEGER PRIMARY KEY, quantity INTEGER, unit_price REAL, rebate REAL, order_id INTEGER, product_id INTEGER,
  FOREIGN KEY (order_id) REFERENCES orders (order_id), FOREIGN KEY (product_id) REFERENCES product (product_id));
CREATE TABLE review (
  review_id INTEGER PRIMARY KEY, stars INTEGER, written DATE, product_id INTEGER, customer_id INTEGER,
  FOREIGN KEY (product_id) REFERENCES product (product_id),
  FOREIGN KEY (customer_id) REFERENCES customer (customer_id));
CREATE TABLE ticket (
  ticket_id INTEGER PRIMARY KEY, opened DATE, closed DATE, topic TEXT, priority INTEGER, customer_id INTEGER,
  employee_id INTEGER, FOREIGN KEY (customer_id) REFERENCES customer (customer_id),
  FOREIGN KEY (employee_id) REFERENCES employee (employee_id));
CREATE INDEX orders_customer ON orders (customer_id);
CREATE INDEX order_item_order ON order_item (order_id);
CREATE INDEX order_item_product ON order_item (product_id);
CREATE INDEX review_product ON review (product_id);
CREATE INDEX ticket_customer ON ticket (customer_id);
"""


@dataclass(frozen=True, slots=True)
class Term:
    """A word of the shop's staff that the schema does not explain."""

    phrase: str
    subject: str
    """How a hint names it: `active customer`."""
    table: str
    sql: str
    """What it stands for, with {t} before each column: `{t}status = 'K2'`."""
    readings: tuple[str, ...]
    """What someone who does not know it could take it for, in the same form."""
    kind: str = "predicate"
    """predicate, measure, column or table."""

    @property
    def hint(self) -> str:
        """The lesson that explains it."""
        plain = self.sql.format(t="")
        return f"{self.subject} means {'' if self.kind in ('predicate', 'measure') else f'the {self.kind} '}{plain}"


TERMS: dict[str, Term] = {
    term.phrase: term
    for term in (
        Term("active", "active customer", "customer", "{t}status = 'K2'", ("{t}status = 'K1'", "{t}status != 'K4'")),
        Term("dormant", "dormant customer", "customer", "{t}status = 'K4'", ("{t}status = 'K1'", "{t}points = 0")),
        Term("VIP", "VIP customer", "customer", "{t}points >= 4000", ("{t}segment = 'Gold'", "{t}points > 5000")),
        Term("late", "late order", "orders", "{t}shipped > {t}promised", ("{t}delivered > {t}promised",)),
        Term("bulk", "bulk order", "orders", "{t}units >= 12", ("{t}units > 20", "{t}amount > 1000")),
        Term("express", "express order", "orders", "{t}mode = 'M4'", ("{t}mode = 'M1'", "{t}channel = 'app'")),
        Term("premium", "premium product", "product", "{t}grade = 'G3'", ("{t}grade = 'G1'", "{t}price > 200")),
        Term("scarce", "scarce product", "product", "{t}stock < {t}reorder_level", ("{t}stock < 10", "{t}stock = 0")),
        Term("core", "core region", "region", "{t}zone = 'Z2'", ("{t}zone = 'Z1'", "{t}zone != 'Z4'")),
        Term("glowing", "glowing review", "review", "{t}stars >= 4", ("{t}stars = 5", "{t}stars > 2")),
        Term("risky", "risky supplier", "supplier", "{t}rating < 3", ("{t}rating < 2", "{t}rating > 4")),
        Term("urgent", "urgent ticket", "ticket", "{t}priority >= 4", ("{t}priority = 1", "{t}priority = 5")),
        Term(
            "net revenue", "net revenue", "order_item", "{t}quantity * {t}unit_price - {t}rebate",
            ("{t}quantity * {t}unit_price", "{t}unit_price"), "measure",
        ),
        Term("margin", "margin", "product", "{t}price - {t}landed_cost", ("{t}price - {t}cost", "{t}price"), "measure"),
        Term("basket value", "basket value", "orders", "{t}amount - {t}freight", ("{t}amount", "{t}units"), "measure"),
        Term("handle", "handle", "customer", "{t}login", ("{t}name",), "column"),
        Term("hub", "hub", "orders", "{t}depot", ("{t}channel", "{t}mode"), "column"),
        Term("partner", "partner", "carrier", "carrier", ("supplier",), "table"),
    )
}  # fmt: skip
"""The terms of the demo by phrase. Its questions name theirs in `Task.info["terms"]`; no prompt shows this table."""

_LISTS = """
first: Ada Ben Carla Dario Elif Femi Gita Hugo Ines Jonas Karin Leo Mara Nils Olga Pavel Quinn Rosa Sami Tessa Umar
  Vera Willem Xenia Yara Zeno Anton Bella Cyril Dora
last: Abel Bauer Costa Dupont Ekholm Fabbri Garcia Holm Ivanov Jansen Kovacs Laurent Moreau Novak Okafor Petrov
  Quist Rossi Schmidt Tanaka Ueda Vogel Weber Young Zeman Alvarez Brandt Conti Dahl Engel
cities: Berlin Lyon Porto Vienna Prague Turin Ghent Malmo Krakow Seville Zurich Athens
regions: Alpine Baltic Coastal Danube Eastfield Fjord Gallia Highland Iberia Jutland Kolin Lowland
materials: Oak Steel Linen Copper Bamboo Glass Cork Wool Marble Cotton Birch Clay Slate Felt Jute
things: Lamp Chair Kettle Mug Rug Shelf Clock Basket Bench Tray Vase Stool Mirror Pillow Blanket Bowl Planter Teapot
  Lantern Cabinet Desk Curtain Rack Board Bottle Jar Pan Towel
countries: Germany France Italy Spain Poland Sweden Portugal Austria
carriers: Arrow Bluebird Comet Dromedar Eagle Falcon Gazelle Heron
"""
_WORDS = {key: words.split() for key, words in re.findall(r"(\w+): ([^:]+)(?=\n\w+:|\n\Z)", _LISTS)}
_CATEGORIES = (
    ("Lighting", "Home"), ("Seating", "Home"), ("Storage", "Home"), ("Textiles", "Home"), ("Cookware", "Kitchen"),
    ("Tableware", "Kitchen"), ("Tea and Coffee", "Kitchen"), ("Pots", "Garden"), ("Patio", "Garden"),
    ("Tools", "Garden"), ("Desks", "Office"), ("Paper", "Office"), ("Camping", "Sport"), ("Cycling", "Sport"),
)  # fmt: skip
_TITLES = ("Agent", "Senior Agent", "Team Lead", "Trainee")
_TOPICS = ("damage", "delay", "invoice", "question", "return")
_DAY = date(2021, 1, 1)


def demo_database(cache: Path | None = None) -> Path:
    """The path of the demo database, built first if it is not there or is not whole.

    Raises:
        DataError: the cache folder cannot be written.
    """
    folder = cache or user_cache()
    path = folder / f"shop-{VERSION}.sqlite"
    if not _whole(path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = Path(scratch) / "shop.sqlite"
                build_demo(made)
                os.replace(made, path)
        except (OSError, sqlite3.OperationalError) as error:
            raise DataError(
                f"the demo database cannot be built: {error}",
                where=str(folder),
                todo="free space there, or give another folder (cache=..., XDG_CACHE_HOME)",
            ) from error
    return path.resolve()


def _whole(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            return bool(version == VERSION and connection.execute("SELECT COUNT(*) FROM ticket").fetchone()[0])
    except sqlite3.Error:
        return False


def build_demo(path: Path, seed: int = 7) -> str:
    """Writes the demo database to the new file `path`; gives the hash of its content (equal seeds, equal hash)."""
    rows = dict(_all_rows(Random(seed)))
    digest = hashlib.sha256()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        for table, records in rows.items():
            places = ", ".join("?" * len(records[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", records)
            digest.update(repr((table, records)).encode())
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    return digest.hexdigest()


def _all_rows(rng: Random) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    zones = ["Z2", "Z1", "Z3", "Z2", "Z4", "Z3", "Z3", "Z2", "Z4", "Z1", "Z3", "Z4"]
    yield "region", [(i, name, zones[i - 1], _person(rng)) for i, name in enumerate(_WORDS["regions"], 1)]
    yield "customer", [_customer(rng, i) for i in range(1, 2401)]
    yield "category", [(i, *pair) for i, pair in enumerate(_CATEGORIES, 1)]
    yield "supplier", [_supplier(rng, i) for i in range(1, 49)]
    products = [_product(rng, i) for i in range(1, 421)]
    yield "product", products
    yield (
        "carrier",
        [
            (i, n, rng.choice(_WORDS["countries"]), round(rng.uniform(2, 9), 2))
            for i, n in enumerate(_WORDS["carriers"], 1)
        ],
    )
    yield "employee", [_employee(rng, i) for i in range(1, 61)]
    items: list[tuple[Any, ...]] = []
    yield "orders", [_order(rng, i, products, items) for i in range(1, 9001)]
    yield "order_item", items
    yield "review", [_review(rng, i) for i in range(1, 3501)]
    yield "ticket", [_ticket(rng, i) for i in range(1, 1801)]


def _person(rng: Random) -> str:
    return f"{rng.choice(_WORDS['first'])} {rng.choice(_WORDS['last'])}"


def _day(rng: Random, first: int, last: int) -> date:
    return _DAY + timedelta(days=rng.randint(first, last))


def _customer(rng: Random, number: int) -> tuple[Any, ...]:
    name = _person(rng)
    status = rng.choices(("K1", "K2", "K3", "K4"), (20, 44, 21, 15))[0]
    points = 0 if rng.random() < 0.08 else int(6000 * rng.random() ** 1.6)
    segment = rng.choices(("Basic", "Plus", "Gold"), (50, 30, 20))[0]
    phone = None if rng.random() < 0.15 else f"+49 {rng.randint(100, 999)} {rng.randint(10000, 99999)}"
    login = f"{name.split()[0].lower()}{number % 97}{name.split()[1][:2].lower()}"
    city, joined = rng.choice(_WORDS["cities"]), str(_day(rng, 0, 1400))
    return number, name, login, city, status, segment, points, joined, phone, rng.randint(1, 12)


def _supplier(rng: Random, number: int) -> tuple[Any, ...]:
    name = f"{rng.choice(_WORDS['last'])} {rng.choice(('Trading', 'and Sons', 'Works', 'Import', 'Studio'))}"
    return number, name, rng.choice(_WORDS["countries"]), round(rng.uniform(1.2, 5), 1), str(_day(rng, -2500, 600))


def _product(rng: Random, number: int) -> tuple[Any, ...]:
    name = f"{rng.choice(_WORDS['materials'])} {rng.choice(_WORDS['things'])}"
    price = round(rng.choice((9, 15, 24, 39, 60, 110, 180, 290)) * rng.uniform(0.8, 1.3), 2)
    cost = round(price * rng.uniform(0.4, 0.7), 2)
    landed = round(cost + rng.uniform(0.5, 3) + price * rng.uniform(0.01, 0.12), 2)
    grade = rng.choices(("G1", "G2", "G3", "G4"), (25, 35, 18, 22))[0]
    stock = 0 if rng.random() < 0.05 else rng.randint(1, 240)
    launched = str(_day(rng, -700, 1300))
    links = rng.randint(1, len(_CATEGORIES)), rng.randint(1, 45)
    return number, name, price, cost, landed, stock, rng.choice((15, 30, 45, 60, 90)), grade, launched, *links


def _employee(rng: Random, number: int) -> tuple[Any, ...]:
    title = rng.choices(_TITLES, (50, 25, 10, 15))[0]
    salary = {"Agent": 34, "Senior Agent": 44, "Team Lead": 58, "Trainee": 24}[title] * 1000 + rng.randint(
        -30, 40
    ) * 100
    return number, _person(rng), title, str(_day(rng, -1800, 1200)), salary


def _order(rng: Random, number: int, products: list[tuple[Any, ...]], items: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    ordered = _day(rng, 120, 1440)
    promised = ordered + timedelta(days=rng.choice((3, 4, 5, 7, 10)))
    shipped = (
        None if rng.random() < 0.06 else promised + timedelta(days=rng.choice((-4, -3, -2, -2, -1, -1, 0, 1, 2, 4)))
    )
    if shipped is not None:
        shipped = max(shipped, ordered)
    delivered = None if shipped is None or rng.random() < 0.04 else shipped + timedelta(days=rng.randint(1, 6))
    carrier = rng.randint(1, 7)
    mode = rng.choices(("M1", "M2", "M3", "M4"), (38, 27, 20, 30 if carrier == 5 else 13))[0]
    depot = rng.choices(("D1", "D2", "D3", "D4", "D5", "D6"), (10, 25, 15, 20, 12, 18))[0]
    channel = rng.choices(("web", "app", "phone", "store"), (45, 30, 10, 15))[0]
    amount, units = 0.0, 0
    for _ in range(rng.choices((1, 2, 3, 4, 5), (28, 30, 22, 13, 7))[0]):
        product = rng.choice(products)
        quantity = rng.choices((1, 2, 3, 4, 6, 10), (42, 24, 14, 10, 6, 4))[0]
        price = round(product[2] * rng.choice((1, 1, 1, 0.95, 0.9)), 2)
        rebate = round(quantity * price * rng.uniform(0.05, 0.25), 2) if rng.random() < 0.3 else 0.0
        items.append((len(items) + 1, quantity, price, rebate, number, product[0]))
        amount, units = amount + quantity * price - rebate, units + quantity
    freight = round(rng.uniform(3, 28), 2)
    days = (ordered, promised, shipped, delivered)
    codes = (mode, depot, channel, round(amount + freight, 2), freight, units)
    buyer = min(int(2300 * rng.random() ** 1.3) + 1, 2400)
    return (number, *(None if day is None else str(day) for day in days), *codes, buyer, carrier)


def _review(rng: Random, number: int) -> tuple[Any, ...]:
    stars = rng.choices((1, 2, 3, 4, 5), (8, 10, 22, 33, 27))[0]
    return number, stars, str(_day(rng, 150, 1460)), rng.randint(1, 405), rng.randint(1, 2400)


def _ticket(rng: Random, number: int) -> tuple[Any, ...]:
    opened = _day(rng, 130, 1450)
    closed = None if rng.random() < 0.18 else str(opened + timedelta(days=rng.randint(0, 25)))
    topic, priority = (
        rng.choices(_TOPICS, (20, 30, 15, 20, 15))[0],
        rng.choices((1, 2, 3, 4, 5), (15, 25, 30, 18, 12))[0],
    )
    return number, str(opened), closed, topic, priority, rng.randint(1, 2400), rng.randint(1, 57)
