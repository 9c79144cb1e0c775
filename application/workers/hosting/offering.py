"""What one session offers: what its worker has announced, and the tools of the tenant that the worker carries out by definition."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

from application.engine.ports.sessions import Offered
from application.workers.hosting.credit import KINDS
from application.workers.hosting.dispatch import Dispatcher
from application.workers.hosting.served import ServedTools, Tools, served_of
from application.workers.hosting.taker import Taker
from application.workers.registering import Registration
from application.workers.sessions import ClaimedCall
from domain.tools import DATA_KINDS

LINGER_S = 3_600.0
"""Seconds for which calls of a tool that was removed are still taken: they were made before, and go on."""


T = TypeVar("T", bound=Taker)


class Offering(Generic[T]):
    def __init__(
        self,
        session: T,
        dispatcher: Dispatcher[T],
        registration: Registration,
        served: ServedTools,
        changed: Callable[[], None],
    ) -> None:
        """`changed`: called when the tools that are data have changed what is offered."""
        self._session = session
        self._dispatcher = dispatcher
        self._registration = registration
        self._served_tools = served
        self._changed = changed
        self._offered: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
        self._announced: Mapping[str, str] = {}
        self._served: Mapping[str, str] = {}
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        """Tools that were removed, and that are offered for a while yet."""
        self._serves: frozenset[str] = frozenset()
        self._end_serving: Callable[[], None] = lambda: None
        self._over = False

    def of(self, kind: str) -> Collection[str]:
        """The names of the agents or tools whose work is taken."""
        return self._offered[kind]

    @property
    def told(self) -> Offered:
        """As operators see it."""
        return Offered(self._offered["agent"], {**self._served, **self._announced})

    def announce(self, kind: str, accepted: Mapping[str, str]) -> None:
        """The worker has these agents, tools or `reconcile` functions, with their versions, and no others."""
        if self._over:
            return
        if kind == "tool":
            self._announced = accepted
            self._offer_tools(anew=True)
        else:
            self._offer(kind, accepted, anew=True)

    def serve(self, kinds: Collection[str]) -> None:
        """The worker carries out the tenant's tools of some kinds, those that are defined later, too."""
        self._serves = DATA_KINDS.intersection(kinds)
        if self._serves and not self._over:
            self._end_serving = self._served_tools.follow(self._session.tenant_id, self._serve)

    def defines(self, call: ClaimedCall) -> bool:
        """Whether the worker carries out a call by the definition of its tool."""
        return bool(self._serves) and not call.asks and call.tool not in self._announced

    def withdraw(self) -> None:
        """Nothing is offered any more."""
        self._over = True
        self._end_serving()
        for timer in self._leaving.values():
            timer.cancel()
        for kind in KINDS:
            self._offer(kind, {}, anew=False)

    def _serve(self, tools: Tools) -> None:
        """The tenant has these tools that are data, from now on."""
        if self._over:
            return
        before, self._served = self._served, served_of(tools, self._serves)
        loop = asyncio.get_running_loop()
        for name in before.keys() - self._served.keys():
            self._leaving[name] = loop.call_later(LINGER_S, self._left, name)
        self._offer_tools(anew=False)
        if before != self._served:
            self._changed()

    def _left(self, name: str) -> None:
        del self._leaving[name]
        self._offer_tools(anew=False)

    def _offer_tools(self, *, anew: bool) -> None:
        wanted = {**self._served, **self._announced}
        for name in self._leaving.keys() & wanted.keys():
            self._leaving.pop(name).cancel()
        self._offer("tool", {**dict.fromkeys(self._leaving, ""), **wanted}, anew=anew)

    def _offer(self, kind: str, wanted: Mapping[str, str], *, anew: bool) -> None:
        """Offers these names with their versions, and no others of the kind. `anew`: also those that are offered as they are."""
        before = self._offered[kind]
        for name in before.keys() - wanted.keys():
            self._dispatcher.withdraw(self._session, kind, name)
        self._offered[kind] = dict(wanted)
        for name, version in wanted.items():
            if anew or before.get(name) != version:
                queue = self._registration.queue_of(self._session.tenant_id, kind, name)
                self._dispatcher.offer(self._session, queue, version)
