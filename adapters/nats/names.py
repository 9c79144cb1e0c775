"""Names on NATS. Every stream and every subject carries the id of its log, so that several logs can share a NATS.

    the log's copy    TIDELOG_<log id>_<incarnation>    tidelog-log.<log id>.<incarnation>
    the fan-out       TIDELOG_EVENTS_<log id>           tidelog.<log id>.<tenant id>.<slice>.<event>
    the work queue    TIDELOG_WORK_<log id>             tidelog-work.<log id>.<kind>.<tenant id>.<pool>.<work id>.<dispatch>
                                                        tidelog-work.<log id>.<class>.<kind>.… for the classes `high` and `low`
    calls             (no stream)                       tidelog-positions.<log id>

The server's processes get answers on subjects that begin with `INBOX`. A tenant that subscribes to the fan-out has one consumer
there, and an account, a user and a consumer of one name (`subscriber`). Rights on NATS name all of these (adapters/embedded).

In earlier releases, without log ids in names, the work queue of every log was the stream `WORK`.
"""

import re
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

StreamKind = Literal["log", "fan-out", "work queue"]

OLD_WORK_STREAM = "WORK"
INBOX = "_INBOX_tidelog"

_LOG_ID = r"[A-Za-z0-9-]{1,40}"
_KINDS: tuple[tuple[StreamKind, str], ...] = (
    ("fan-out", rf"TIDELOG_EVENTS_({_LOG_ID})"),
    ("work queue", rf"TIDELOG_WORK_({_LOG_ID})"),
    ("log", rf"TIDELOG_({_LOG_ID})_\d+"),
)


@dataclass(frozen=True, slots=True)
class StreamOwner:
    """The use and the log of a stream. `log_id` None: the work queue of an earlier release, whose log is unknown."""

    kind: StreamKind
    log_id: str | None


def checked(log_id: str) -> str:
    """Raises ValueError for an id that cannot be part of a name."""
    if not re.fullmatch(_LOG_ID, log_id):
        raise ValueError(f"not usable in the name of a stream: {log_id!r}")
    return log_id


def owner_of(stream: str) -> StreamOwner | None:
    """The owner of a stream, from its name. None: the stream is not Tidelog's."""
    if stream == OLD_WORK_STREAM:
        return StreamOwner("work queue", None)
    for kind, pattern in _KINDS:
        if match := re.fullmatch(pattern, stream):
            return StreamOwner(kind, match[1])
    return None


def log_stream(log_id: str, incarnation: int) -> str:
    return f"TIDELOG_{log_id}_{incarnation}"


def events_stream(log_id: str) -> str:
    return f"TIDELOG_EVENTS_{log_id}"


def work_stream(log_id: str) -> str:
    return f"TIDELOG_WORK_{log_id}"


def subscriber(tenant_id: UUID | str) -> str:
    return f"tenant-{tenant_id}"


def log_subjects(log_id: str) -> str:
    """The beginning of the subjects; the incarnation follows."""
    return f"tidelog-log.{log_id}"


def event_subjects(log_id: str, tenant_id: UUID | str = "*") -> str:
    """The beginning of the subjects; slice and event follow."""
    return f"tidelog.{log_id}.{tenant_id}"


def work_subjects(log_id: str) -> str:
    """The beginning of the subjects; the class unless it is `normal`, kind, tenant, pool, work and dispatch follow."""
    return f"tidelog-work.{log_id}"


def position_calls(log_id: str) -> str:
    """The subject on which processes call for positions of read models."""
    return f"tidelog-positions.{log_id}"
