"""The services of the shop, in a file beside the workspace: what another company would run.

They keep a book of all that really happened to them, one row for each effect, and never merge two rows. So whoever wants to know
whether a card was charged twice counts rows.
"""

import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

FOLDER = "ORDER_SERVICES"
"""Names the folder of the book; default: `.tidelog/order` in the workspace."""
STOCK = {"lamp": 1_000_000, "chair": 1_000_000, "unicorn": 0}
PRICES = {"lamp": 40, "chair": 90, "unicorn": 1_000}
CARRIERS = ("post", "bike")
SLOWNESS_S = 0.1
"""Each service takes up to this long before what it does, and again after: a worker may vanish between the two."""

_TABLE = """
CREATE TABLE IF NOT EXISTS effect (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, kind TEXT NOT NULL, reference TEXT NOT NULL, order_id TEXT NOT NULL,
    amount INTEGER NOT NULL
)
"""


class Book:
    """What happened, in the order in which it happened."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "book.sqlite3"

    def add(self, kind: str, reference: str, order_id: str, amount: int) -> str:
        """Something happens: a new row, whatever is there already. Returns its id."""
        return self._write(kind, reference, order_id, amount, known=False)

    def once(self, kind: str, reference: str, order_id: str, amount: int) -> str:
        """As `add`, of a service that knows its references: what it has taken under one is not done again."""
        return self._write(kind, reference, order_id, amount, known=True)

    def find(self, kind: str, reference: str) -> str | None:
        with self._open() as book:
            found = book.execute("SELECT id FROM effect WHERE kind = ? AND reference = ?", (kind, reference)).fetchone()
        return None if found is None else str(found[0])

    def rows(self) -> list[dict[str, Any]]:
        with self._open() as book:
            rows = book.execute("SELECT number, id, kind, reference, order_id, amount FROM effect ORDER BY number").fetchall()
        return [dict(zip(("number", "id", "kind", "reference", "order_id", "amount"), row, strict=True)) for row in rows]

    @classmethod
    def of(cls, workspace: Path) -> "Book":
        """The book that the tools write."""
        return cls(Path(os.environ.get(FOLDER) or workspace / ".tidelog" / "order"))

    def _write(self, kind: str, reference: str, order_id: str, amount: int, *, known: bool) -> str:
        time.sleep(random.uniform(0, SLOWNESS_S))
        made = uuid4().hex
        with self._open() as book:
            book.execute("BEGIN IMMEDIATE")
            found = book.execute("SELECT id FROM effect WHERE kind = ? AND reference = ?", (kind, reference)).fetchone()
            if known and found is not None:
                made = str(found[0])
            else:
                book.execute(
                    "INSERT INTO effect (id, kind, reference, order_id, amount) VALUES (?, ?, ?, ?, ?)",
                    (made, kind, reference, order_id, amount),
                )
        time.sleep(random.uniform(0, SLOWNESS_S))
        return made

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as book, book:
            book.execute(_TABLE)
            yield book
