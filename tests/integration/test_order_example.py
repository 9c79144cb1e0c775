"""The example of an order with a real worker: directed by an agent, by a plan, and by nobody."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from application.engine.background import end
from examples.order import agents, tools
from examples.order._services import FOLDER, Book
from examples.order.agents import Order
from examples.order.check import Outcome, faults, told
from examples.order.reactor import place, react
from tests.integration.sdk_kit import KEY, Server, end_of, running, serving
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tests.pace import in_time
from tidelog import Client

PARTS = (
    agents.TakeOrder, agents.Warehouse, agents.Cashier, agents.Dispatcher, agents.Herald,
    tools.reserve, tools.release, tools.charge, tools.refund, tools.book, tools.cancel,
)  # fmt: skip
PLAN = {"kind": "sequential", "agents": ["warehouse", "cashier", "dispatcher", "herald"]}
FAULTS: tuple[dict[str, str], ...] = ({}, {"item": "unicorn"}, {"card": "stolen"}, {"carrier": "balloon"}, {"customer": "nobody"})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with fresh_database(services) as url, serving(url, services.nats_url, folder) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def book(client: Client, server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Book]:
    """The book of the services, with a worker that has the example."""
    folder = tmp_path_factory.mktemp("services")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        async with running(server.url, *PARTS):
            yield Book(folder)


def an_order(order_id: str, fault: dict[str, str]) -> tuple[Order, Outcome]:
    return Order(order_id=order_id, **fault), "failed" if fault else "completed"


@pytest.mark.parametrize("how", ["agent", "plan"])
async def test_an_order_that_fails_is_taken_back_in_reverse(client: Client, book: Book, how: str) -> None:
    start: dict[str, Any] = {"agent": "take-order"} if how == "agent" else {"plan": PLAN}
    orders = [an_order(f"{how}-{number}", fault) for number, fault in enumerate(FAULTS)]
    runs = [
        (await client.start_run(**start, input=order.model_dump(), compensate="on_failure")).run_id for order, _ in orders
    ]  # fmt: skip
    for run_id, (_, expected) in zip(runs, orders, strict=True):
        assert (await end_of(client, run_id)).status == expected
        if expected == "failed":
            await eventually(partial(taken_back, client, run_id), "the compensation")
    assert list(faults(of(book, how), {order.order_id: expected for order, expected in orders})) == []
    assert told(of(book, how)) == "reserved 4, charged 3, booked 2, released 3, refunded 2, unbooked 1"


async def test_parts_that_react_to_one_another_bring_about_the_same(client: Client, book: Book) -> None:
    """The reader ends in the middle, and begins anew at the first event. (Nobody tells the customer here.)"""
    orders = {f"nobody-{number}": an_order(f"nobody-{number}", fault) for number, fault in enumerate(FAULTS[:-1])}
    left, ended = set(orders), asyncio.Event()

    def over(order_id: str, part: str) -> None:
        left.discard(order_id)
        if not left:
            ended.set()

    known = {order_id: order for order_id, (order, _) in orders.items()}
    for order in known.values():
        await place(client, order)
    reacting = asyncio.create_task(react(client, known, over))
    await eventually(lambda: one_is_charged(book), "the first charge")
    await end(reacting)
    reacting = asyncio.create_task(react(client, known, over))
    try:
        await in_time(ended.wait(), 20)
        await eventually(lambda: all_released(book), "what was reserved for nothing is released")
    finally:
        await end(reacting)
    assert list(faults(of(book, "nobody"), {order_id: expected for order_id, (_, expected) in orders.items()})) == []


def of(book: Book, name: str) -> list[dict[str, Any]]:
    return [row for row in book.rows() if row["order_id"].startswith(f"{name}-")]


async def taken_back(client: Client, run_id: UUID) -> bool | None:
    return (await client.compensation(run_id)).status in ("compensated", "none") or None


async def one_is_charged(book: Book) -> bool | None:
    return any(row["kind"] == "charged" for row in of(book, "nobody")) or None


async def all_released(book: Book) -> bool | None:
    return sum(row["kind"] == "released" for row in of(book, "nobody")) == 2 or None
