"""Tidelog SDK: write agents and tools, and talk to a Tidelog server."""

from tidelog.agent import Agent
from tidelog.client import Client
from tidelog.context import Context, Message
from tidelog.errors import (
    HistoryReplaced,
    PermanentError,
    TidelogAPIError,
    TidelogConnectionError,
    TidelogError,
    ToolError,
    TransientError,
)
from tidelog.tools import Tool, ToolContext, tool

__all__ = [
    "Agent",
    "Client",
    "Context",
    "HistoryReplaced",
    "Message",
    "PermanentError",
    "TidelogAPIError",
    "TidelogConnectionError",
    "TidelogError",
    "Tool",
    "ToolContext",
    "ToolError",
    "TransientError",
    "tool",
]
