"""Workflows: what a start by name gives, what is wrong with a definition, and what changes them.

- `start`: name, version and input → the plan, the checked input and the rest of a run's start. Whoever starts a workflow calls it.
- `children`: the steps of a plan that start workflows of their own get the plans of these.
- `versions`: the definitions of versions, kept.
- `looking`: a workflow as the log has it.
- `checking`: all that is wrong with a definition.
- `lookup`: workflows as those who check plans see them.
- `changes`: drafts, new versions, going back to an older one.
- `differences`: what differs between two definitions.
- `written`, `yaml_text`: workflows as people write them.
"""

from application.workflows.changes import WorkflowChanges
from application.workflows.lookup import WorkflowsOfPlans
from application.workflows.start import AskedWorkflow, StartOfWorkflow, Workflows

__all__ = ["AskedWorkflow", "StartOfWorkflow", "WorkflowChanges", "Workflows", "WorkflowsOfPlans"]
