"""What the expressions of a plan may name."""

BASE = ("input", "metadata", "steps")
"""`input` and `metadata` of the run; `steps`: key → `status`, `result`, and `error` of a failed one."""
OF_EACH = (*BASE, "item", "index")
"""`input_from` of a step with `each`."""
OF_REPEAT = (*BASE, "iteration", "last")
"""`input_from` of a step with `repeat`. `last`: the result of the time before, null the first time."""
OF_UNTIL = (*BASE, "result", "iteration")
"""`until` of `repeat`."""
OF_JUDGES = (*BASE, "result", "step")
"""`good` and `by` of `gather`. `step`: the key of the step whose result it is."""
