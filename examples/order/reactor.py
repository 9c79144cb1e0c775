"""The same order without anybody who directs it: each part reacts to what another part has done.

A part of an order is a call of a tool without a run. Its name, `<part>:<order id>`, is the key of the call, so a reaction that is
repeated is the same call again. The reactor keeps nothing but the orders: it may be killed and read the log from the beginning.

    python -m examples.order.reactor ORDERS.json      {"order-1": {"item": "lamp", ...}, ...}
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tidelog import Client
from tidelog.models import Event

from .agents import Order

Call = tuple[str, dict[str, Any]]
"""A tool and its arguments."""

DONE = "invocation.succeeded"
FAILED = "invocation.failed"


def reserve(order: Order, result: Any) -> Call:
    return "stock.reserve", {"order_id": order.order_id, "item": order.item, "quantity": order.quantity}


def charge(order: Order, result: Any) -> Call:
    return "payment.charge", {"order_id": order.order_id, "card": order.card, "amount": order.amount}


def book(order: Order, result: Any) -> Call:
    return "shipping.book", {"order_id": order.order_id, "carrier": order.carrier}


def refund(order: Order, result: Any) -> Call:
    return "payment.refund", {"order_id": order.order_id, "charge_id": result["charge_id"]}


def release(order: Order, result: Any) -> Call:
    return "stock.release", {"order_id": order.order_id}


REACTIONS: Mapping[tuple[str, str], tuple[str, Callable[[Order, Any], Call]]] = {
    ("reserve", DONE): ("charge", charge),
    ("charge", DONE): ("book", book),
    ("charge", FAILED): ("release", release),
    ("book", FAILED): ("refund", refund),
    ("refund", DONE): ("release", release),
}
"""(part, what became of it) → the part that follows. Nobody sees the whole: it is what the lines bring about together."""


async def place(client: Client, order: Order) -> None:
    await _call(client, "reserve", order, reserve(order, None))


async def react(client: Client, orders: Mapping[str, Order], over: Callable[[str, str], None]) -> None:
    """Reacts to what happens to orders, until it is cancelled. `over`: is told of an order to which nothing follows any more."""
    charges: dict[str, Any] = {}
    async for event in client.events(types=(DONE, FAILED)):
        part, _, order_id = _key_of(event).partition(":")
        order = orders.get(order_id)
        if order is None:
            continue
        result = event.data.get("result")
        if (part, event.type) == ("charge", DONE):
            charges[order_id] = result
        following = REACTIONS.get((part, event.type))
        if following is None:
            over(order_id, part)
            continue
        name, call = following
        await _call(client, name, order, call(order, charges.get(order_id) if name == "refund" else result))


async def _call(client: Client, part: str, order: Order, call: Call) -> None:
    tool, arguments = call
    await client.call_tool(tool, arguments, key=f"{part}:{order.order_id}")


def _key_of(event: Event) -> str:
    return str(event.data.get("key") or "") if event.data.get("asked_by") == "client" else ""


def read_orders(path: str) -> dict[str, Order]:
    return {order_id: Order(order_id=order_id, **rest) for order_id, rest in json.loads(Path(path).read_text()).items()}


async def main(orders: Mapping[str, Order]) -> None:
    left, ended = set(orders), asyncio.Event()

    def over(order_id: str, part: str) -> None:
        print(f"{order_id}: {part} was the last part", flush=True)
        left.discard(order_id)
        if not left:
            ended.set()

    async with Client() as client:
        for order in orders.values():
            await place(client, order)
        reacting = asyncio.create_task(react(client, orders, over))
        waiting = asyncio.create_task(ended.wait())
        await asyncio.wait((reacting, waiting), return_when=asyncio.FIRST_COMPLETED)
        for task in (reacting, waiting):
            task.cancel()
        await asyncio.gather(reacting, waiting, return_exceptions=True)
        if left:
            reacting.result()


if __name__ == "__main__":
    asyncio.run(main(read_orders(sys.argv[1])))
