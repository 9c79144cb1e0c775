"""Steps that gather the results of the steps before them. Each outcome is looked at once, when it comes."""

from domain.failures import Failure
from domain.kernel import Json
from domain.plans import Gather, Step
from domain.runs.deciding import Decision, PlanFault, bounded
from domain.runs.mapping import end_without
from domain.runs.progress import Tally

NOTHING_SEEN = Tally()


def gathered(d: Decision, step: Step, gather: Gather) -> None:
    """Ends the step if it is decided: by what it has seen, or because too little can still come."""
    unjudged = d.faults.pop(step.key, None)
    if unjudged is not None:
        d.fail(step, unjudged.failure)
        return
    tally, open_ = d.run.tallies.get(step.key, NOTHING_SEEN), d.run.waiting.get(step.key, 0)
    try:
        if _is_decided(gather, tally, open_):
            d.complete(step, bounded(_result(d, step, gather, tally), "the gathered result"))
        elif not open_ and not tally.completed:
            end_without(d, step)
        elif (message := _out_of_reach(step, gather, tally, open_)) is not None:
            d.fail(step, Failure(type="UpstreamFailed", message=message, kind="upstream"))
        else:
            return
    except PlanFault as fault:
        d.fail(step, fault.failure)
    if gather.rest == "cancel" and open_ and d.failed is None:
        for key in dict.fromkeys(step.after):
            if d.run.steps[key].status in ("pending", "scheduled"):
                d.skip(key, reason="not_needed", by=step.key)


def _is_decided(gather: Gather, tally: Tally, open_: int) -> bool:
    match gather.mode:
        case "all":
            return not open_ and tally.completed > 0
        case "any":
            return len(tally.first) == gather.count
        case "first_good":
            return bool(tally.first)
        case "vote":
            if tally.leader is None:
                return False
            return not open_ or tally.votes[tally.leader].number > tally.second + open_


def _result(d: Decision, step: Step, gather: Gather, tally: Tally) -> Json:
    states = d.run.steps
    match gather.mode:
        case "all":
            return {key: states[key].result for key in step.after if states[key].status == "completed"}
        case "any":
            first = frozenset(tally.first)
            return {key: states[key].result for key in step.after if key in first}
        case "first_good":
            return states[tally.first[0]].result
        case "vote":
            assert tally.leader is not None
            return states[tally.votes[tally.leader].step].result


def _out_of_reach(step: Step, gather: Gather, tally: Tally, open_: int) -> str | None:
    """Why the step can no longer get what it needs. None: it can."""
    members = len(set(step.after))
    if gather.mode == "any" and tally.completed + open_ < gather.count:
        return f"{tally.completed} of {members} steps completed and {open_} can still do so, but {gather.count} are needed"
    if gather.mode == "first_good" and not open_:
        return f"none of the results is good: {tally.completed} of {members} steps completed"
    return None
