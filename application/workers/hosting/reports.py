"""What a report of a worker does: the same use cases, with the same names of commands, as through every other entrance."""

import asyncio
from collections.abc import Sequence
from typing import Any

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.workers import Workers
from application.workers.hosting.hand import Hand
from application.workers.hosting.looking import result_of
from application.workers.hosting.messages import (
    AnyReport,
    BeginChild,
    BeginWait,
    Call,
    Complete,
    Done,
    EndSchedule,
    Fail,
    Get,
    MakeSchedule,
    More,
    Receive,
    Reconciled,
    Record,
    RecordedReport,
    Send,
    Set,
    Suspend,
    TellProgress,
)
from application.workers.journal import Journals
from application.workers.scheduling import AskedOfAgent
from domain import agent_runs, invocations
from domain.amounts import Amounts
from domain.approval_rules import Demand, Requirement
from domain.errors import InvalidCommand


async def carry_out(workers: Workers, commands: CommandLoop, caller: Caller, kind: str, report: RecordedReport) -> Done:
    """Carries out a report about an agent run or a tool call. `kind`: `agent`, `tool` or `reconcile`.

    Raises TidelogError: the report is refused, or a dependency is away.
    """
    if kind != "agent":
        return await _of_call(workers, caller, report)
    work: dict[str, Any] = {"agent_run_id": report.work, "attempt": report.attempt}
    match report:
        case Record():
            return done(report, (await workers.journals.record(caller, report.work, [step_of(report)]))[0])
        case Call():
            start = agent_runs.StartCall(**work, key=report.key, tool=report.tool, fingerprint=report.fingerprint)
            called = await workers.calls.call(caller, start, report.arguments)
            told = {} if called.warning is None else {"warning": called.warning}
            return done(report, called.outcome, invocation_id=called.invocation_id, **told)
        case Send():
            message_id, outcome = await workers.mail.send(
                caller, agent_run_id=report.work, attempt=report.attempt, key=report.key, to=report.to, body=report.body
            )
            return done(report, outcome, message_id=message_id)
        case Receive():
            receive = agent_runs.ReceiveMail(**work, key=report.key, message_id=report.message_id)
            return done(report, await workers.mail.receive(caller, receive))
        case BeginWait() | BeginChild() | Suspend() | TellProgress():
            return await _of_wait(workers, caller, report)
        case Get():
            value, outcome = await workers.context.get(
                caller, agent_run_id=report.work, attempt=report.attempt, key=report.key, name=report.name
            )
            return done(report, outcome, **value)
        case Set():
            value, outcome = await workers.context.set(
                caller, agent_run_id=report.work, attempt=report.attempt, key=report.key, name=report.name,
                value=report.value, expect=report.expect,
            )  # fmt: skip
            return done(report, outcome, **value)
        case MakeSchedule():
            asked = AskedOfAgent(report.work, report.attempt, report.key, report.name)
            made, outcome = await workers.agent_schedules.put(caller, asked, report.definition, report.in_s)
            return done(report, outcome, result=made)
        case EndSchedule():
            asked = AskedOfAgent(report.work, report.attempt, report.key, report.name)
            made, outcome = await workers.agent_schedules.remove(caller, asked, report.reason)
            return done(report, outcome, result=made)
        case More():
            if report.result is not None:
                return Done(report.id, {"result": await result_of(commands, caller.tenant_id, report.work, report.result)})
            return Done(report.id, page=await workers.journals.page(caller.tenant_id, report.work, after_version=report.after))
        case Complete():
            complete = agent_runs.CompleteAgentRun(**work, result=report.result, unused_keys=report.unused_keys)
            return done(report, await workers.outcomes.complete(caller, complete))
        case Fail():
            fail = agent_runs.FailAgentRun(**work, error=report.error)
            outcome, again = await workers.outcomes.fail(caller, fail)
            return done(report, outcome, retry=again)
        case Reconciled():
            raise InvalidCommand("the work is an agent run, which is not asked about an effect")


