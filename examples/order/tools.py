"""The tools of an order. Each shows another answer to the question whether an effect happened when the worker vanished in between.

- `stock.reserve`: the warehouse takes a reference and does nothing twice, so the tool is idempotent.
- `payment.charge`: the bank charges as often as it is asked, but it can be asked, so the tool has a `reconcile` function.
- `shipping.book`: the carrier knows no references and cannot be asked. A person must say, and looks at the carrier's page.

Each has a tool that takes its effect back, and each of those is idempotent: taking back may be tried as often as it takes.
"""

from pydantic import BaseModel

from tidelog import Breaker, Compensation, PermanentError, Policy, Rate, Reconciled, ToolContext, tool

from ._services import CARRIERS, STOCK, Book


class Reserved(BaseModel):
    reservation_id: str


class Charged(BaseModel):
    charge_id: str
    amount: int


class Booked(BaseModel):
    parcel_id: str
    carrier: str


# --- stock ------------------------------------------------------------------------------------------------------------------


@tool(
    "stock.reserve",
    idempotent=True,
    max_attempts=5,
    timeout_s=10,
    returns=Reserved,
    policy=Policy(
        max_parallel=32,
        compensation=Compensation(tool="stock.release", arguments={"order_id": "arguments.order_id"}),
    ),
)
def reserve(ctx: ToolContext, order_id: str, item: str, quantity: int) -> Reserved:
    """Reserve an item of an order."""
    if STOCK.get(item, 0) < quantity:
        raise PermanentError(f"there are not {quantity} of {item!r} in stock")
    return Reserved(reservation_id=Book.of(ctx.workspace).once("reserved", ctx.idempotency_key, order_id, quantity))


@tool("stock.release", idempotent=True, max_attempts=20, timeout_s=10)
def release(ctx: ToolContext, order_id: str) -> None:
    """Give a reservation back."""
    Book.of(ctx.workspace).once("released", ctx.idempotency_key, order_id, 1)


# --- payment ----------------------------------------------------------------------------------------------------------------


def was_charged(ctx: ToolContext, amount: int) -> Reconciled:
    """Asks the bank for a charge with the call's reference. Nothing is charged."""
    charge = Book.of(ctx.workspace).find("charged", ctx.idempotency_key)
    if charge is None:
        return Reconciled.not_happened()
    return Reconciled.succeeded({"charge_id": charge, "amount": amount})


@tool(
    "payment.charge",
    reconcile=was_charged,
    timeout_s=10,
    max_attempts=5,
    returns=Charged,
    policy=Policy(
        breaker=Breaker(failures=5, open_s=10),
        max_parallel=16,
        rate=Rate(calls=500),
        compensation=Compensation(
            tool="payment.refund", arguments={"order_id": "arguments.order_id", "charge_id": "result.charge_id"}
        ),
    ),
)
def charge(ctx: ToolContext, order_id: str, card: str, amount: int) -> Charged:
    """Charge a card."""
    if card == "stolen":
        raise PermanentError("the bank refuses the card")
    charge_id = Book.of(ctx.workspace).add("charged", ctx.idempotency_key, order_id, amount)
    return Charged(charge_id=charge_id, amount=amount)


@tool("payment.refund", idempotent=True, max_attempts=20, timeout_s=10)
def refund(ctx: ToolContext, order_id: str, charge_id: str) -> None:
    """Give the money of a charge back."""
    Book.of(ctx.workspace).once("refunded", charge_id, order_id, 1)


# --- shipping ---------------------------------------------------------------------------------------------------------------


@tool(
    "shipping.book",
    timeout_s=10,
    returns=Booked,
    policy=Policy(
        compensation=Compensation(
            tool="shipping.cancel", arguments={"order_id": "arguments.order_id", "parcel_id": "result.parcel_id"}
        )
    ),
)
def book(ctx: ToolContext, order_id: str, carrier: str) -> Booked:
    """Book a parcel with a carrier."""
    if carrier not in CARRIERS:
        raise PermanentError(f"there is no carrier {carrier!r}")
    return Booked(parcel_id=Book.of(ctx.workspace).add("booked", ctx.idempotency_key, order_id, 1), carrier=carrier)


@tool("shipping.cancel", idempotent=True, max_attempts=20, timeout_s=10)
def cancel(ctx: ToolContext, order_id: str, parcel_id: str) -> None:
    """Cancel a parcel."""
    Book.of(ctx.workspace).once("unbooked", parcel_id, order_id, 1)
