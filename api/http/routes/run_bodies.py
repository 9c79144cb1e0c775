"""The body of the request that starts a run: a plan of one of three kinds, or one agent."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_core import PydanticKnownError

from api.http.conventions.bodies import Body
from application import workflows as starts
from application.engine.ports.pages import MAX_POSITION
from application.plans.spelling import name_and_version, of_versions, side_by_side, spelled_plan
from application.runs.terms import NO_TERMS, Terms
from application.wording import told
from domain import plans
from domain import runs as rules
from domain.concurrency import Concurrency
from domain.errors import InvalidCommand
from domain.kernel import NAME_AT_VERSION, Json, Name, Priority
from domain.tool_policy import Expression
from domain.written_budgets import WrittenBudget

LONGEST_NAME, LONGEST_VERSION = 100, 500


def _bounded(text: str) -> str:
    name, version = name_and_version(text)
    for part, most in ((name, LONGEST_NAME), (version or "", LONGEST_VERSION)):
        if len(part) > most:
            raise PydanticKnownError("string_too_long", {"max_length": most})
    return text


AgentName = Annotated[str, StringConstraints(pattern=NAME_AT_VERSION), AfterValidator(_bounded)]
"""`critic`, or `critic@2` for its version 2."""


class SequentialPlan(Body):
    """The agents run one after the other. Each agent finds the results of the agent before it in `ctx.results`."""

    kind: Literal["sequential"]
    agents: tuple[AgentName, ...] = Field(min_length=1, max_length=rules.MAX_STEPS)

    def plan(self) -> rules.Plan:
        return of_versions(self.agents, rules.sequential)


class ParallelPlan(Body):
    """All agents run side by side, then the aggregator runs with all their results. A failed agent is left out and reported.

    `aggregate` puts the results together without an agent.
    """

    kind: Literal["parallel"]
    agents: tuple[AgentName, ...] = Field(min_length=1, max_length=rules.MAX_STEPS - 1)
    aggregator: AgentName | None = None
    aggregate: plans.Gather | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "ParallelPlan":
        if self.aggregator is not None and self.aggregate is not None:
            raise ValueError("give either `aggregator` or `aggregate`")
        return self

    def plan(self) -> rules.Plan:
        return side_by_side(self.agents, self.aggregator, self.aggregate)


class GraphPlan(Body):
    """Any graph of steps without cycles. An agent may be written with its version, as `critic@2`."""

    kind: Literal["graph"]
    steps: tuple[rules.Step, ...] = Field(min_length=1, max_length=rules.MAX_STEPS)
    result: Expression | None = None
    """A CEL expression over `input`, `steps` and `metadata` that gives the result of the run."""

    @field_validator("steps")
    @classmethod
    def _is_a_graph(cls, steps: tuple[rules.Step, ...]) -> tuple[rules.Step, ...]:
        try:
            return rules.Plan(steps=steps).steps
        except ValidationError as error:
            raise ValueError(told(error.errors(include_url=False)[0])) from None

    def plan(self) -> rules.Plan:
        return rules.Plan.model_construct(steps=self.steps, result=self.result)  # validated with the body


class WorkflowToStart(Body):
    """A workflow by its name."""

    name: Name
    version: int | None = Field(default=None, ge=1, le=MAX_POSITION)
    """Null: the current one."""


class StartRunBody(Body):
    SHORT_FORMS = (b"@", b'"run"')
    plan: Annotated[SequentialPlan | ParallelPlan | GraphPlan, Field(discriminator="kind")] | None = None
    agent: AgentName | None = None
    """Shorthand for a plan of one agent."""
    workflow: WorkflowToStart | None = None
    """The plan, priority, compensation and metadata of a workflow, unless the request says others."""
    input: Json = None
    """Of a workflow with parameters: checked against them, with their defaults."""
    project_id: UUID | None = None
    run_id: UUID | None = None
    """An id that the client makes. With this id the request is repeatable without an Idempotency-Key."""
    metadata: dict[str, Json] = {}
    priority: Priority = "normal"
    """The class of the run. Its work waits for workers among the work of its class: `high` goes first, `low` last."""
    compensate: rules.Compensate = "never"
    """When the effects of the run are taken back, by the tools that its tools declare for that."""
    deadline_s: float | None = Field(default=None, gt=0, le=rules.MAX_DEADLINE_S, allow_inf_nan=False)
    """Seconds after which the run fails, if it has not ended, with all that is under way in it. Null: it has no deadline."""

    @classmethod
    def in_full(cls, written: dict[str, Any]) -> dict[str, Any]:
        plan = written.get("plan")
        if not isinstance(plan, dict) or plan.get("kind") != "graph" or (spelled := spelled_plan(plan)) == plan:
            return written
        return {**written, "plan": spelled}

    budget: WrittenBudget | None = None
    """What the run may spend, with its child runs. Null: what the tenant's runs may by default."""

    concurrency: Concurrency | None = None
    """The key that the run shares with others, of which one goes on at a time. Null: that of the workflow, or none."""

    @model_validator(mode="after")
    def _one_plan(self) -> "StartRunBody":
        if sum(given is not None for given in (self.plan, self.agent, self.workflow)) != 1:
            raise ValueError("give exactly one of `plan`, `agent` and `workflow`")
        return self

    @property
    def terms(self) -> Terms:
        return NO_TERMS if self.deadline_s is None and self.concurrency is None else Terms(self.deadline_s, self.concurrency)

    def asked(self) -> starts.AskedWorkflow:
        """What is said of a workflow. A priority that is not given is that of the workflow; so the rest."""
        assert self.workflow is not None
        return starts.AskedWorkflow(
            name=self.workflow.name, version=self.workflow.version, input=self.input,
            priority=self.priority if "priority" in self.model_fields_set else None,
            compensate=self.compensate if "compensate" in self.model_fields_set else None,
            metadata=self.metadata,
        )  # fmt: skip

    def to_plan(self) -> rules.Plan:
        """The plan.

        Raises InvalidCommand: the steps' keys, made of agents' names, may be too long if the plan names an agent twice.
        """
        try:
            return self.plan.plan() if self.plan is not None else of_versions((self.agent or "",), rules.sequential)
        except ValidationError as error:
            why = told(error.errors(include_url=False)[0])
            raise InvalidCommand(f"the key of a step, made of its agent's name: {why}", pointer="/plan/agents") from None

    @property
    def has_rich_plan(self) -> bool:
        """Whether the plan has more in it than agents, their order and their inputs, so that more can be wrong with it."""
        match self.plan:
            case GraphPlan():
                return self.plan.result is not None or not all(step.is_plain for step in self.plan.steps)
            case ParallelPlan():
                return self.plan.aggregate is not None
        return False

    def place_of(self, step: int, place: str = "/agent") -> str:
        """JSON Pointer to an agent of a step in this body. `place`: where it stands in the step."""
        match self.plan:
            case None:
                return "/agent" if self.workflow is None else "/workflow"
            case ParallelPlan() if step == len(self.plan.agents):
                return "/plan/aggregator"
            case SequentialPlan() | ParallelPlan():
                return f"/plan/agents/{step}"
            case _:
                return f"/plan/steps/{step}{place}"
