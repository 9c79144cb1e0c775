"""Chains of tools: a step becomes a call, the outcome of the call goes to its chain, the end of a chain to its own call."""

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import chains, invocations
from domain.chains import CancelChain, FinishChainStep, ReleaseChain, StartChain, chain_id_of
from domain.failures import Failure, Retry
from domain.invocations import CancelInvocation, EndInvocation, RequestInvocation


def on_step_requested(event: chains.ChainStepRequested, cause: ReactionCause) -> list[Reaction]:
    chain_id = None if event.chain is None else chain_id_of(event.invocation_id)
    requested = RequestInvocation(
        invocation_id=event.invocation_id,
        run_id=event.run_id,
        agent_run_id=cause.stream_id,
        key=event.step,
        tool=event.tool,
        tool_version=event.tool_version,
        arguments=event.arguments,
        idempotent=event.idempotent,
        timeout_s=event.timeout_s,
        retry=Retry(max_attempts=event.max_attempts),
        priority=event.priority,
        on_behalf_of=event.on_behalf_of,
        reconcile_timeout_s=event.reconcile_timeout_s,
        asked_by="chain",
        **{"chain_id": chain_id, **(event.options or {})},
    )
    if chain_id is None:
        return [requested]
    begun = StartChain(
        chain_id=chain_id,
        run_id=event.run_id,
        invocation_id=event.invocation_id,
        tool=event.tool,
        tool_version=event.tool_version,
        arguments=event.arguments,
        priority=event.priority,
        on_behalf_of=event.on_behalf_of,
        plan=event.chain["plan"],
        kept=event.chain["kept"],
        tools=event.chain["tools"],
        held=requested.approval is not None,
    )
    return [requested, begun]


def on_invocation_succeeded(event: invocations.InvocationSucceeded, cause: ReactionCause) -> list[Reaction]:
    if event.asked_by != "chain":
        return []
    return [FinishChainStep(chain_id=event.agent_run_id, invocation_id=cause.stream_id, result=event.result)]


def on_invocation_failed(event: invocations.InvocationFailed, cause: ReactionCause) -> list[Reaction]:
    if event.asked_by != "chain":
        return []
    return [FinishChainStep(chain_id=event.agent_run_id, invocation_id=cause.stream_id, error=event.error)]


def on_invocation_resolved(event: invocations.InvocationResolved, cause: ReactionCause) -> list[Reaction]:
    if event.asked_by != "chain":
        return []
    chain_id, invocation_id = event.agent_run_id, cause.stream_id
    return [FinishChainStep(chain_id=chain_id, invocation_id=invocation_id, result=event.result, error=event.error)]


def on_invocation_cancelled(event: invocations.InvocationCancelled, cause: ReactionCause) -> list[Reaction]:
    reactions: list[Reaction] = []
    if event.chain_id is not None:
        reactions.append(CancelChain(chain_id=event.chain_id, reason=event.reason))
    if event.asked_by == "chain" and event.agent_run_id is not None:
        why = f"it was cancelled{f': {event.reason}' if event.reason else ''}"
        error = Failure(type="Cancelled", message=why)
        reactions.append(FinishChainStep(chain_id=event.agent_run_id, invocation_id=cause.stream_id, error=error))
    return reactions


def on_invocation_released(event: invocations.InvocationReleased, cause: ReactionCause) -> list[Reaction]:
    return [] if event.chain_id is None else [ReleaseChain(chain_id=event.chain_id, arguments=event.arguments)]


def on_chain_completed(event: chains.ChainCompleted, cause: ReactionCause) -> list[Reaction]:
    return [EndInvocation(invocation_id=event.invocation_id, result=event.result)]


def on_chain_failed(event: chains.ChainFailed, cause: ReactionCause) -> list[Reaction]:
    return [EndInvocation(invocation_id=event.invocation_id, error=event.error)]


def on_chain_cancelled(event: chains.ChainCancelled, cause: ReactionCause) -> list[Reaction]:
    return [CancelInvocation(invocation_id=i, reason="the chain was cancelled") for i in event.abandoned]


REACTIONS: Reactions = {
    chains.ChainStepRequested: on_step_requested,
    invocations.InvocationSucceeded: on_invocation_succeeded,
    invocations.InvocationFailed: on_invocation_failed,
    invocations.InvocationResolved: on_invocation_resolved,
    invocations.InvocationCancelled: on_invocation_cancelled,
    invocations.InvocationReleased: on_invocation_released,
    chains.ChainCompleted: on_chain_completed,
    chains.ChainFailed: on_chain_failed,
    chains.ChainCancelled: on_chain_cancelled,
}