async def _of_wait(workers: Workers, caller: Caller, report: BeginWait | BeginChild | Suspend | TellProgress) -> Done:
    work: dict[str, Any] = {"agent_run_id": report.work, "attempt": report.attempt}
    match report:
        case BeginWait(kind="approval"):
            return done(report, await _ask(workers, caller, report))
        case BeginWait():
            wait = agent_runs.StartWait(
                **work, key=report.key, kind=report.kind, name=report.name, delay_s=report.s, until=report.until,
                fingerprint=report.fingerprint,
            )  # fmt: skip
            return done(report, await workers.waits.start(caller, wait))
        case BeginChild():
            if workers.children is None:
                raise InvalidCommand("this server starts no child runs of agents")
            wait = agent_runs.StartWait(**work, key=report.key, kind="child", fingerprint=report.fingerprint)
            started = await workers.children.start(
                caller, wait, agent=report.agent, workflow=report.workflow, version=report.version, input=report.input,
                plan=report.plan,
            )  # fmt: skip
            return done(report, started, run_id=agent_runs.child_id_of(report.work, report.key))
        case Suspend():
            left = [(one.key, one.s, one.sender) for one in report.receives]
            suspended, outcome = await workers.waits.suspend(caller, report.work, report.attempt, report.seen, left)
            return done(report, outcome, suspended=suspended)
        case TellProgress():
            note = agent_runs.ReportProgress(**work, done=report.done, total=report.total, message=report.message)
            noted = await workers.progress.report(caller, note)
            return Done(report.id, {"recorded": False}) if noted is None else done(report, noted)


async def _ask(workers: Workers, caller: Caller, report: BeginWait) -> CommandOutcome:
    asked = report.question
    if asked is None:
        raise InvalidCommand("a wait of the kind `approval` has a question", pointer="/question")
    if asked.default == "approve" and asked.deadline_s is None:
        raise InvalidCommand("`default: approve` goes with `deadline_s`", pointer="/question/default")
    wait = agent_runs.StartWait(
        agent_run_id=report.work, attempt=report.attempt, key=report.key, kind="approval", name=report.name,
        fingerprint=report.fingerprint,
    )  # fmt: skip
    demand = Demand(
        requirements=(Requirement(roles=tuple(sorted(set(asked.roles))), approvers=asked.approvers),), four_eyes=asked.four_eyes,
        deadline_s=asked.deadline_s, default=asked.default,
    )  # fmt: skip
    return await workers.waits.ask(caller, wait, asked.title, asked.details, demand)


async def _of_call(workers: Workers, caller: Caller, report: RecordedReport) -> Done:
    match report:
        case Complete():
            complete = invocations.CompleteInvocation(
                invocation_id=report.work, attempt=report.attempt, result=report.result, usage=used(report)
            )
            return done(report, await workers.invocations.complete(caller, complete))
        case Fail():
            fail = invocations.FailInvocation(
                invocation_id=report.work,
                attempt=report.attempt,
                error=report.error,
                effect=report.effect,
                usage=used(report),
            )
            return done(report, await workers.invocations.fail(caller, fail))
        case Reconciled():
            answer = invocations.ReconcileInvocation(
                invocation_id=report.work, attempt=report.attempt, outcome=report.outcome, result=report.result
            )
            return done(report, await workers.invocations.reconcile(caller, answer))
        case _:
            raise InvalidCommand(f"the work is a tool call, which has no {report.t}: it is completed or fails")


def used(report: Complete | Fail) -> Amounts | None:
    return None if report.usage is None else report.usage.amounts()


async def waiters_first() -> None:
    """Lets those go on who wait for what was just appended: the next turn of the loop wakes them, and they run in the one after."""
    for _ in range(2):
        await asyncio.sleep(0)


def step_of(report: Record) -> agent_runs.RecordStep:
    return agent_runs.RecordStep(
        agent_run_id=report.work,
        attempt=report.attempt,
        key=report.key,
        kind=report.kind,
        result=report.result,
        fingerprint=report.fingerprint,
    )


def done(report: RecordedReport, outcome: CommandOutcome, **fields: object) -> Done:
    return Done(report.id, {**fields, "version": outcome.versions[report.work]})


def steps_of(reports: Sequence[AnyReport], hand: Hand | None) -> list[Record]:
    """The reports up to the first that is no finished step of the agent run in the worker's hand."""
    steps: list[Record] = []
    for report in reports:
        if hand is None or hand.kind != "agent" or not isinstance(report, Record) or not hand.fits(report):
            break
        steps.append(report)
    return steps


async def together(journals: Journals, caller: Caller, steps: Sequence[Record]) -> list[tuple[Record, Done | Exception]]:
    """Records steps of one agent run, in one append as far as they fit. Each comes with its answer: an error, if it was refused."""
    try:
        answers = await journals.record_each(caller, steps[0].work, [step_of(step) for step in steps])
    except Exception as error:  # noqa: BLE001  # none was recorded
        return [(step, error) for step in steps]
    return [
        (step, answer if isinstance(answer, Exception) else done(step, answer)) for step, answer in zip(steps, answers, strict=True)
    ]
