"""What long-lived processes leave out to stay small."""

import gc
import sys
from importlib import import_module


def start_without_collecting() -> None:
    """Leaves garbage alone while a process starts. For the begin of a start; `api.roles.collect_rarely` is its end.

    Hardly any of the 180,000 objects that an import of the api makes is garbage, and looking for it again and again takes an eighth
    of the import. Not switched off: a start may wait for its database for hours.
    """
    gc.set_threshold(500_000, 50, 50)


def leave_out_unused() -> None:
    """Imports structlog and nats without a library that each takes along where it is installed.

    structlog would import rich for tracebacks on a terminal (5 MB): logs here have lines of their own. nats would import aiohttp
    for WebSockets (11 MB, a tenth of a second): URLs of NATS here are `nats://` or `tls://`.

    Leaves a pair alone of which one is imported already. Afterwards others may import rich and aiohttp.
    """
    for library, unused in (("structlog", "rich"), ("nats", "aiohttp")):
        if library in sys.modules or unused in sys.modules:
            continue
        sys.modules[unused] = None  # type: ignore[assignment]  # an import of it fails, as the library allows
        try:
            import_module(library)
        finally:
            del sys.modules[unused]
