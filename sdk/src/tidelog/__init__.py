"""Tidelog SDK: write agents and tools, and talk to a Tidelog server.

Every name below is imported at its first use. So the server can import `tidelog.log_lines` without the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidelog.agent import Agent
    from tidelog.blobs import Blob
    from tidelog.client import Client
    from tidelog.context import Answer, Context, Message
    from tidelog.errors import (
        BlobError,
        BudgetExceededError,
        HistoryReplaced,
        InvalidError,
        PermanentError,
        RecipientOverError,
        ServiceRateLimitedError,
        TidelogAPIError,
        TidelogConnectionError,
        TidelogError,
        ToolError,
        TransientError,
    )
    from tidelog.policies import Breaker, Compensation, Cost, Policy, Rate
    from tidelog.reconciling import Reconciled
    from tidelog.tool_classes import BaseTool
    from tidelog.tools import InvalidResultError, Tool, ToolContext, tool

__all__ = [
    "Agent",
    "Answer",
    "BaseTool",
    "Blob",
    "BlobError",
    "Breaker",
    "BudgetExceededError",
    "Client",
    "Compensation",
    "Context",
    "Cost",
    "HistoryReplaced",
    "InvalidError",
    "InvalidResultError",
    "Message",
    "PermanentError",
    "Policy",
    "Rate",
    "RecipientOverError",
    "Reconciled",
    "ServiceRateLimitedError",
    "TidelogAPIError",
    "TidelogConnectionError",
    "TidelogError",
    "Tool",
    "ToolContext",
    "ToolError",
    "TransientError",
    "tool",
]

_NAMES = {
    "agent": ("Agent",),
    "blobs": ("Blob",),
    "client": ("Client",),
    "context": ("Answer", "Context", "Message"),
    "errors": (
        "BlobError",
        "BudgetExceededError",
        "HistoryReplaced",
        "InvalidError",
        "PermanentError",
        "RecipientOverError",
        "ServiceRateLimitedError",
        "TidelogAPIError",
        "TidelogConnectionError",
        "TidelogError",
        "ToolError",
        "TransientError",
    ),
    "policies": ("Breaker", "Compensation", "Cost", "Policy", "Rate"),
    "reconciling": ("Reconciled",),
    "tool_classes": ("BaseTool",),
    "tools": ("InvalidResultError", "Tool", "ToolContext", "tool"),
}
"""Module → the names that this package takes from the module."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = {*_NAMES, "calling", "journal", "models", "naming", "plans", "sse", "transport", "values"}
"""Modules that `import tidelog` alone makes usable, as in `tidelog.errors.NotFoundError`."""

if not TYPE_CHECKING:  # a type checker that saw this function would accept every name

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
