"""The steps of a plan: what each of them does, when, with which input, and what follows from its failure."""

from typing import Literal

from pydantic import Field, model_validator

from domain.failures import Retry
from domain.kernel import Json, Name, Priority, ShortText, Value, is_empty
from domain.tool_policy import ArgumentName, Expression

MOST_ITEMS = 1_000
"""Items of one `each`."""
MOST_TIMES = 1_000
"""Times of one `repeat`."""
MOST_FALLBACKS = 5
MOST_MAPPED = 50
"""Names of one `input_from`."""
MOST_ALLOWED = 50
"""Agents that an adaptive step may name."""
MAX_DEPTH = 8
"""Runs in runs: a run that nobody's step started has the depth 0."""
LONGEST_WAIT_S = 366 * 86_400.0


class AgentRef(Value):
    """An agent by name, and the version that is asked for. None: the one that is registered when the run starts."""

    agent: Name
    agent_version: ShortText | None = None


class Each(Value):
    """A map: the step's agent, or its child run, once for each item of a list."""

    over: Expression
    """A CEL expression: a list of at most `MOST_ITEMS` items."""
    max_parallel: int = Field(default=10, ge=1, le=MOST_ITEMS)
    """Items under way at once."""
    on_failure: Literal["fail", "continue"] = "fail"
    """What the failure of an item does. `continue`: its result is null."""


class Repeat(Value):
    """A loop: the step's agent, or its child run, again and again, one after the other."""

    times: int = Field(ge=1, le=MOST_TIMES)
    """At most so often."""
    until: Expression | None = None
    """A CEL expression over `result` and `iteration` (1, 2, 3 …): true ends the loop. None: `times` times."""
    exhausted: Literal["complete", "fail"] = "complete"
    """What becomes of a loop that `until` has not ended."""


class Adaptive(Value):
    """The step's agent names the next steps, sees their results, and names further ones or ends."""

    agents: tuple[AgentRef, ...] = Field(min_length=1, max_length=MOST_ALLOWED)
    """The agents that it may name."""
    max_steps: int = Field(default=20, ge=1, le=200)
    """Steps that it may name, of all rounds together."""
    max_rounds: int = Field(default=10, ge=1, le=100)


class Gather(Value):
    """Aggregates the results of the steps before it, without an agent."""

    mode: Literal["all", "any", "first_good", "vote"]
    count: int = Field(default=1, ge=1)
    """`any`: so many completed steps are enough."""
    good: Expression | None = None
    """`first_good`: a CEL expression over `result` and `step` (the key) that says whether a result is good."""
    by: Expression | None = None
    """`vote`: a CEL expression over `result` and `step` that gives the vote. None: the result itself."""
    rest: Literal["cancel", "wait"] = "cancel"
    """What becomes of the steps that are not needed any more."""

    @model_validator(mode="after")
    def _fits_its_mode(self) -> "Gather":
        if (self.good is not None) != (self.mode == "first_good"):
            raise ValueError("`good` is for the mode `first_good`, which needs it")
        if self.by is not None and self.mode != "vote":
            raise ValueError("`by` is for the mode `vote`")
        if self.count != 1 and self.mode != "any":
            raise ValueError("`count` is for the mode `any`")
        return self


class Wait(Value):
    """Waits for a clock."""

    s: float | None = Field(default=None, gt=0, le=LONGEST_WAIT_S)
    """Seconds."""
    until: Expression | None = None
    """A CEL expression that gives an RFC 3339 time with its zone. A time that is over waits for nothing."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "Wait":
        if (self.s is None) == (self.until is None):
            raise ValueError("give either `s` or `until`")
        return self


class ChildRun(Value):
    """A run that a step starts and waits for. It is cancelled with its parent."""

    versions_asked: tuple[str, ...] = Field(default=(), exclude_if=is_empty)
    """The start of the run notes here which versions of the plan were asked for, as `run.started` does for the run's own plan."""
    plan: Json = None
    """A plan, as `Plan` has it."""
    workflow: Name | None = None
    """A workflow. The start of the run notes its version, and puts its plan into `plan`."""
    defaults: dict[str, Json] = Field(default={}, exclude_if=is_empty)
    """Of the fields of its input, by the parameters of the workflow. The start of the run notes them."""
    version: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _says_what(self) -> "ChildRun":
        if self.plan is None and self.workflow is None:
            raise ValueError("give either `plan` or `workflow`")
        if self.version is not None and self.workflow is None:
            raise ValueError("`version` is that of a `workflow`")
        return self


