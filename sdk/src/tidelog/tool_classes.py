"""Tools as classes: attributes say what a tool is, `validate` checks what its schema cannot say, and `execute` does it.

class Transfer(BaseTool):
    name, version, idempotent = "bank.transfer", "2", True
    returns = Receipt
    examples = ({"arguments": {"source": "a", "target": "b", "cents": 500}},)

    def validate(self, source: str, target: str, cents: int) -> None:
        if source == target:
            raise ValueError("source and target are the same account")

    async def execute(self, context: ToolContext, source: str, target: str, cents: int) -> Receipt: ...
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from tidelog.errors import DefinitionError
from tidelog.naming import kebab_case
from tidelog.policies import Policy
from tidelog.texts import text_of, type_of
from tidelog.tool_options import ToolOptions
from tidelog.tools import Tool

_TOOL = "_tidelog_tool"


class BaseTool:
    """The base of tools that are classes. A worker makes one object of each class, for all calls; `execute` may run at once in
    several of them. The attributes are the arguments of `@tool`; the default of `name` follows from that of the class.
    """

    name: ClassVar[str | None] = None
    version: ClassVar[str | None] = None
    capabilities: ClassVar[tuple[str, ...]] = ()
    idempotent: ClassVar[bool] = False
    timeout_s: ClassVar[float] = 60
    max_attempts: ClassVar[int] = 3
    returns: ClassVar[Any] = None
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()
    needs_tools: ClassVar[tuple[str, ...]] = ()
    needs_services: ClassVar[tuple[str, ...]] = ()
    untrusted_output: ClassVar[bool] = False
    policy: ClassVar[Policy | None] = None
    compensate: ClassVar[Callable[..., Any] | None] = None

    execute: Callable[..., Any]
    """Does the work. Its type hints become the JSON Schema of the parameters, as those of a function with `@tool`."""

    validate: Callable[..., object] | None = None
    """Gets the arguments as `execute` does, without a context, and raises ValueError for what the schema cannot say."""


_ATTRIBUTES = frozenset(BaseTool.__annotations__)
"""The keywords of `@tool` that a class may say."""

AnyTool = Tool[..., Any] | type[BaseTool]


def tool_of(given: AnyTool) -> Tool[..., Any]:
    """The tool of a class: always the same one. A tool stays what it is.

    Raises:
        DefinitionError: the class has no `execute`, or cannot be made.
    """
    if isinstance(given, Tool):
        return given
    found = given.__dict__.get(_TOOL)
    if isinstance(found, Tool):
        return found
    what = f"tool class {given.__name__}"
    if not callable(getattr(given, "execute", None)):
        raise DefinitionError("no-execute", f"{what} has no method `execute`")
    try:
        made = given()
    except Exception as error:
        raise DefinitionError("invalid-metadata", f"{what} cannot be made: {type_of(error)}: {text_of(error, 500)}") from error
    options = cast(ToolOptions, {name: getattr(given, name) for name in ToolOptions.__annotations__ if name in _ATTRIBUTES})
    name = kebab_case(given.__name__) if given.name is None else given.name
    made_tool: Tool[..., Any] = Tool(made.execute, name=name, check=made.validate, documented=given, **options)
    setattr(given, _TOOL, made_tool)
    return made_tool
