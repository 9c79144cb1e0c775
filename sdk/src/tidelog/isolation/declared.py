"""What a tool asks for with `@tool(isolation="process", …)`, and what of it can be had here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from tidelog.errors import DefinitionError
from tidelog.isolation.kernel import Kernel, kernel_here

Kind = Literal["process"]


class Limits(TypedDict, total=False):
    """The keywords of `@tool` beside `isolation="process"`; see `Isolation`."""

    cpu_s: float | None
    memory_mb: int
    files: int
    file_mb: int
    network: bool
    environment: tuple[str, ...]
    required: bool


@dataclass(frozen=True)
class Isolation:
    """Bounds of one call. None of them is shared with other calls.

    cpu_s: seconds of processor time; None: as many as `timeout_s`.
    memory_mb: MiB of address space beyond those that the process has at its start.
    files: open files. file_mb: MiB of the largest file that it writes.
    network: False: no network at all, not even this machine's.
    environment: names of the worker's variables that the tool gets. It gets no others but a few such as PATH and LANG.
    required: a machine that cannot do all of this does not offer the tool.
    """

    cpu_s: float | None = None
    memory_mb: int = 512
    files: int = 256
    file_mb: int = 64
    network: bool = True
    environment: tuple[str, ...] = ()
    required: bool = False


_NAMES = frozenset(each.name for each in fields(Isolation))
_WHOLE: Mapping[str, tuple[int, int]] = {"memory_mb": (16, 1_048_576), "files": (16, 65_536), "file_mb": (0, 1_048_576)}


def isolation_of(kind: object, limits: Mapping[str, Any], what: str) -> Isolation | None:
    """None: the tool runs in the worker. Raises DefinitionError for what cannot be meant."""
    if kind is None or kind == "none":
        if limits:
            raise _fault(what, f"{min(limits)} is for isolation='process' only")
        return None
    if kind != "process":
        raise _fault(what, "isolation must be 'process' or missing")
    if unknown := sorted(set(limits) - _NAMES):
        raise _fault(what, f"there is no {unknown[0]}; there are {', '.join(sorted(_NAMES))}")
    asked = Isolation(**limits)
    for name, (least, most) in _WHOLE.items():
        value = getattr(asked, name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _fault(what, f"{name} must be {least} to {most:,}")
    if asked.cpu_s is not None and not (isinstance(asked.cpu_s, int | float) and 0 < asked.cpu_s <= 86_400):
        raise _fault(what, "cpu_s must be over 0 and at most 86400")
    if not isinstance(asked.network, bool) or not isinstance(asked.required, bool):
        raise _fault(what, "network and required are True or False")
    named: Any = asked.environment
    if isinstance(named, str) or not all(isinstance(each, str) and each and "=" not in each for each in named):
        raise _fault(what, "environment is a tuple of names of variables, as in ('API_TOKEN',)")
    if asked.required and (lacks := lacking(asked, kernel_here())):
        raise _fault(what, f"it requires what this machine cannot do: {lacks}")
    return asked


def lacking(asked: Isolation, kernel: Kernel) -> str:
    """What a tool asks for and does not get here; empty: nothing."""
    lacks = [] if asked.network or kernel.network else ["it has a network all the same"]
    if not kernel.processes:
        lacks.append("it can see and signal other processes of its account")
    return f"{', and '.join(lacks)} ({kernel.reason})" if lacks else ""


def cpu_seconds(asked: Isolation, timeout_s: float) -> int:
    """Whole seconds, as the kernel counts them."""
    return max(1, math.ceil(timeout_s if asked.cpu_s is None else asked.cpu_s))


def _fault(what: str, why: str) -> DefinitionError:
    return DefinitionError("invalid-metadata", f"{what}: {why}")
