"""Plans as people write them: all that is wrong at once, and agents by what they announce.

- `check`: all faults of a plan or a workflow, with cures.
- `reading`, `cures`: forms. `expressions`, `inputs`, `schemas`: what goes from step to step. `registry`: what a plan names.
- `spelling`: what short forms stand for.
- `capabilities`: an agent for each capability, at the start of a run.
"""