class Step(Value):
    """A node of the plan. What it does is said by exactly one of `agent`, `capability`, `run`, `gather`, `value` and `wait`."""

    key: Name
    agent: Name | None = Field(default=None, exclude_if=is_empty)
    agent_version: ShortText | None = None
    """None in a request: not asked for. The start of the run notes the registered version."""
    capability: Name | None = Field(default=None, exclude_if=is_empty)
    """An agent that announces it. The start of the run looks for one, and notes it as `agent`."""
    run: ChildRun | None = Field(default=None, exclude_if=is_empty)
    gather: Gather | None = Field(default=None, exclude_if=is_empty)
    value: Expression | None = Field(default=None, exclude_if=is_empty)
    """A CEL expression whose value is the result. No agent is needed."""
    wait: Wait | None = Field(default=None, exclude_if=is_empty)
    after: tuple[Name, ...] = ()
    when: Expression | None = Field(default=None, exclude_if=is_empty)
    """A CEL expression that is true or false once the steps before have ended, however they ended. False: the step is skipped."""
    input: Json = None
    """Given to this step's agent instead of the run's input."""
    input_from: Expression | dict[ArgumentName, Expression] | None = Field(default=None, exclude_if=is_empty)
    """The input as a CEL expression, or by name."""
    each: Each | None = Field(default=None, exclude_if=is_empty)
    repeat: Repeat | None = Field(default=None, exclude_if=is_empty)
    adaptive: Adaptive | None = Field(default=None, exclude_if=is_empty)
    timeout_s: float | None = Field(default=None, gt=0, le=30 * 86_400)
    retry: Retry = Retry()
    priority: Priority | None = Field(default=None, exclude_if=is_empty)
    """None: the priority of the run."""
    fallbacks: tuple[AgentRef, ...] = Field(default=(), max_length=MOST_FALLBACKS, exclude_if=is_empty)
    """Agents that are tried in this order where the agent has failed."""
    on_failure: Literal["fail", "continue", "compensate"] = "fail"
    """`continue`: the run goes on without this step and ends `degraded`. `compensate`: the run fails and takes its effects back."""

    @model_validator(mode="after")
    def _does_one_thing(self) -> "Step":
        if self.is_plain:  # most steps
            return self
        does = [name for name in DOES if getattr(self, name) is not None]
        if does not in (["agent"], ["capability"], ["run"], ["gather"], ["value"], ["wait"], ["agent", "capability"]):
            raise ValueError(f"give exactly one of {', '.join(f'`{name}`' for name in DOES)}")
        works = "agent" in does or "capability" in does or "run" in does
        forms = [name for name in FORMS if getattr(self, name) is not None]
        if len(forms) > 1:
            raise ValueError(f"give at most one of {', '.join(f'`{name}`' for name in FORMS)}")
        if forms and not works:
            raise ValueError(f"`{forms[0]}` is for a step with an agent, a capability or a run")
        if self.adaptive is not None and self.run is not None:
            raise ValueError("`adaptive` is for a step with an agent or a capability")
        if self.input is not None and self.input_from is not None:
            raise ValueError("give either `input` or `input_from`")
        if self.input_from is not None and not works:
            raise ValueError("`input_from` is for a step with an agent, a capability or a run")
        if self.input is not None and self.each is not None:
            raise ValueError("`input` is not for a step with `each`: the item is the input, or what `input_from` makes of it")
        if self.fallbacks and ("run" in does or not works):
            raise ValueError("`fallbacks` are for a step with an agent or a capability")
        if self.gather is not None:
            self._gathers(self.gather)
        return self

    def _gathers(self, gather: Gather) -> None:
        members = len(set(self.after))
        if not members:
            raise ValueError("`gather` needs steps before it: name them in `after`")
        if gather.count > members:
            raise ValueError(f"`count` is {gather.count}, and only {members} steps come before")
        if self.when is not None:
            raise ValueError("`when` is not for a step with `gather`, which looks on while the steps before it run")

    @property
    def has_parts(self) -> bool:
        """Whether the step is several executions, with the keys `<key>.0`, `<key>.1` …"""
        return self.each is not None or self.repeat is not None or self.adaptive is not None or self.run is not None

    @property
    def has_body(self) -> bool:
        return self.run is not None and self.run.plan is not None

    @property
    def is_plain(self) -> bool:
        """Whether a release that knows only agents, their order and their inputs knows all of the step."""
        return (
            self.agent is not None and self.capability is None and self.run is None and self.gather is None
            and self.value is None and self.wait is None and self.when is None and self.input_from is None
            and self.each is None and self.repeat is None and self.adaptive is None and self.priority is None
            and not self.fallbacks and self.on_failure != "compensate"
        )  # fmt: skip


DOES = ("agent", "capability", "run", "gather", "value", "wait")
"""What a step does. A step with a capability has an agent, too, once the run has started."""
FORMS = ("each", "repeat", "adaptive")


class StepV3(Value):
    """A step in version 3 of `run.started`, and before."""

    key: Name
    agent: Name
    agent_version: ShortText | None = None
    after: tuple[Name, ...] = ()
    input: Json = None
    timeout_s: float | None = Field(default=None, gt=0, le=30 * 86_400)
    retry: Retry = Retry()
    on_failure: Literal["fail", "continue"] = "fail"
