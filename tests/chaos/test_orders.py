"""Orders with payments, while every part of the system is killed at random moments: no card is charged twice, nothing is lost, and
what nobody can know waits for a person.

The book of the example's services is the judge. It counts what really happened, and Tidelog does not write it.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest

from application.engine.background import end
from examples.order import __file__ as EXAMPLE
from examples.order._services import FOLDER
from examples.order.check import faults, told
from tests.chaos import away
from tests.chaos.orders import Shop
from tests.chaos.server import left_over, running_server
from tests.chaos.storm import Storm, plan_of, seed_of, storms
from tests.chaos.test_kills import AT_ONCE, BREATH_S, PARTS, check_output
from tests.pace import ANSWER_S, ended, until
from tidelog.http_client import http_client

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of the server in /proc"),
]

BREATH_ORDERS = 3
"""Orders that must be over after each round."""
END_TIMEOUT_S = 120.0


@pytest.mark.parametrize(("number", "kills"), list(enumerate(storms())))
async def test_no_order_is_charged_twice_whatever_is_killed(number: int, kills: int) -> None:
    seed = seed_of(number)
    kills = kills or len(PARTS)
    print(f"\norders, storm {number} of {kills} kills: TIDELOG_CHAOS_SEED={seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tidelog-orders-") as services:
        async with running_server(Path(EXAMPLE).parent, "--isolate", environment={FOLDER: services}) as server:
            headers = {"Authorization": f"Bearer {server.key}"}
            async with http_client(server.url, headers=headers, timeout_s=ANSWER_S) as http:

                async def registered() -> bool:  # tools come after agents
                    return "stock.release" in [tool["name"] for tool in (await http.get("/v1/tools")).json()["data"]]

                await until(registered, 30)
                shop, stop, storm = Shop(http, Path(services), seed, at_once=AT_ONCE), asyncio.Event(), Storm(server, seed)
                shopping = asyncio.create_task(shop.run(stop), name="orders")
                try:
                    await orders_go_on(shop, shopping)
                    rounds = list(plan_of(seed, kills, PARTS))
                    for place, blows in enumerate(rounds, 1):
                        for planned in blows:
                            await storm.strike(planned)
                        if place < len(rounds) and (gone := away.outage_after(place)) is not None:
                            await storm.kill(gone, f", away for {away.AWAY_S:g} s")
                            await away.keep_away(server)
                            await until(lambda: away.is_ready(http), away.BACK_S)
                        await orders_go_on(shop, shopping)
                        assert [fault for fault in faults(shop.book.rows(), {}) if "times" in fault] == [], storm.explain([])
                        print(f"  {storm.told()}; {shop.over} of {len(shop.orders)} orders over", flush=True)
                    await storm.close()
                    stop.set()
                    await ended(shopping, END_TIMEOUT_S)
                except (Exception, asyncio.CancelledError) as error:
                    error.add_note(storm.explain([]))
                    raise
                finally:
                    await storm.close()
                    await end(shopping)
                rows = shop.book.rows()
                found = [*faults(rows, {order.order_id: order.expected for order in shop.orders}), *check_output(server)]
                assert found == [], "\n".join([storm.explain([]), *map(str, found)])
                explained = [said for order in shop.orders for said in order.explained.values()]
                print(f"seed {seed}: {storm.told()}; {len(shop.orders)} orders, each as it should be: {told(rows)}")
                print(f"  {len(explained)} calls explained by hand, {explained.count('booked')} of them had booked", flush=True)
            assert await server.stop() == 0
            assert left_over(server.folder) == []


async def orders_go_on(shop: Shop, shopping: asyncio.Task[None]) -> None:
    """Waits until so many more orders are over. Raises TimeoutError."""
    before = shop.over

    async def more() -> bool:
        if shopping.done():
            shopping.result()
        return shop.over >= before + BREATH_ORDERS

    await until(more, BREATH_S)
