"""Looks into the book of the services: what happened twice, what was not taken back.

`python -m examples.order.check [FOLDER]`: of the folder of the book, or of this workspace.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ._services import Book

TAKEN_BACK = {"reserved": "released", "charged": "refunded", "booked": "unbooked"}
"""What happens to an order → what takes it back. Each happens to an order once."""
Outcome = Literal["completed", "failed"]


def faults(rows: Sequence[Mapping[str, Any]], outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    """What is wrong with the book, given how the orders ended. Orders that are not named are only looked at for what came twice."""
    orders: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        orders[row["order_id"]].append(row)
    for order_id, of_order in orders.items():
        kinds = [row["kind"] for row in of_order]
        for kind in dict.fromkeys(kinds):
            if kinds.count(kind) > 1:
                yield f"order {order_id}: {kind} {kinds.count(kind)} times"
        yield from _of_outcome(order_id, kinds, outcomes.get(order_id))
    for order_id in outcomes.keys() - orders.keys():
        if outcomes[order_id] == "completed":
            yield f"order {order_id} is completed, and nothing happened"


def _of_outcome(order_id: str, kinds: Sequence[str], outcome: Outcome | None) -> Iterator[str]:
    if outcome == "completed":
        yield from (f"order {order_id} is completed, and was never {kind}" for kind in TAKEN_BACK if kind not in kinds)
        yield from (f"order {order_id} is completed, and was {kind}" for kind in TAKEN_BACK.values() if kind in kinds)
    if outcome == "failed":
        done = [kind for kind in kinds if kind in TAKEN_BACK]
        back = [kind for kind in kinds if kind not in TAKEN_BACK]
        if missing := [kind for kind in done if TAKEN_BACK[kind] not in back]:
            yield f"order {order_id} failed, and what was {' and '.join(missing)} was not taken back"
        elif back != [TAKEN_BACK[kind] for kind in reversed(done) if TAKEN_BACK[kind] in back]:
            yield f"order {order_id} was not taken back in reverse: {', '.join(kinds)}"


def told(rows: Iterable[Mapping[str, Any]]) -> str:
    """How often each thing happened."""
    counts: dict[str, int] = dict.fromkeys((*TAKEN_BACK, *TAKEN_BACK.values()), 0)
    for row in rows:
        counts[row["kind"]] += 1
    return ", ".join(f"{kind} {count}" for kind, count in counts.items())


def main(arguments: Sequence[str]) -> int:
    book = Book(Path(arguments[0])) if arguments else Book.of(Path.cwd())
    rows = book.rows()
    print(told(rows))
    found = list(faults(rows, {}))
    print("\n".join(found) if found else "nothing happened twice")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
