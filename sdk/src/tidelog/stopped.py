"""How a call of a tool ends that was stopped. The worker raises these errors, and the testing kit raises the same ones."""

from tidelog.errors import CpuLimitError, OutcomeUnknownError, PermanentError, ProcessCrashedError, TransientError


class ToolTimeoutError(TransientError):
    """The tool did not finish within its `timeout_s`."""

    @classmethod
    def after(cls, timeout_s: float) -> "ToolTimeoutError":
        return cls(
            f"no result within {timeout_s} s. The tool was cancelled; a thread, or code that swallows the cancellation, goes on "
            "and keeps its slot of the worker until its end."
        )


class ToolCancelledError(PermanentError):
    """The call was cancelled while the tool ran: its agent run, its run or its time is over."""


class ReconcileTimeoutError(TransientError):
    """The `reconcile` function did not answer within its `reconcile_timeout_s`."""

    @classmethod
    def after(cls, timeout_s: float) -> "ReconcileTimeoutError":
        return cls(f"the reconcile function gave no answer within {timeout_s} s")


IN_THE_MIDDLE = (ToolTimeoutError, ToolCancelledError, OutcomeUnknownError, ProcessCrashedError, CpuLimitError)
"""Errors of a tool that was stopped: it may have had its effect all the same."""
