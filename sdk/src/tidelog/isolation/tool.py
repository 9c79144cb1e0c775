"""A tool whose calls run in processes of their own. To the worker it is an async tool: it can be cancelled."""

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from tidelog.discovery import Problem
from tidelog.errors import DefinitionError
from tidelog.isolation.declared import Isolation, lacking
from tidelog.isolation.kernel import Kernel, kernel_here
from tidelog.isolation.pool import Order, Template
from tidelog.logs import log
from tidelog.tools import Tool, ToolContext, ToolDefinition
from tidelog.work_log import WORK_LOG, WorkLog

logger = logging.getLogger(__name__)


class Isolating:
    """Makes tools isolated, and has their templates: one for the tools of a module that may see the same."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        """`kernel`: None: what works here."""
        self._kernel = kernel
        self._templates: dict[tuple[str, bool, tuple[str, ...]], Template] = {}
        self.problems: list[Problem] = []
        """What tools asked for and do not get here."""

    def isolated(self, tool: Tool[..., Any]) -> "Tool[..., Any]":
        """The tool itself, if it asks for nothing. Raises DefinitionError for one that no other process could find."""
        asked = tool.isolated
        if asked is None:
            return tool
        kernel = self._kernel or kernel_here()
        if lacks := lacking(asked, kernel):
            log(logger, logging.WARNING, "isolation_incomplete", tool=tool.name, lacks=lacks)
            self.problems.append(Problem(Path(f"tool {tool.name}"), "isolation-incomplete", f"tool {tool.name!r}: {lacks}"))
        qualname = str(tool.function.__qualname__)
        if tool.__module__ == "__main__" or "<" in qualname:
            raise DefinitionError(
                "invalid-metadata", f"tool {tool.name!r}: an isolated tool stands at the top of a module that can be imported"
            )
        key = (tool.__module__, asked.network, asked.environment)
        if key not in self._templates:
            self._templates[key] = Template(tool.__module__, qualname, asked, kernel)
        return IsolatedTool(tool, asked, qualname, self._templates[key])

    def close(self) -> None:
        for template in self._templates.values():
            template.close()


class IsolatedTool(Tool[..., Any]):
    """Stands for another tool. The arguments are validated where the tool runs: validators, too, are code of users."""

    def __init__(self, tool: Tool[..., Any], asked: Isolation, qualname: str, template: Template) -> None:
        super().__init__(self._call, name=tool.name)
        vars(self).update({**vars(tool), "function": self._call})  # whatever a declaration has
        self._tool = tool
        self._asked = asked
        self._qualname = qualname
        self.template = template

    def describe(self) -> ToolDefinition:
        return self._tool.describe()

    async def invoke(self, arguments: Mapping[str, Any], context: ToolContext) -> JsonValue:
        return await self._call(arguments, context)

    async def _call(self, arguments: Mapping[str, Any], context: ToolContext) -> JsonValue:
        work_log = WORK_LOG.get() or WorkLog(lambda _: None)
        request = {
            "arguments": dict(arguments),
            "workspace": str(context.workspace),
            "idempotency_key": context.idempotency_key,
            "attempt": context.attempt,
            "on_behalf_of": context.on_behalf_of,
        }
        return await self.template.call(
            Order(
                self._qualname,
                self._asked,
                self.timeout_s,
                request,
                output=lambda text: work_log.printed(f"{text}\n"),
                errors=lambda text: work_log.put(logging.WARNING, text) if text else None,
                line=lambda text: _pass_on(work_log, text),
                used=lambda text: _count(context, text),
            )
        )


def _count(context: ToolContext, text: bytes) -> None:
    """What the tool says to have used, at once: it counts, too, if the process dies. What is no usage is dropped."""
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        said = json.loads(text)
        tokens = said.get("tokens")
        context.usage(money=said.get("money"), tokens=None if tokens is None else int(tokens))


def _pass_on(work_log: WorkLog, text: bytes) -> None:
    """A line that the tool logged. The process is not believed: what is no line is dropped."""
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        line = json.loads(text)
        work_log.put(logging.getLevelNamesMapping()[str(line["level"]).upper()], str(line["text"]))
