"""Tools of which a test says what they do: `ScriptedTool("payment.charge").fails(TransientError("…")).then_returns({...})`."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from tidelog.errors import PermanentError
from tidelog.reconciling import Reconciled
from tidelog.testing.effects import CURRENT, Effects
from tidelog.testing.journal import ToolCall
from tidelog.testing.schemas import check_result
from tidelog.testing.vanishing import KIT, WorkerVanished
from tidelog.tools import Tool, ToolContext
from tidelog.values import to_json

EXIT_VANISHED = 70


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scripted tool does in one attempt."""

    kind: Literal["returns", "fails", "times_out", "vanishes"]
    value: Any = None
    """The result, a function of the arguments that gives it, or the error."""
    effect: bool = True


class ScriptedTool(Tool[..., Any]):
    """A tool with a script: each attempt takes the next answer, and the last answer stays.

        charge = ScriptedTool("payment.charge", idempotent=True).times_out(after_effect=True).then_returns({"id": "ch_1"})
        outcome = await run_agent(Shop, 7, tools=[charge])
        assert [call.attempt for call in charge.calls] == [1, 2]
        charge.effects.assert_once()

    It has an effect in each attempt that comes so far, under the call's idempotency key. With `idempotent=True` it is like a
    service that knows the keys: it has no second effect for the same key.

    `like`: another tool whose declaration it has: name, schemas, time-out, attempts. Without it any arguments fit.
    `effects`: counted effects that it shares with others. `file`: its calls and effects stand in files with this beginning of the
    name, so that tools in worker processes and the test have the same ones.
    """

    def __init__(
        self,
        name: str | None = None,
        /,
        *,
        like: Tool[..., Any] | None = None,
        idempotent: bool | None = None,
        timeout_s: float | None = None,
        max_attempts: int | None = None,
        effects: Effects | None = None,
        file: Path | str | None = None,
    ) -> None:
        if name is None and like is None:
            raise TypeError("a scripted tool has a name, or is like another tool")
        super().__init__(
            self._act,
            name=name or "",
            capabilities=(),
            idempotent=bool(idempotent),
            timeout_s=60 if timeout_s is None else timeout_s,
            max_attempts=3 if max_attempts is None else max_attempts,
            version=None,
        )
        self._like = like
        if like is not None:
            vars(self).update({**vars(like), "function": self._act, "reconcile": None, "_isolation": (None, {})})
            given = {"name": name, "idempotent": idempotent, "timeout_s": timeout_s, "max_attempts": max_attempts}
            vars(self).update({key: value for key, value in given.items() if value is not None})
        del vars(self)["returns"]  # here it is a method; what the tool declares says `like`
        self._script: list[Answer] = []
        self._parts: list[tuple[dict[str, Any], list[Answer]]] = []
        self._writes = self._script
        self._tellings: list[Reconciled | Exception] = []
        self._known, self._asked = _Seen(file), _Seen(None if file is None else f"{file}.asked")
        self._results: dict[str, Any] = {}
        self._taken: list[dict[str, Any]] = []
        self.effects = effects or Effects(None if file is None else f"{file}.effects")
        """What it did."""
        self.__doc__ = like.__doc__ if like is not None else f"Plays {self.name} in a test."
        self.__module__ = sys._getframe(1).f_globals.get("__name__", "")  # a worker finds it in the module that makes it

    # --- the script ---

    def returns(self, value: Any = None) -> "ScriptedTool":
        """It does its work and returns this; of a function, what it returns for the arguments by their names."""
        return self._then(Answer("returns", value))

    def fails(self, error: Exception, *, after_effect: bool = False) -> "ScriptedTool":
        """It raises this error."""
        return self._then(Answer("fails", error, after_effect))

    def times_out(self, *, after_effect: bool = False) -> "ScriptedTool":
        """It gives no result until its time is over."""
        return self._then(Answer("times_out", None, after_effect))

    def vanishes(self, *, after_effect: bool = False) -> "ScriptedTool":
        """Its worker is gone in the middle of the call. A real worker does so only if it is a process of its own
        (`python -m tidelog.worker`), whose end nobody else feels; the tool then needs a `file`."""
        return self._then(Answer("vanishes", None, after_effect))

    then_returns = returns
    then_fails = fails
    then_times_out = times_out
    then_vanishes = vanishes

    def when(self, **arguments: Any) -> "ScriptedTool":
        """The answers that follow are for calls with these arguments, whatever others they have."""
        self._writes = []
        self._parts.append((arguments, self._writes))
        return self

    def reconciles(self, *answers: Reconciled | Exception, timeout_s: float = 30) -> "ScriptedTool":
        """It has a `reconcile` function, which gives these answers, the last one for ever; without answers it tells the truth."""
        self._tellings = list(answers)
        self.reconcile, self.reconcile_timeout_s = self._tell, timeout_s
        return self

    # --- what was seen ---

    @property
    def calls(self) -> list[ToolCall]:
        """Every attempt, with its arguments and idempotency key."""
        return list(self._known.all)

    @property
    def asked(self) -> list[ToolCall]:
        """Every time that its `reconcile` function was asked."""
        return list(self._asked.all)

    @property
    def idempotency_keys(self) -> list[str]:
        """One for each call of an agent, in order."""
        return list(dict.fromkeys(call.idempotency_key for call in self.calls))

    def reset(self) -> None:
        """Forget what was seen. The script begins anew."""
        self._known.clear()
        self._asked.clear()
        self._results.clear()
        self._taken.clear()
        self.effects.clear()

    # --- the tool ---

    async def invoke(self, arguments: Mapping[str, Any], context: ToolContext) -> JsonValue:
        """Take the next answer of the script."""
        given = self.validate(arguments)
        result = to_json(await self._act(context, **given), f"the result of tool {self.name!r}")
        if self._like is not None:
            self._like.validate_result(result)
            check_result(self._like, result)
        return result

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return dict(arguments) if self._like is None else self._like.validate(arguments)

    def _schema(self, what: str) -> dict[str, Any]:
        return {"type": "object"} if self._like is None else self._like.describe().parameters

    def _result_schema(self, what: str) -> dict[str, Any] | None:
        return None if self._like is None else self._like.describe().result

    def _reconcile_timeout_s(self, what: str) -> float | None:
        return None if self.reconcile is None else self.reconcile_timeout_s

    async def ask(self, arguments: Mapping[str, Any], context: ToolContext) -> Reconciled:
        return self._tell(arguments, context)

    async def _act(self, context: ToolContext, **arguments: Any) -> Any:
        script = self._script_for(arguments)
        before = self._taken_of(script)
        self._note(self._known, context, arguments)
        if self.idempotent and context.idempotency_key in self._results:  # the service knows the key
            return self._results[context.idempotency_key]
        self._taken.append(arguments)
        if not script:
            raise PermanentError(f"the script of {self.name} has no answer for {arguments!r}; add .returns(...)")
        answer = script[min(before, len(script) - 1)]
        if answer.effect and not (self.idempotent and context.idempotency_key in self.effects):
            self.effects.happened(context, **arguments)
        if answer.kind == "fails":
            raise answer.value
        if answer.kind == "vanishes":
            self._vanish()
        if answer.kind == "times_out":
            kit = KIT.get()
            with nullcontext() if kit is None else kit.idle():
                await asyncio.Event().wait()
        self._results[context.idempotency_key] = result = _value(answer, arguments)
        return result

    def _taken_of(self, script: list[Answer]) -> int:
        """The number of answers that calls have taken from a script, in all processes."""
        taken = self._taken if self._known.file is None else [call.arguments for call in self.calls]
        return sum(self._script_for(arguments) is script for arguments in taken)

    def _vanish(self) -> None:
        if KIT.get() is not None:
            raise WorkerVanished
        main = getattr(sys.modules.get("__main__"), "__spec__", None)
        if main is not None and main.name == "tidelog.worker.__main__":
            os._exit(EXIT_VANISHED)
        raise PermanentError(
            f"{self.name} cannot let its worker vanish, because the worker runs in the process of the test: start it with "
            "`python -m tidelog.worker`"
        )

    def _tell(self, arguments: Mapping[str, Any], context: ToolContext) -> Reconciled:
        self._note(self._asked, context, dict(arguments))
        if self._tellings:
            answer = self._tellings[min(len(self._asked.all), len(self._tellings)) - 1]
            if isinstance(answer, Exception):
                raise answer
            return answer
        return self.truth(context.idempotency_key, arguments)

    def truth(self, idempotency_key: str, arguments: Mapping[str, Any]) -> Reconciled:
        """Whether the call had its effect; with the next result in the script."""
        if idempotency_key not in self.effects:
            return Reconciled.not_happened()
        if idempotency_key in self._results:
            return Reconciled.succeeded(self._results[idempotency_key])
        script = self._script_for(arguments)
        results = [answer for answer in script[self._taken_of(script) :] if answer.kind == "returns"]
        return Reconciled.succeeded(_value(results[0], arguments) if results else None)

    def _then(self, answer: Answer) -> "ScriptedTool":
        self._writes.append(answer)
        return self

    def _script_for(self, arguments: Mapping[str, Any]) -> list[Answer]:
        for wanted, script in self._parts:
            if wanted.items() <= arguments.items():
                return script
        return self._script

    def _note(self, seen: "_Seen", context: ToolContext, arguments: dict[str, Any]) -> None:
        current = CURRENT.get()
        key = "" if current is None else current.key
        seen.add(ToolCall(self.name, arguments, context.attempt, key, context.idempotency_key))


class _Seen:
    """Calls that were seen: in memory, or in a file for several processes."""

    def __init__(self, file: Path | str | None) -> None:
        self.file = None if file is None else Path(file)
        self._here: list[ToolCall] = []

    @property
    def all(self) -> list[ToolCall]:
        if self.file is None:
            return self._here
        if not self.file.exists():
            return []
        return [ToolCall(*json.loads(line)) for line in self.file.read_text("utf-8").splitlines()]

    def add(self, call: ToolCall) -> None:
        if self.file is None:
            self._here.append(call)
            return
        line = to_json([call.tool, call.arguments, call.attempt, call.key, call.idempotency_key], "the call")
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def clear(self) -> None:
        self._here.clear()
        if self.file is not None:
            self.file.unlink(missing_ok=True)


def _value(answer: Answer, arguments: Mapping[str, Any]) -> Any:
    value: Callable[..., Any] | Any = answer.value
    return value(**arguments) if callable(value) and not isinstance(value, type) else value
