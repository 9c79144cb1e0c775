"""What workers ask for, by subject: registering, claims, journals, calls, mail, shared context, outcomes, invocations.

A worker says everything as often as it likes: the id of each command follows from what the worker named (an attempt and a key, a
claim), so a repeat is the same command, through whichever entrance it comes.
"""

from application.engine.commands.loop import CommandLoop
from application.engine.ports.queue import WorkQueue
from application.engine.reading.live import LiveFeed
from application.tool_schemas import ToolSchemas
from application.workers.calls import Calls
from application.workers.claims import Claims
from application.workers.invocations import WorkerInvocations
from application.workers.journal import Journals
from application.workers.mail import Mailboxes
from application.workers.outcomes import Outcomes
from application.workers.registering import Registration
from application.workers.state import SharedContext


class Workers:
    """The use cases of workers. One object serves a process."""

    def __init__(self, commands: CommandLoop, queue: WorkQueue, live: LiveFeed) -> None:
        schemas = ToolSchemas()
        self.registration = Registration(commands, queue, schemas)
        self.journals = Journals(commands, live)
        self.claims = Claims(commands, self.journals)
        self.calls = Calls(commands, schemas)
        self.mail = Mailboxes(commands)
        self.context = SharedContext(commands)
        self.outcomes = Outcomes(commands)
        self.invocations = WorkerInvocations(commands)
