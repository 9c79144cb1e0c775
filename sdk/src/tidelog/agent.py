"""`Agent`: the class that users derive from. Nothing has to be registered; the worker finds agents in its folders."""

import inspect
import typing
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError

from tidelog.calling import is_async
from tidelog.context import Context
from tidelog.errors import DefinitionError, NotJsonError, ValueTooDeepError
from tidelog.naming import AGENT_NAME, check_capabilities, check_json, check_name, check_version, first_paragraph, kebab_case
from tidelog.values import to_json


class Agent:
    """The base of an agent: derive from `Agent` and write `execute`. Each execution makes a new instance, without arguments.

    Results recorded through the context survive a crash; attributes of the instance do not.
    """

    name: ClassVar[str] = ""
    """The name that plans use: `[a-z0-9_-]+`. Default: the class's name in kebab-case."""
    version: ClassVar[str] = "1"
    capabilities: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:  # not inherited: two classes of one name could not be distinguished
            cls.name = kebab_case(cls.__name__)

    async def execute(self, ctx: Context) -> Any:
        """Do the work; the result (JSON data, or a value that pydantic converts to JSON data) is the step's result.

        Raise `PermanentError` or any other exception to fail, `TransientError` to be tried again if the plan allows a retry.
        """
        raise NotImplementedError


class AgentDefinition(BaseModel):
    """The definition of an agent, as the worker registers it with the server."""

    model_config = ConfigDict(frozen=True)
    name: str
    version: str
    description: str
    capabilities: tuple[str, ...]
    output_schema: dict[str, Any] | None = None


def describe_agent(cls: type[Agent]) -> AgentDefinition:
    """The definition of an agent class.

    Raises:
        DefinitionError: the class cannot be used; `kind` and message say why.
    """
    what = f"agent class {cls.__name__}"
    if cls.execute is Agent.execute:
        raise DefinitionError("no-execute", f"{what} has no `async def execute(self, ctx)`")
    _check_signatures(cls, what)
    definition = AgentDefinition(
        name=check_name(cls.name, AGENT_NAME, what),
        version=check_version(cls.version, what),
        description=first_paragraph(cls),
        capabilities=check_capabilities(cls.capabilities, what),
        output_schema=_output_schema(cls),
    )
    check_json(definition, what)
    return definition


def _check_signatures(cls: type[Agent], what: str) -> None:
    if not is_async(cls.execute):
        raise DefinitionError("invalid-signature", f"{what}: execute must be `async def`")
    try:
        inspect.signature(cls.execute).bind(None, None)
    except TypeError as error:
        raise DefinitionError("invalid-signature", f"{what}: execute must take (self, ctx): {error}") from error
    try:
        inspect.signature(cls).bind()
    except (TypeError, ValueError) as error:
        raise DefinitionError("invalid-signature", f"{what} must be constructible without arguments: {error}") from error


def _output_schema(cls: type[Agent]) -> dict[str, Any] | None:
    """JSON Schema of execute's declared result; None if no result is declared, or the server would not accept its schema."""
    try:
        declared = typing.get_type_hints(cls.execute, include_extras=True).get("return", Any)
        if declared is Any or declared is type(None):
            return None
        schema = TypeAdapter(declared).json_schema(mode="serialization")
        to_json(schema, "the schema", None)
        return schema
    except (NameError, TypeError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError):
        return None
    except (ValueTooDeepError, NotJsonError):
        return None
