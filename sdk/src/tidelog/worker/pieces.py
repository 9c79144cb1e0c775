"""A piece of work in hand: from its claim until its outcome is recorded, or until it is lost."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

from tidelog.journal import JournalUpdate
from tidelog.used import Used
from tidelog.worker.leases import Lease
from tidelog.worker.protocol import AgentWork, ReconcileWork, Ticket, ToolWork, parsed

Kind = Literal["agent", "tool"]
MODELS: dict[str, tuple[Kind, type[AgentWork] | type[ToolWork]]] = {
    "agent": ("agent", AgentWork), "tool": ("tool", ToolWork), "reconcile": ("tool", ReconcileWork),
}  # fmt: skip
"""Kind of work as the server says it → who does it, and how it is read."""


class Piece:
    """One attempt of an agent run or of an invocation."""

    def __init__(self, kind: Kind, ticket: Ticket, claim: AgentWork | ToolWork) -> None:
        self.kind = kind
        self.ticket = ticket
        self.claim = claim
        self.lease = Lease()
        self.cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server has cancelled the call of a tool, whose outcome is still wanted."""
        self.told = threading.Event()
        """The same for the thread of a sync tool."""
        self.used = Used()
        """What the call of a tool has used, as far as the tool says."""
        self._take: Callable[[JournalUpdate], None] | None = None
        """Takes the news of an agent run that is executed."""
        self._early: list[JournalUpdate] = []
        """News that came before anybody could take them."""

    @classmethod
    def of(cls, message: dict[str, Any]) -> "Piece":
        """The piece of a `work` message. Raises TidelogConnectionError, ValueError if it cannot be understood."""
        kind = message.get("kind")
        if kind not in MODELS:
            raise ValueError(f"work of the kind {kind!r:.50}")
        of, model = MODELS[kind]
        return cls(of, ticket_of(message), parsed(model, message))

    @property
    def pool(self) -> str:
        """The name of the agent or tool."""
        return self.claim.agent if isinstance(self.claim, AgentWork) else self.claim.tool

    @property
    def run_id(self) -> UUID:
        return self.claim.run

    def fields(self) -> dict[str, Any]:
        """For log lines."""
        return {"kind": self.kind, "pool": self.pool, "work_id": self.ticket.work, "run_id": self.run_id}

    def update(self, update: JournalUpdate) -> None:
        if self._take is None:
            self._early.append(update)
        else:
            self._take(update)

    def follow(self, take: Callable[[JournalUpdate], None]) -> None:
        """`take` gets the news from now on, and those that came before."""
        self._take = take
        while self._early:
            take(self._early.pop(0))

    def stop(self, reason: str) -> None:
        """The server wants no more work on this. A cancelled call of a tool still has an outcome; all else is over."""
        self.told.set()
        if self.kind == "tool" and reason in ("cancelled", "timed-out"):
            if not self.cancelled.done():
                self.cancelled.set_result(None)
        else:
            self.lease.give_up("over")


def ticket_of(message: dict[str, Any]) -> Ticket:
    """Raises ValueError if the message names no work."""
    work, attempt, token = message.get("work"), message.get("attempt"), message.get("token")
    if type(work) is not str or type(attempt) is not int or type(token) is not str:
        raise ValueError("work without a name, an attempt or a token")
    return Ticket(work, attempt, token)
