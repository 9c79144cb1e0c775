"""`@tool`: a Python function as a tool. Its type hints become the JSON Schema that models and people see."""

import inspect
import threading
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError

from tidelog.blobs import IN_MEMORY, ToolBlobs
from tidelog.calling import call
from tidelog.errors import DefinitionError, PermanentError, ValueTooDeepError
from tidelog.isolation.declared import Isolation, isolation_of
from tidelog.naming import TOOL_NAME, check_capabilities, check_json, check_name, check_version, first_paragraph
from tidelog.policies import Compensation, Policy
from tidelog.reconciling import Reconciled, read_reconcile
from tidelog.texts import text_of
from tidelog.tool_options import Keywords, ToolOptions
from tidelog.used import Used
from tidelog.values import check_depth, encode, to_json
from tidelog.work_log import Log

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The context of a call, for tools whose first parameter has this type.

    `workspace`: the folder in which the tool is meant to work. `idempotency_key`: the same for every attempt of one call; pass it
    on to services that accept such a key. `attempt`: 1 for the first. `log`: writes lines for people, as `ctx.log` of agents does.
    `on_behalf_of`: for whom the run was started, as `ctx.on_behalf_of` of agents. `blob`: puts and reads contents that are too
    large for arguments and results.
    """

    workspace: Path
    idempotency_key: str
    attempt: int
    log: Log = field(default_factory=Log, repr=False, compare=False)
    _told: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    on_behalf_of: str | None = None
    blob: ToolBlobs = field(default_factory=lambda: ToolBlobs(IN_MEMORY), repr=False, compare=False)
    _used: Used = field(default_factory=Used, repr=False, compare=False)

    def usage(self, *, money: Decimal | float | str | None = None, tokens: int | None = None) -> None:
        """Says what this attempt has used, in place of what the tool's `max_cost` says. Several times: the sum counts.

        `money`: in the tenant's unit; what is beyond six places is rounded up. Raises ValueError.
        """
        self._used.add(money, tokens)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more: the run was cancelled, or the time is over. A sync tool that works for long
        looks here from time to time, and ends: Python cannot stop its thread. An async tool is cancelled instead."""
        return self._told.is_set()


class Example(BaseModel):
    """What a call may look like. A `result` that is not given says nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    arguments: dict[str, Any]
    result: Any = None
    description: str = ""

    def said(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True)


class ToolDefinition(BaseModel):
    """The definition of a tool, as the worker registers it.

    `parameters` and `result` are JSON Schemas (`result` None: any result), `timeout_s` the limit of one attempt in seconds.
    `pinned`: the author named the version, so another declaration of the version is refused.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    version: str
    description: str
    capabilities: tuple[str, ...]
    parameters: dict[str, Any]
    idempotent: bool
    timeout_s: float
    max_attempts: int
    reconcile_timeout_s: float | None = None
    result: dict[str, Any] | None = None
    examples: tuple[dict[str, Any], ...] = ()
    needs_tools: tuple[str, ...] = ()
    needs_services: tuple[str, ...] = ()
    untrusted_output: bool = False
    pinned: bool = False
    policy: dict[str, Any] | None = None

    def said(self) -> dict[str, Any]:
        """As it goes over the wire: what says no more than a server of before knows is left out."""
        return {name: value for name, value in self.model_dump().items() if name not in _LATER or value != _LATER[name]}


_LATER = {name: field.default for name, field in ToolDefinition.model_fields.items() if not field.is_required()}


class InvalidArgumentsError(Exception):
    """The arguments break the tool's schema. The message names each faulty argument, without its value."""


class InvalidResultError(PermanentError):
    """The result breaks what the tool declares. The message names each faulty place, without its value.

    The call has failed for good: what the tool did has been done, and would be done again by another attempt.
    """


@dataclass(frozen=True)
class _Parameters:
    """Validates arguments and passes them on.

    Parameter names are aliases in `model`, so that no name can clash with the model's.
    """

    model: type[BaseModel]
    names: Mapping[str, str]
    takes_context: bool


