"""Orders of the example, started by a client that never gives up, and the person who looks after those that wait for a word."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2

from examples.order._services import Book
from examples.order.check import Outcome
from tests.chaos.load import ask

COMPENSATED = "compensated"
PAUSE_S = 0.3
FAULTS: tuple[dict[str, str], ...] = ({"item": "unicorn"}, {"card": "stolen"}, {"carrier": "balloon"}, {"customer": "nobody"})


@dataclass(slots=True)
class PlacedOrder:
    """An order that the server acknowledged. `expected`: how its run must end."""

    order_id: str
    run_id: UUID
    expected: Outcome
    over: bool = False
    explained: dict[str, str] = field(default_factory=dict)
    """Call that nobody knew the outcome of → what the person found in the book."""


def an_order(number: int, chance: random.Random) -> tuple[dict[str, Any], Outcome]:
    """The body of a start, and how it must end: half of the orders fail, each at one of its parts."""
    fault = chance.choice(FAULTS) if chance.random() < 0.5 else {}
    order = {"order_id": f"order-{number}", "quantity": chance.randint(1, 3), **fault}
    plan: dict[str, Any] = {"agent": "take-order"}
    if chance.random() < 0.5:
        plan = {"plan": {"kind": "sequential", "agents": ["warehouse", "cashier", "dispatcher", "herald"]}}
    return {**plan, "input": order, "compensate": "on_failure"}, "failed" if fault else "completed"


class Shop:
    """Places orders, a bounded number at once, until it is stopped. Then waits until each of them is over or taken back."""

    def __init__(self, http: httpx2.AsyncClient, services: Path, seed: int, *, at_once: int = 12) -> None:
        """`services`: the folder that `ORDER_SERVICES` names."""
        self._http = http
        self._random = random.Random(seed)
        self._seed = seed
        self._at_once = at_once
        self.book = Book(services)
        self.orders: list[PlacedOrder] = []

    @property
    def over(self) -> int:
        return sum(order.over for order in self.orders)

    async def run(self, stop: asyncio.Event) -> None:
        """Raises AssertionError for a wrong answer."""
        gate = asyncio.Semaphore(self._at_once)
        async with asyncio.TaskGroup() as group:
            number = 0
            while not stop.is_set():
                await gate.acquire()
                group.create_task(self._one(number)).add_done_callback(lambda _: gate.release())
                number += 1
                await asyncio.sleep(self._random.uniform(0.0, 0.2))

    async def _one(self, number: int) -> None:
        body, expected = an_order(number, self._random)
        answer = await self._ask("POST", "/v1/runs", 201, body=body, key=f"order-{self._seed}-{number}")
        order = PlacedOrder(body["input"]["order_id"], UUID(answer["run_id"]), expected)
        self.orders.append(order)
        while True:
            run = await self._ask("GET", f"/v1/runs/{order.run_id}", 200)
            await self._look_after(order)
            if run["status"] != "running":
                assert run["status"] == expected, f"order {order.order_id}: {run}"
                break
            await asyncio.sleep(PAUSE_S)
        while expected == "failed":
            compensation = await self._ask("GET", f"/v1/runs/{order.run_id}/compensation", 200)
            if compensation["status"] in (COMPENSATED, "none"):
                break
            assert compensation["status"] != "partial", f"order {order.order_id}: {compensation}"
            await self._look_after(order)
            await asyncio.sleep(PAUSE_S)
        order.over = True

    async def _look_after(self, order: PlacedOrder) -> None:
        """Does the part of the person for whom a call waits: looks at the carrier's page, which is the book, and says so."""
        query = f"/v1/invocations?run_id={order.run_id}&status=ambiguous"
        for call in (await self._ask("GET", query, 200))["data"]:
            await self._explain(order, call)

    async def _explain(self, order: PlacedOrder, call: Mapping[str, Any]) -> None:
        invocation_id = call["invocation_id"]
        assert call["tool"] == "shipping.book", f"a call of {call['tool']} waits for a person"
        parcel = self.book.find("booked", invocation_id)
        said: dict[str, Any] = {"not_happened": True}
        if parcel is not None:
            said = {"result": {"parcel_id": parcel, "carrier": "post"}}
        body = {**said, "reason": "the carrier's page has it" if parcel else "the carrier's page has no parcel"}
        # 409: the worker that was thought to have vanished has reported the call meanwhile.
        await self._ask("POST", f"/v1/invocations/{invocation_id}/resolve", (200, 409), body=body)
        order.explained[invocation_id] = "booked" if parcel else "not booked"

    async def _ask(self, method: str, path: str, status: int | tuple[int, ...], **more: Any) -> dict[str, Any]:
        return await ask(self._http, self._random, method, path, status, **more)
