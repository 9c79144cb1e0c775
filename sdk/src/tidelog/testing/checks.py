"""What every tool must do. Each check says what helps, where it fails."""

import asyncio
import contextlib
import io
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from tidelog.calling import is_async, keep_process, stop_task
from tidelog.errors import DefinitionError, TidelogError
from tidelog.failures import tool_failure
from tidelog.isolation.tool import Isolating
from tidelog.reconciling import Reconciled
from tidelog.testing.effects import Effects
from tidelog.testing.mutating import CANARY, mutations, with_canaries
from tidelog.testing.schemas import check_result, faults_of
from tidelog.tool_classes import AnyTool, tool_of
from tidelog.tools import InvalidArgumentsError, Tool, ToolContext
from tidelog.values import to_json

CANCEL_S = 5.0
"""Real seconds that a cancelled tool has to end. A worker goes on without it after one."""

Count = Effects | Callable[[], int]
"""The effects that stand: counted, or a function that says how many there are."""


class LeftOut(Exception):
    """The check does not fit the tool, or lacks something that only its author can give."""


@dataclass
class ToolChecks:
    """The checks of a tool. What each of them needs:

    examples: arguments of calls that succeed; default: the examples of the declaration. failing: arguments of calls that fail.
    slow: arguments of a call that works for a while, to be cancelled.
    effects: counts the effects that stand. secrets: names of environment variables that the tool reads when it is called.
    compensation: the tool that takes the effect back; with `compensation_arguments` from the arguments and the result of the call,
    where the policy of the tool has expressions that are more than paths.
    """

    tool: AnyTool
    examples: Sequence[Mapping[str, Any]] | None = None
    failing: Sequence[Mapping[str, Any]] = ()
    slow: Mapping[str, Any] | None = None
    effects: Count | None = None
    secrets: Sequence[str] = ()
    compensation: AnyTool | None = None
    compensation_arguments: Callable[[dict[str, Any], Any], Mapping[str, Any]] | None = None
    workspace: Path | str | None = None
    made: Tool[..., Any] = field(init=False)

    def __post_init__(self) -> None:
        self.made = tool_of(self.tool)

    # --- the checks ---

    async def describes_itself(self) -> None:
        try:
            definition = self.made.describe()
        except DefinitionError as error:
            raise AssertionError(f"{self.made!r} cannot be described: {error}. Mend its declaration") from error
        _assert(
            definition.description,
            f"{self.made!r} does not say what it does. Write a docstring: models and people choose tools by it",
        )

    async def accepts_its_examples(self) -> None:
        for arguments in self._examples():
            try:
                self.made.validate(arguments)
            except InvalidArgumentsError as error:
                raise AssertionError(
                    f"the example {_short(arguments)} is refused: {error}. Mend the example or the hints"
                ) from error

    async def refuses_other_arguments(self) -> None:
        schema = self.made.describe().parameters
        for example in self._examples():
            for name, wrong, arguments in mutations(schema, example):
                try:
                    self.made.validate(arguments)
                except InvalidArgumentsError as error:
                    _assert(
                        name in str(error),
                        f"the refusal does not name the argument {name!r} ({wrong}): {error}. Name it in the check's ValueError",
                    )
                    continue
                raise AssertionError(
                    f"{_short(arguments)} is accepted, but {wrong} ({name!r}). Give the parameter a stricter type hint, or "
                    "check it in `validate` of a BaseTool"
                )

    async def results_are_what_it_declares(self) -> None:
        for arguments in self._examples():
            result = await self._call(arguments)
            try:
                check_result(self.made, result)
            except TidelogError as error:
                raise AssertionError(f"{error}. Mend the tool, or what it declares with returns=") from error
            if isinstance(self.made.returns, Mapping) and faults_of(self.made.returns, result) is None:
                raise LeftOut("the result is declared by a JSON Schema: install the package jsonschema to check it")

    async def same_key_has_one_effect(self) -> None:
        if not self.made.idempotent:
            raise LeftOut("the tool is not declared idempotent, so no call is repeated")
        for arguments in self._examples():
            before, key = self._count(), _key()
            await self._call(arguments, key, 1)
            await self._call(arguments, key, 2)
            happened = self._count() - before
            _assert(
                happened <= 1,
                f"two attempts with the same key had {happened} effects. A worker may vanish after the effect, and then "
                "the tool is called again with the same ctx.idempotency_key: pass the key to the service, or look for it first; "
                "else drop idempotent=True and give the tool a reconcile function",
            )

    async def reconcile_tells_the_truth(self) -> None:
        if self.made.reconcile is None:
            raise LeftOut("the tool has no reconcile function")
        for arguments in self._examples():
            answer = await self._ask(arguments, _key())
            _assert(
                answer.outcome != "succeeded",
                f"reconcile says that a call took effect that never was: {_short(arguments)}. Look for ctx.idempotency_key, not "
                "for the arguments: two calls may have the same ones",
            )
            key = _key()
            result = await self._call(arguments, key)
            before = None if self.effects is None else self._count()
            answer = await self._ask(arguments, key)
            _assert(
                answer.outcome != "not_happened",
                "reconcile says that a call had no effect which took effect: the tool would be called again, and would have a "
                "second one. Give the service ctx.idempotency_key with the effect, and look for it",
            )
            _assert(
                answer.outcome == "succeeded",
                "reconcile does not know of a call that took effect: a person would be asked each time. Look for the effect by "
                "ctx.idempotency_key",
            )
            _assert(
                answer.result == result,
                f"reconcile gives another result than the call: {_short(answer.result)}, not {_short(result)}. The agent goes on "
                "with it: return what the tool would have returned",
            )
            await self._ask(arguments, key)
            if before is not None:
                _assert(self._count() == before, "reconcile has an effect itself. It may be asked often: let it only look")

    async def a_cancelled_call_ends(self) -> None:
        if not is_async(self.made.function):
            raise LeftOut("a sync tool cannot be stopped; let it look at ctx.cancelled if it works for long")
        arguments = self.slow if self.slow is not None else self._examples()[0]
        with self._workspace() as workspace:
            task = asyncio.create_task(self._invoke(arguments, ToolContext(workspace, _key(), 1)))
            for _ in range(10):
                await asyncio.sleep(0)
            if task.done():
                task.exception()
                raise LeftOut("the call ends at once; give slow= the arguments of one that works for a while")
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_S)
            ended = task.done()
            if not ended:
                await stop_task(task)
            elif not task.cancelled():
                task.exception()
        _assert(
            ended,
            f"the call goes on {CANCEL_S:g} s after it was cancelled: a worker's slot is taken that long. Do not catch "
            "CancelledError (or raise it again), and run blocking code in a sync tool",
        )

    async def the_compensation_takes_the_effect_back(self) -> None:
        undo = self._compensation()
        for arguments in self._examples():
            before, called = self._count(), _key()
            result = await self._call(arguments, called)
            _assert(
                self._count() > before,
                f"the call {_short(arguments)} had no effect that is counted, so none can be taken back. Let the tool say "
                "effects.happened(...)",
            )
            back = self._undo_arguments(undo, {"arguments": dict(arguments), "result": result, "invocation_id": called})
            key = _key()
            for attempt in (1, 2) if undo.idempotent else (1,):
                with self._workspace() as workspace:
                    await self._invoke(back, ToolContext(workspace, key, attempt), undo)
                left = self._count() - before
                _assert(
                    left == 0,
                    f"after attempt {attempt} of {undo.name} {left} effects stand that did not before. Let it say "
                    "effects.taken_back(key) when it has taken the effect back, once",
                )

    async def errors_have_no_secrets(self) -> None:
        schema = self.made.describe().parameters
        for name, wrong, arguments in (each for example in self._examples() for each in with_canaries(schema, example)):
            try:
                self.made.validate(arguments)
            except InvalidArgumentsError as error:
                _assert(
                    CANARY not in str(error),
                    f"the refusal of {name!r} ({wrong}) has the value in its text, which goes into the log for ever. Name the "
                    "argument, not its value",
                )
        if not self.secrets:
            return
        with _canaries(self.secrets) as texts, _heard() as heard:
            for arguments in [*self._examples(), *map(dict, self.failing)]:
                try:
                    told = json.dumps(await self._call(arguments, failing=True))
                    where = "the result"
                except Exception as error:  # noqa: BLE001  # its report is looked at
                    told, where = tool_failure(error).model_dump_json(), "the report of its failure"
                for place, text in ((where, told), ("what it prints and logs", heard())):
                    found = [name for name, secret in texts.items() if secret in text]
                    _assert(
                        not found,
                        f"{place} of the call {_short(arguments)} has the value of {', '.join(found)}. It goes into the log of the "
                        "server: raise an error of your own `from None`, and leave headers and URLs with keys out of texts",
                    )

    async def works_in_a_process_of_its_own(self) -> None:
        if self.made.isolated is None:
            raise LeftOut("the tool does not ask for isolation='process'")
        isolating = Isolating()
        try:
            alone = isolating.isolated(self.made)
            for arguments in self._examples():
                try:
                    with self._workspace() as workspace:
                        result = await self._invoke(arguments, ToolContext(workspace, _key(), 1), alone)
                except Exception as error:  # code of the tool
                    report = tool_failure(error)
                    raise AssertionError(
                        f"in a process of its own the call {_short(arguments)} fails with {report.type}: {report.message}. "
                        "There it has no memory of this process, and only those variables and files, and that network, which its "
                        "declaration names"
                    ) from error
                check_result(self.made, result)
        finally:
            isolating.close()

    # --- what they need ---

    def _examples(self) -> list[dict[str, Any]]:
        given: Sequence[Mapping[str, Any]] | None = self.examples
        if given is None:
            given = [dict(example["arguments"]) for example in self.made.examples]
        if not given:
            raise AssertionError(
                f"{self.made!r} has no examples. Declare them: @tool(examples=[{{'arguments': {{...}}}}]), or give examples="
            )
        return [dict(arguments) for arguments in given]

    def _count(self) -> int:
        if self.effects is None:
            raise LeftOut("nobody counts the effects; give effects=Effects(), or a function that says how many stand")
        return len(self.effects.standing) if isinstance(self.effects, Effects) else int(self.effects())

    async def _call(
        self, arguments: Mapping[str, Any], key: str | None = None, attempt: int = 1, *, failing: bool = False
    ) -> JsonValue:
        with self._workspace() as workspace:
            try:
                return await self._invoke(arguments, ToolContext(workspace, key or _key(), attempt))
            except Exception as error:
                if failing:
                    raise
                report = tool_failure(error)
                raise AssertionError(
                    f"the example {_short(arguments)} fails with {report.type}: {report.message}. Give the check examples that "
                    "succeed, and the tool a world to work in (a fake service)"
                ) from error

    async def _invoke(self, arguments: Mapping[str, Any], context: ToolContext, tool: Tool[..., Any] | None = None) -> JsonValue:
        tool = self.made if tool is None else tool
        with keep_process():
            async with asyncio.timeout(tool.timeout_s):
                return await tool.invoke(to_json(dict(arguments), "the arguments"), context)  # type: ignore[arg-type]

    async def _ask(self, arguments: Mapping[str, Any], key: str) -> Reconciled:
        with self._workspace() as workspace, keep_process():
            try:
                async with asyncio.timeout(self.made.reconcile_timeout_s):
                    return await self.made.ask(arguments, ToolContext(workspace, key, 2))
            except Exception as error:
                raise AssertionError(
                    f"reconcile fails with {type(error).__name__}: {error}. It must answer, also of a call that never reached the "
                    "service: Reconciled.not_happened()"
                ) from error

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[Path]:
        if self.workspace is not None:
            yield Path(self.workspace)
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tidelog-contract-")
        yield Path(self._folder.name)

    _folder: "tempfile.TemporaryDirectory[str] | None" = field(default=None, init=False, repr=False)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _compensation(self) -> Tool[..., Any]:
        """The tool that takes the effect back. Raises LeftOut."""
        declared = self._declared_compensation()
        undo = getattr(self.made, "undo", None) if self.compensation is None else tool_of(self.compensation)
        if undo is None and not declared:
            raise LeftOut("the tool declares no compensation")
        if not isinstance(undo, Tool):
            raise LeftOut(f"give compensation= the tool {declared['tool']!r}, which takes the effect back")
        named = declared.get("tool", undo.name)
        _assert(
            named == undo.name,
            f"the policy names {named!r} as compensation, and the check was given {undo.name!r}. Name the same tool",
        )
        return undo

    def _declared_compensation(self) -> dict[str, Any]:
        """As the server gets it; empty: none."""
        found = (self.made.describe().policy or {}).get("compensation")
        return dict(found) if found else {}

    def _undo_arguments(self, undo: Tool[..., Any], known: dict[str, Any]) -> Mapping[str, Any]:
        """By the expressions of the policy; without them what the compensating tool has parameters for."""
        if self.compensation_arguments is not None:
            return self.compensation_arguments(known["arguments"], known["result"])
        expressions = self._declared_compensation().get("arguments")
        if expressions is None:
            parameters = undo.describe().parameters.get("properties", {})
            return {name: value for name, value in known.items() if name in parameters}
        return {name: _at(path, known) for name, path in expressions.items()}


def _assert(holds: object, told: str) -> None:
    if not holds:
        raise AssertionError(told)


def _key() -> str:
    return str(uuid.uuid4())


def _at(path: str, known: Mapping[str, Any]) -> Any:
    """The value at a path such as `result.id`. Raises LeftOut for an expression that is more."""
    value: Any = known
    for part in path.split("."):
        if not part.isidentifier() or not isinstance(value, Mapping) or part not in value:
            raise LeftOut(f"the expression {path!r} needs the server; give compensation_arguments=lambda arguments, result: ...")
        value = value[part]
    return value


@contextlib.contextmanager
def _canaries(names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Environment variables with values of which each can be found again."""
    before = {name: os.environ.get(name) for name in names}
    texts = {name: f"{CANARY}-{number}-{uuid.uuid4().hex}" for number, name in enumerate(names)}
    os.environ.update(texts)
    try:
        yield texts
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _heard() -> Iterator[Callable[[], str]]:
    """What is printed and logged within the block."""
    heard = io.StringIO()
    handler, root = logging.StreamHandler(heard), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            yield heard.getvalue
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else f"{text[:200]}…"