class Tool(Generic[P, R]):
    """A function and its declaration. A call of the tool object calls the function, as if it were not decorated."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str,
        check: Callable[..., object] | None = None,
        documented: Any = None,
        limits: Mapping[str, Any] | None = None,
        **options: Unpack[ToolOptions],
    ) -> None:
        """`check` gets the arguments as the function does, and raises ValueError for what the schema cannot say. `documented`: the
        object whose docstring describes the tool; default: the function. `options`: as of `@tool`, whose defaults stand here."""
        self.function = function
        self.name = name
        version = options.get("version")
        self.version = "1" if version is None else version
        self.pinned = version is not None
        self.capabilities = options.get("capabilities", ())
        self.idempotent = options.get("idempotent", False)
        self.timeout_s = options.get("timeout_s", 60)
        self.max_attempts = options.get("max_attempts", 3)
        self.reconcile = options.get("reconcile")
        self.reconcile_timeout_s = options.get("reconcile_timeout_s", 30)
        self.returns: Any = options.get("returns")
        self.examples = options.get("examples", ())
        self.needs_tools = options.get("needs_tools", ())
        self.needs_services = options.get("needs_services", ())
        self.untrusted_output = options.get("untrusted_output", False)
        self.policy = options.get("policy")
        self.compensate = options.get("compensate")
        self._undo: Tool[..., Any] | None = None
        self._check = check
        self._isolation = (options.get("isolation"), limits or {})
        self._documented = function if documented is None else documented
        self.__doc__ = self._documented.__doc__
        self.__module__ = self._documented.__module__
        self._parameters: _Parameters | None = None
        self._returned: TypeAdapter[Any] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    @property
    def isolated(self) -> Isolation | None:
        """The bounds of the process of its own that a call gets; None: it runs in the worker. Raises DefinitionError."""
        return isolation_of(*self._isolation, f"tool function {getattr(self.function, '__name__', self.function)}")

    @property
    def takes_context(self) -> bool:
        return self._read_signature().takes_context

    def describe(self) -> ToolDefinition:
        """The tool's definition.

        Raises:
            DefinitionError: the tool cannot be used; `kind` and message say why.
        """
        what = f"tool function {getattr(self.function, '__name__', self.function)}"
        if not isinstance(self.timeout_s, int | float) or not 0 < self.timeout_s <= 86_400:
            raise DefinitionError("invalid-metadata", f"{what}: timeout_s must be over 0 and at most 86400 (a day)")
        if not isinstance(self.max_attempts, int) or not 1 <= self.max_attempts <= 20:
            raise DefinitionError("invalid-metadata", f"{what}: max_attempts must be 1 to 20")
        _ = self.isolated
        definition = ToolDefinition(
            name=check_name(self.name, TOOL_NAME, what),
            version=check_version(self.version, what),
            description=first_paragraph(self._documented),
            capabilities=check_capabilities(self.capabilities, what),
            parameters=self._schema(what),
            idempotent=bool(self.idempotent),
            timeout_s=float(self.timeout_s),
            max_attempts=self.max_attempts,
            reconcile_timeout_s=self._reconcile_timeout_s(what),
            result=self._result_schema(what),
            examples=self._checked_examples(what),
            needs_tools=tuple(check_name(name, TOOL_NAME, f"a tool that {what} needs") for name in _names(self.needs_tools, what)),
            needs_services=_names(self.needs_services, what),
            untrusted_output=bool(self.untrusted_output),
            pinned=self.pinned,
            policy=self._said_policy(what),
        )
        check_json(definition, what)
        return definition

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, converted by the function's type hints, defaults filled in.

        Raises:
            InvalidArgumentsError: the arguments break the schema.
        """
        parameters = self._read_signature()
        try:
            model = parameters.model.model_validate(dict(arguments))
        except ValidationError as error:
            faults = (
                f"{'/'.join(str(part) for part in fault['loc']) or 'arguments'}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            )
            raise InvalidArgumentsError(f"tool {self.name!r} refuses its arguments: {'; '.join(faults)}") from None
        validated = {name: getattr(model, field) for field, name in parameters.names.items()}
        if self._check is not None:
            try:
                self._check(**validated)
            except ValueError as error:
                raise InvalidArgumentsError(f"tool {self.name!r} refuses its arguments: {text_of(error, 2_000)}") from error
        return validated

    def validate_result(self, result: JsonValue) -> None:
        """Raises InvalidResultError for JSON data that is not what the tool declares with `returns=` a type.

        A result that is declared by a JSON Schema is checked by the server.
        """
        if self.returns is None or isinstance(self.returns, Mapping):
            return
        try:
            self._adapter().validate_json(encode(result), strict=True)
        except ValidationError as error:
            faults = (
                f"{'/'.join(str(part) for part in fault['loc']) or 'result'}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            )
            raise InvalidResultError(f"the result of tool {self.name!r} is not what it declares: {'; '.join(faults)}") from None

    async def invoke(self, arguments: Mapping[str, Any], context: ToolContext) -> JsonValue:
        """Validate, call (a sync function in a thread), return the result as JSON data.

        Exceptions of the function are raised here.
        """
        validated = self.validate(arguments)
        first = (context,) if self._read_signature().takes_context else ()
        result = to_json(await call(self.function, first, validated), f"the result of tool {self.name!r}")
        self.validate_result(result)
        return result

    def _adapter(self) -> TypeAdapter[Any]:
        if self._returned is None:
            self._returned = TypeAdapter(self.returns)
        return self._returned

    def _result_schema(self, what: str) -> dict[str, Any] | None:
        if self.returns is None:
            return None
        if isinstance(self.returns, Mapping):
            return dict(self.returns)
        try:
            schema = self._adapter().json_schema(mode="serialization")
            check_depth(schema, "the JSON Schema of its result")
        except (PydanticUserError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation) as error:
            raise DefinitionError("invalid-signature", f"{what}: `returns` has no JSON Schema: {error.message}") from error
        except ValueTooDeepError as error:
            raise DefinitionError("invalid-signature", f"{what}: {error}") from error
        return schema

    def _checked_examples(self, what: str) -> tuple[dict[str, Any], ...]:
        """The examples. Each must be a call that the tool takes, and a result that it declares."""
        found = []
        for number, given in enumerate(self.examples, 1):
            try:
                example = Example.model_validate(given)
                self.validate(example.arguments)
                if "result" in example.model_fields_set:
                    self.validate_result(to_json(example.result, "its result"))
            except (InvalidArgumentsError, InvalidResultError, ValidationError) as error:
                raise DefinitionError("invalid-metadata", f"{what}: example {number}: {text_of(error, 1_000)}") from error
            found.append(example.said())
        return tuple(found)

    async def ask(self, arguments: Mapping[str, Any], context: ToolContext) -> Reconciled:
        """Ask the `reconcile` function whether the call took effect. Exceptions of the function are raised here.

        Raises:
            InvalidArgumentsError: the arguments break the schema of the tool.
            TypeError: the function's answer is no `Reconciled`.
        """
        assert self.reconcile is not None
        validated = self.validate(arguments)
        takes_context, names = read_reconcile(self.reconcile, ToolContext, validated, f"tool {self.name!r}")
        chosen = {name: validated[name] for name in names}
        answer = await call(self.reconcile, (context,) if takes_context else (), chosen)
        if not isinstance(answer, Reconciled):
            raise TypeError(f"the reconcile function of tool {self.name!r} must return a Reconciled, not {type(answer).__name__}")
        return Reconciled(answer.outcome, to_json(answer.result, f"the result that reconcile of tool {self.name!r} found"))

    def _reconcile_timeout_s(self, what: str) -> float | None:
        """None: there is no `reconcile` function. Raises DefinitionError."""
        if self.reconcile is None:
            return None
        if not callable(self.reconcile):
            raise DefinitionError("invalid-metadata", f"{what}: reconcile must be a function")
        if not isinstance(self.reconcile_timeout_s, int | float) or not 0 < self.reconcile_timeout_s <= 3600:
            raise DefinitionError("invalid-metadata", f"{what}: reconcile_timeout_s must be over 0 and at most 3600 (an hour)")
        read_reconcile(self.reconcile, ToolContext, dict.fromkeys(self._read_signature().names.values()), what)
        return float(self.reconcile_timeout_s)

    @property
    def undo(self) -> "Tool[..., Any] | None":
        """The tool that takes the effect back: the one that `compensate` names, or the one that is made of its function. None:
        there is none.

        Raises:
            DefinitionError: `compensate` is neither.
        """
        if self.compensate is not None and self._undo is None:
            self._undo = undo_of(self.name, self.compensate, self.timeout_s)
        return self._undo

    def _said_policy(self, what: str) -> dict[str, Any] | None:
        policy = Policy() if self.policy is None else self.policy
        if not isinstance(policy, Policy):
            raise DefinitionError("invalid-metadata", f"{what}: policy must be a tidelog.Policy")
        if (undo := self.undo) is not None:
            said = policy.compensation or Compensation(tool=undo.name)
            if said.tool != undo.name:
                raise DefinitionError("invalid-metadata", f"{what}: compensate is {undo.name}, and its policy names {said.tool}")
            policy = policy.model_copy(update={"compensation": said})
        return policy.said()

    def _schema(self, what: str) -> dict[str, Any]:
        try:
            schema = self._read_signature().model.model_json_schema(mode="validation")
            check_depth(schema, "the JSON Schema of its parameters")
        except PydanticUserError as error:
            raise DefinitionError("invalid-signature", f"{what}: a parameter has no JSON Schema: {error.message}") from error
        except ValueTooDeepError as error:
            raise DefinitionError("invalid-signature", f"{what}: {error}") from error
        schema.pop("title", None)
        return schema

    def _read_signature(self) -> _Parameters:
        # Late, not in the decorator: hints may name classes that are defined further down in the module.
        if self._parameters is None:
            self._parameters = _read_parameters(self.function)
        return self._parameters


UNDO_ATTEMPTS = 5


def undo_of(name: str, compensate: Callable[..., Any], timeout_s: float) -> Tool[..., Any]:
    """The tool that takes back what the tool of a name does. A plain function becomes the tool `<name>.undo`, which may be called
    again. Raises DefinitionError."""
    from tidelog.tool_classes import BaseTool, tool_of

    if isinstance(compensate, Tool) or (isinstance(compensate, type) and issubclass(compensate, BaseTool)):
        return tool_of(compensate)
    if not callable(compensate) or isinstance(compensate, type):
        raise DefinitionError("invalid-metadata", f"tool {name!r}: compensate must be a tool or a function")
    return Tool(compensate, name=f"{name}.undo", idempotent=True, max_attempts=UNDO_ATTEMPTS, timeout_s=timeout_s)


def _names(given: object, what: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, tuple | list) or not all(isinstance(name, str) for name in given):
        raise DefinitionError("invalid-metadata", f"{what}: what it needs is a tuple of names, not {given!r}")
    return tuple(given)


def _read_parameters(function: Callable[..., Any]) -> _Parameters:
    what = f"tool function {getattr(function, '__name__', function)}"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        declared = list(inspect.signature(function).parameters.values())
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise DefinitionError("invalid-signature", f"{what}: its type hints cannot be read: {error}") from error
    takes_context = bool(declared) and hints.get(declared[0].name) is ToolContext
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    for number, parameter in enumerate(declared[1:] if takes_context else declared):
        _check_parameter(parameter, hints, what)
        field = f"parameter_{number}"
        default = ... if parameter.default is parameter.empty else parameter.default
        title = parameter.name.replace("_", " ").strip().capitalize()
        fields[field] = (hints[parameter.name], Field(default, alias=parameter.name, title=title))
        names[field] = parameter.name
    try:
        model = create_model("Arguments", __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError, TypeError) as error:
        raise DefinitionError("invalid-signature", f"{what}: pydantic knows no schema for a parameter: {error}") from error
    return _Parameters(model, names, takes_context)


def _check_parameter(parameter: inspect.Parameter, hints: Mapping[str, Any], what: str) -> None:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise DefinitionError("invalid-signature", f"{what}: {parameter} cannot be given by name; no *args, **kwargs or `/`")
    if parameter.name not in hints:
        raise DefinitionError("invalid-signature", f"{what}: parameter {parameter.name!r} has no type hint")
    if hints[parameter.name] is ToolContext:
        raise DefinitionError("invalid-signature", f"{what}: only the first parameter can be a ToolContext")
    if parameter.name == "key":
        raise DefinitionError("invalid-signature", f"{what}: `key` is taken by ctx.tool(name, key=...); rename the parameter")


@overload
def tool(name: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(name: str | None = None, /, **given: Unpack[Keywords]) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(name: str | Callable[..., Any] | None = None, /, **given: Unpack[Keywords]) -> Any:
    """Make a function a tool: `@tool`, `@tool()` or `@tool("git.history", ...)`.

    name: `[a-z0-9_-]+`, with dots for namespaces; default: the function's name.
    idempotent: calling it twice with the same arguments does no harm, so a failed or unknown attempt may be repeated.
    timeout_s: limit of one attempt. An async function is cancelled; the thread of a sync one cannot be stopped and is abandoned.
    max_attempts: number of attempts in all, if idempotent or `reconcile` found out that an attempt had no effect.
    reconcile: a function that finds out whether a call took effect, and has no effect itself. It is asked when a worker vanished in
    a call that must not be repeated, or when the tool was stopped in the middle. It takes the `ToolContext` first, whose
    `idempotency_key` is the call's, and arguments of the tool by their names. It returns a `Reconciled`.
    reconcile_timeout_s: limit of one call of `reconcile`.
    version: a version that is named never means something else: a worker with another declaration of it is refused. Without one,
    the tool has the version "1", and its declaration follows the code.
    returns: a type, or a JSON Schema, that each result must fit; a result that does not fails the call with `InvalidResultError`.
    examples: `{"arguments": {...}, "result": ..., "description": ...}`, each checked when the tool is described.
    needs_tools, needs_services: names of what the tool cannot work without, for people and models.
    untrusted_output: the result holds text of strangers, which a model must not take for instructions.
    policy: what the server sees to when the tool is called, as a `Policy`: a breaker, how many calls at once and how often, tools
    that are called instead, the tool that takes the effect back, how long a result answers later calls.
    compensate: takes the effect back when the run's effects are taken back: a tool, or a function with hinted parameters among
    `arguments`, `result` and `invocation_id` of the call, perhaps after a `ToolContext`. The function becomes the tool
    `<name>.undo`, idempotent and with five attempts: `invocation_id` is the key by which a service knows the effect.
    isolation: "process" runs each call in a process of its own, with the bounds `cpu_s`, `memory_mb`, `files`, `file_mb`,
    `network`, `environment` and `required` of `tidelog.isolation.declared.Isolation`. A call that is over leaves nothing behind.

    The worker checks the declaration when it describes the tool, so that one faulty tool does not disable the other tools and
    agents of its module.
    """

    options = cast(ToolOptions, {key: value for key, value in given.items() if key in ToolOptions.__annotations__})
    limits = {key: value for key, value in given.items() if key not in options}

    def decorate(function: Callable[..., Any]) -> Tool[..., Any]:
        named = name if isinstance(name, str) else getattr(function, "__name__", "")
        return Tool(function, name=named, limits=limits, **options)

    return decorate(name) if callable(name) else decorate
