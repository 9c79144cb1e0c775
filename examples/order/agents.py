"""The agents of an order: one that does all, and one for each part."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tidelog import Agent, Context, PermanentError

from ._services import PRICES


class Order(BaseModel):
    """What a customer wants."""

    model_config = ConfigDict(extra="forbid")
    order_id: str = Field(min_length=1, max_length=100)
    item: str = "lamp"
    quantity: int = Field(default=1, ge=1, le=100)
    card: str = "4242"
    carrier: str = "post"
    customer: str = "ada"

    @property
    def amount(self) -> int:
        return PRICES.get(self.item, 0) * self.quantity


class TakeOrder(Agent):
    """Reserves, charges and books, one after the other. When one fails, the run fails, and what was done is taken back."""

    name = "take-order"

    async def execute(self, ctx: Context) -> dict[str, Any]:
        order = Order.model_validate(ctx.input)
        reserved = await reserve(ctx, order)
        charged = await charge(ctx, order)
        booked = await book(ctx, order)
        return {**reserved, **charged, **booked, **tell(order)}


class Warehouse(Agent):
    """Reserves the item of an order."""

    name = "warehouse"

    async def execute(self, ctx: Context) -> dict[str, Any]:
        return await reserve(ctx, Order.model_validate(ctx.input))


class Cashier(Agent):
    """Charges the card of an order."""

    name = "cashier"

    async def execute(self, ctx: Context) -> dict[str, Any]:
        return await charge(ctx, Order.model_validate(ctx.input))


class Dispatcher(Agent):
    """Books the parcel of an order."""

    name = "dispatcher"

    async def execute(self, ctx: Context) -> dict[str, Any]:
        return await book(ctx, Order.model_validate(ctx.input))


class Herald(Agent):
    """Tells the customer."""

    name = "herald"

    async def execute(self, ctx: Context) -> dict[str, Any]:
        return tell(Order.model_validate(ctx.input))


def tell(order: Order) -> dict[str, Any]:
    if order.customer == "nobody":
        raise PermanentError("there is nobody to tell")
    return {"told": order.customer}


async def reserve(ctx: Context, order: Order) -> dict[str, Any]:
    found: dict[str, Any] = await ctx.tool("stock.reserve", order_id=order.order_id, item=order.item, quantity=order.quantity)
    return found


async def charge(ctx: Context, order: Order) -> dict[str, Any]:
    found: dict[str, Any] = await ctx.tool("payment.charge", order_id=order.order_id, card=order.card, amount=order.amount)
    return found


async def book(ctx: Context, order: Order) -> dict[str, Any]:
    found: dict[str, Any] = await ctx.tool("shipping.book", order_id=order.order_id, carrier=order.carrier)
    return found
