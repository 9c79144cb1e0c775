"""Use cases of workers, by subject: registration, claims, journals, calls, mail, shared context, outcomes, invocations, sessions.

A worker may repeat every request. The id of each command is derived from names that the worker gives (an attempt and a key, or a
claim). So a repeat is the same command, through every entrance.
"""

from application.approvals.links import ApprovalLinks
from application.approvals.notices import Notices
from application.budgets.calls import BudgetedCalls
from application.cached_results import CachedCalls, CachedResults
from application.calls import ClientCalls
from application.chains import Chains
from application.engine.commands.loop import CommandLoop
from application.engine.ports.expressions import Expressions
from application.engine.ports.problems import WorkerProblems
from application.engine.ports.queue import WorkQueue
from application.engine.ports.sessions import WorkerSessions
from application.suggestions import KnownNames
from application.tool_results import ToolResults
from application.tool_schemas import ToolSchemas
from application.tools import Declarations
from application.workers.calls import Calls
from application.workers.children import ChildRuns
from application.workers.claims import Claims
from application.workers.earlier import EarlierAttempts
from application.workers.invocations import WorkerInvocations
from application.workers.journal import Journals
from application.workers.mail import Mailboxes
from application.workers.outcomes import Outcomes
from application.workers.progress import ProgressNotes
from application.workers.registering import Registration
from application.workers.scheduling import AgentSchedules
from application.workers.sessions import SessionWork
from application.workers.state import SharedContext
from application.workers.tokens import LeaseTokens
from application.workers.waits import AgentWaits


class Workers:
    """All use cases of workers. One object serves a process."""

    def __init__(
        self,
        commands: CommandLoop,
        queue: WorkQueue,
        problems: WorkerProblems,
        tools: KnownNames,
        sessions: WorkerSessions,
        tokens: LeaseTokens,
        expressions: Expressions,
        cached: CachedCalls,
        agent_schedules: AgentSchedules,
        children: ChildRuns | None = None,
        public_url: str | None = None,
    ) -> None:
        """`tools`: the names of the registered tools, for the refusal of a misspelt one. Without `expressions` no chain of tools
        can be declared. `cached`: calls whose results may answer others. `children`: starts the runs of agents.
        `public_url`: under which people reach this server."""
        schemas, cache = ToolSchemas(), CachedResults(commands, cached)
        self.schemas, self.expressions = schemas, expressions
        self.results = ToolResults(commands, schemas)
        self.declarations = Declarations(schemas, expressions)
        self.chains = Chains(commands, expressions, tools)
        self.registration = Registration(commands, queue, self.declarations, problems)
        self.journals = Journals(commands)
        self.claims = Claims(commands, self.journals)
        self.budgets = BudgetedCalls(commands)
        self.calls = Calls(commands, schemas, tools, self.chains, cache, self.budgets)
        self.client_calls = ClientCalls(commands, schemas, tools, self.chains, cache, self.budgets)
        self.mail = Mailboxes(commands)
        self.waits = AgentWaits(commands, self.chains.needs)
        self.progress = ProgressNotes(commands)
        self.children = children
        self.context = SharedContext(commands)
        self.outcomes = Outcomes(commands)
        self.invocations = WorkerInvocations(commands, self.results, self.budgets.books)
        self.earlier = EarlierAttempts(commands)
        self.agent_schedules = agent_schedules
        self.links = ApprovalLinks(tokens, public_url)
        self.sessions = SessionWork(commands, self.claims, self.invocations, sessions, tokens, Notices(commands, self.links))
