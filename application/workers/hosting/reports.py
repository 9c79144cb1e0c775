"""What a report of a worker does: the same use cases, with the same names of commands, as through every other entrance."""

from typing import Any

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.workers import Workers
from application.workers.hosting.looking import result_of
from application.workers.hosting.messages import (
    Call,
    Complete,
    Done,
    Fail,
    Get,
    More,
    Receive,
    Record,
    RecordedReport,
    Send,
    Set,
)
from domain import agent_runs, invocations
from domain.errors import InvalidCommand


async def carry_out(workers: Workers, commands: CommandLoop, caller: Caller, kind: str, report: RecordedReport) -> Done:
    """Carries out a report about an agent run or a tool call. `kind`: `agent` or `tool`.

    Raises TidelogError: the report is refused, or a dependency is away.
    """
    if kind == "tool":
        return await _of_call(workers, caller, report)
    work: dict[str, Any] = {"agent_run_id": report.work, "attempt": report.attempt}
    match report:
        case Record():
            step = agent_runs.RecordStep(**work, key=report.key, kind=report.kind, result=report.result)
            return _done(report, (await workers.journals.record(caller, report.work, [step]))[0])
        case Call():
            start = agent_runs.StartCall(**work, key=report.key, tool=report.tool)
            invocation_id, outcome = await workers.calls.call(caller, start, report.arguments)
            return _done(report, outcome, invocation_id=invocation_id)
        case Send():
            message_id, outcome = await workers.mail.send(
                caller, agent_run_id=report.work, attempt=report.attempt, key=report.key, to=report.to, body=report.body
            )
            return _done(report, outcome, message_id=message_id)
        case Receive():
            receive = agent_runs.ReceiveMail(**work, key=report.key, message_id=report.message_id)
            return _done(report, await workers.mail.receive(caller, receive))
        case Get():
            value, outcome = await workers.context.get(
                caller, agent_run_id=report.work, attempt=report.attempt, key=report.key, name=report.name
            )
            return _done(report, outcome, **value)
        case Set():
            value, outcome = await workers.context.set(
                caller, agent_run_id=report.work, attempt=report.attempt, key=report.key, name=report.name,
                value=report.value, expect=report.expect,
            )  # fmt: skip
            return _done(report, outcome, **value)
        case More():
            if report.result is not None:
                return Done(report.id, {"result": await result_of(commands, caller.tenant_id, report.work, report.result)})
            return Done(report.id, page=await workers.journals.page(caller.tenant_id, report.work, after_version=report.after))
        case Complete():
            complete = agent_runs.CompleteAgentRun(**work, result=report.result, unused_keys=report.unused_keys)
            return _done(report, await workers.outcomes.complete(caller, complete))
        case Fail():
            fail = agent_runs.FailAgentRun(**work, error=report.error)
            outcome, again = await workers.outcomes.fail(caller, fail)
            return _done(report, outcome, retry=again)


async def _of_call(workers: Workers, caller: Caller, report: RecordedReport) -> Done:
    match report:
        case Complete():
            complete = invocations.CompleteInvocation(invocation_id=report.work, attempt=report.attempt, result=report.result)
            return _done(report, await workers.invocations.complete(caller, complete))
        case Fail():
            fail = invocations.FailInvocation(invocation_id=report.work, attempt=report.attempt, error=report.error)
            return _done(report, await workers.invocations.fail(caller, fail))
        case _:
            raise InvalidCommand(f"the work is a tool call, which has no {report.t}: it is completed or fails")


def _done(report: RecordedReport, outcome: CommandOutcome, **fields: object) -> Done:
    return Done(report.id, {**fields, "version": outcome.versions[report.work]})
