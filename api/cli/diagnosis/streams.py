"""Findings of `tidelog doctor` about the streams on NATS, of this log and of other logs."""

from datetime import timedelta
from typing import TYPE_CHECKING

from api.cli.nats import OLD_QUEUE, UNUSED_FOR_MIN, held, usage

if TYPE_CHECKING:
    from api.assembly.streams import FoundLog
    from api.cli.diagnosis.findings import Diagnosis
    from api.settings import Settings


async def examine_streams(found: "Diagnosis", settings: "Settings") -> None:
    """Examines the streams. Skipped if NATS or the log is unknown or away: other examinations report these faults."""
    from api.assembly.streams import known, streams
    from api.settings import SettingsError
    from api.supervisor.errors import SupervisorError
    from domain.errors import Unavailable

    if any(finding.status == "wrong" and finding.subject in ("NATS", "database") for finding in found.findings):
        return
    try:
        if not known(settings):
            return
        async with streams(settings) as on_nats:
            for log in sorted(await on_nats.survey(), key=lambda log: log.log_id != on_nats.log_id):
                examine_log(found, log, on_nats.log_id)
    except (SettingsError, SupervisorError, Unavailable) as error:
        found.add("streams", "note", f"not looked at: {error}")


def examine_log(found: "Diagnosis", log: "FoundLog", own: str) -> None:
    """Adds the findings about the streams of one log."""
    all_held = ", ".join(f"{stream.name} ({held(stream)})" for stream in log.streams)
    if log.log_id == own:
        found.add("streams", "ok", f"of this log, {own}: {all_held}")
    elif log.log_id is None and any(stream.waiting for stream in log.streams):
        found.add(
            "old queue",
            "warning",
            f"workers wait at {OLD_QUEUE}, the queue of earlier releases, where this server puts no work",
            "restart those workers, unless they are of another log whose server is not upgraded yet",
        )
    elif log.log_id is None:
        found.add("old queue", "note", f"of earlier releases: {all_held}; {usage(log)}", "tidelog nats prune --old-queue")
    elif log.idle(timedelta(minutes=UNUSED_FOR_MIN)):
        found.add(
            "other log", "note", f"not of this log: {all_held}; {usage(log)}",
            f"if that log is gone: tidelog nats prune --log {log.log_id}",
        )  # fmt: skip
    else:
        found.add("other log", "note", f"not of this log, in use: {all_held}; {usage(log)}")
