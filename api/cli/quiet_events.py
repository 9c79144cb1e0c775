"""Words of events that `runs watch` passes over, and that a whole history tells (`Timeline.more`)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from api.cli.failures import headline
from api.cli.output import gist, shortened
from api.cli.phrases import who
from api.cli.plan_events import part_name
from api.cli.timeline import RUN, Event, Teller, Timeline, Told


def _name(line: Timeline, invocation_id: object) -> str:
    call = line._calls.get(str(invocation_id))
    return call.name if call else f"call …{str(invocation_id)[-8:]}"


def _effect(line: Timeline, number: object) -> str:
    return f"effect {number} of {line._effects.get(number, '?')}"  # type: ignore[call-overload]  # a number of JSON


def _of_call(words: str) -> Teller:
    """Words of an event of a call."""

    def tell(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
        call = line._calls.get(event["subject"])
        return (call.actor, f"{call.name} {words}", "quiet") if call else None

    return tell


def _of_agent(words: str) -> Teller:
    """Words of an event of an agent run."""

    def tell(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
        return line._actor(event["subject"]), words, "quiet"

    return tell


def _outcome_read(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    failed = "" if data["succeeded"] else ", a failure"
    return line._actor(event["subject"]), f"has the outcome of {_name(line, data['invocation_id'])}{failed}", "quiet"


def _step_recorded(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return line._actor(event["subject"]), f"recorded {data['key']}", "quiet"


def _mail_delivered(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return line._actor(event["subject"]), f"has a message of {data['sender']}", "quiet"


def _mail_refused(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return line._actor(event["subject"]), f"does not take a message: {shortened(data['reason'])}", "quiet"


def _entry_taken_over(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return line._actor(event["subject"]), f"takes over {data['key']}", "quiet"


def _mail_taken_over(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return line._actor(event["subject"]), f"takes over a message of {data['sender']}", "quiet"


def _value_taken_over(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"takes over {data['name']} = {gist(data['value'])}", "quiet"


def _compensation_asked(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    tool = data["compensation"]["tool"]
    return RUN, f"{tool} is to take back the effect of {_name(line, event['subject'])}", "quiet"


def _compensation_refused(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    why = headline(data["error"])
    return RUN, f"the effect of {_name(line, event['subject'])} cannot be taken back: {why}", "warning"


def _call_expected(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"{_name(line, data['invocation_id'])} may have an effect that can be taken back", "quiet"


def _effect_recorded(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    unknown = "; nobody knows whether the call had it" if data.get("unknown") else ""
    what = f"{_effect(line, data['number'])} ({data['key']})"
    return RUN, f"{what} can be taken back by {data['compensated_by']}{unknown}", "quiet"


def _effect_ruled_out(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"{_name(line, data['invocation_id'])} had no effect that could be taken back", "quiet"


def _effect_started(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    again = f", time {data['round']}" if data.get("round", 1) > 1 else ""
    return RUN, f"{_effect(line, data['number'])} is being taken back{again}", "quiet"


def _effect_skipped(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    number = data.get("number")
    what = f"{_name(line, data['invocation_id'])} is not waited for" if number is None else f"{_effect(line, number)} stays"
    return RUN, f"{what}, says {who(data)} because: {shortened(data['reason'])}", "warning"


def _resumed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    if data["because"] == "late_effect":
        return RUN, "a call took effect late: its effect is taken back, too", "plain"
    return RUN, f"taking effects back goes on, says {who(data)} because: {shortened(data['reason'])}", "plain"


def _chain_started(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    line._chains[event["subject"]] = data["tool"]
    return "chain", f"{data['tool']} begins", "plain"


def _chain(line: Timeline, event: Event, words: str) -> Told:
    return "chain", f"{line._chains.get(event['subject'], '?')} {words}", "plain"


def _chain_step(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return _chain(line, event, f"calls {data['tool']} at {data['step']}")


def _chain_skipped(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return _chain(line, event, f"leaves out {data['step']}: {shortened(data['condition'])} is {gist(data.get('value', False))}")


def _chain_step_done(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return _chain(line, event, f"is done with {data['step']}")


def _chain_completed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return _chain(line, event, "completed")


def _chain_failed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    where = f" at {data['step']}" if data.get("step") else ""
    return _chain(line, event, f"failed{where}: {headline(data['error'])}")


def _chain_cancelled(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    why = f": {shortened(data['reason'])}" if data.get("reason") else ""
    return _chain(line, event, f"cancelled{why}")


def _part_scheduled(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return part_name(data), f"waits for {data['agent']}", "quiet"


QUIET: Mapping[str, Teller] = {
    "run.part_scheduled": _part_scheduled,
    "agent_run.requested": _of_agent("waits for a worker"),
    "agent_run.resumed": _of_agent("waits for a worker again"),
    "agent_run.paused": _of_agent("is paused with the run"),
    "agent_run.unpaused": _of_agent("goes on with the run"),
    "agent_run.priority_changed": _of_agent("has the new priority of the run"),
    "agent_run.reopened": _of_agent("goes on: it waits for a worker"),
    "agent_run.suspended": _of_agent("only waits, and has left its worker"),
    "agent_run.step_recorded": _step_recorded,
    "agent_run.call_finished": _outcome_read,
    "agent_run.mail_delivered": _mail_delivered,
    "agent_run.mail_refused": _mail_refused,
    "agent_run.entry_taken_over": _entry_taken_over,
    "agent_run.mail_taken_over": _mail_taken_over,
    "context.value_taken_over": _value_taken_over,
    "agent_run.mail_received": _of_agent("read a message"),
    "invocation.requested": _of_call("is asked for"),
    "invocation.requeued": _of_call("waits for a worker again"),
    "invocation.paused": _of_call("is paused with the run"),
    "invocation.priority_changed": _of_call("has the new priority of the run"),
    "invocation.reconcile_requested": _of_call("is in doubt: whether it took effect is found out"),
    "invocation.reconcile_started": _of_call("is in doubt: its reconcile function is called"),
    "invocation.cancelled": _of_call("cancelled"),
    "invocation.compensation_requested": _compensation_asked,
    "invocation.compensation_refused": _compensation_refused,
    "compensation.call_expected": _call_expected,
    "compensation.effect_recorded": _effect_recorded,
    "compensation.effect_ruled_out": _effect_ruled_out,
    "compensation.effect_started": _effect_started,
    "compensation.effect_skipped": _effect_skipped,
    "compensation.resumed": _resumed,
    "chain.started": _chain_started,
    "chain.step_requested": _chain_step,
    "chain.step_skipped": _chain_skipped,
    "chain.step_finished": _chain_step_done,
    "chain.completed": _chain_completed,
    "chain.failed": _chain_failed,
    "chain.cancelled": _chain_cancelled,
}
