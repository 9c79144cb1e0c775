"""Forks of runs: a new run that begins with what another run was at a point.

- `cut`: what of the events of a run counts at the point: the steps that had ended, and those that were under way.
- `journals`: what the agents of the steps under way had finished, their mail, and the shared context.
- `fork`: the use case.
"""
