"""How the states of a decider are stored: as a whole, or as what changed since an earlier state.

A state that grows is a dataclass with persistent maps. Two states of one stream share nearly all entries of their maps, so what
changed is found by identity. What is stored then is as large as the change, and not as large as the state.
"""

import dataclasses
import hashlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import pydantic_core
from immutables import Map
from pydantic import TypeAdapter, ValidationError

from domain import values
from domain.event_registry import EventRegistry
from domain.kernel import Decider, Json
from domain.maps import MAP_VERSION

MAPS = "domain.maps"
"""The module that writes and reads the maps in states."""
_ABSENT = object()


class StateChange(NamedTuple):
    """What makes one state of a stream another one."""

    fields: list[str]
    """The fields that changed."""
    entries: dict[str, dict[Any, Any]]
    """Field → the entries of its map that are new or changed."""
    removed: dict[str, list[Any]]
    """Field → the keys that its map has no more."""

    @property
    def size(self) -> int:
        """Entries that are written or removed."""
        return sum(map(len, (*self.entries.values(), *self.removed.values())))


@dataclasses.dataclass(frozen=True, slots=True)
class _Head:
    """The first line of a stored change. The second one is a state with the changed fields and entries only."""

    fields: list[str]
    removed: dict[str, list[Json]]


_HEAD: TypeAdapter[_Head] = TypeAdapter(_Head)


class StateModel:
    """Writes and reads the states of one decider. Its digest covers all that gives a stored state its meaning."""

    def __init__(self, registry: EventRegistry, decider: Decider[Any]) -> None:
        state_type = type(decider.initial())
        self._adapter: TypeAdapter[Any] = TypeAdapter(state_type)
        self._keys = dict(_key_types(state_type))
        """Field with a persistent map → the type of its keys."""
        digest = hashlib.sha256(pydantic_core.to_json(self._adapter.json_schema()))
        digest.update(f"{MAP_VERSION}\n".encode())
        for module, code in (*code_of_slice(decider), (MAPS, _code_of(MAPS)), (__name__, _code_of(__name__))):
            digest.update(f"{module} {len(code)}\n".encode() + code)
        for event in registry.slices.get(decider.slice, ()):
            digest.update(f"{event.TOPIC} {event.VERSION}\n".encode())
            for version in range(1, event.VERSION):
                digest.update(_code_of(registry.upcasts[event.TOPIC, version].to_next.__module__))
        self.digest = digest.hexdigest()

    def encode(self, state: Any) -> bytes:
        return self._adapter.serializer.to_json(state)

    def decode(self, whole: bytes, changes: Sequence[bytes] = ()) -> Any:
        """The state, with the changes after it. Raises ValueError."""
        state = self._read(whole)
        for change in changes:
            state = self._changed(state, change)
        return state

    def entries(self, state: Any) -> list[int]:
        """How many entries each map of the state has."""
        return [len(getattr(state, name)) for name in self._keys]

    def change(self, before: Any, after: Any) -> StateChange:
        """What changed from one state of a stream to a later one. Looks at each entry of the maps."""
        names = [field.name for field in dataclasses.fields(after)]
        change = StateChange([name for name in names if getattr(before, name) is not getattr(after, name)], {}, {})
        for name in self._keys.keys() & set(change.fields):
            old, new = getattr(before, name), getattr(after, name)
            known = old.get
            entries = {key: value for key, value in new.items() if known(key, _ABSENT) is not value}
            if len(old) + sum(key not in old for key in entries) > len(new):
                change.removed[name] = sorted(key for key in old if key not in new)
            change.entries[name] = entries
        return change

    def encode_change(self, change: StateChange, after: Any) -> bytes:
        head = _HEAD.dump_json(_Head(change.fields, change.removed))
        part = dataclasses.replace(after, **{name: Map(entries) for name, entries in change.entries.items()})
        return head + b"\n" + self._adapter.serializer.to_json(part, include=set(change.fields))

    def _changed(self, state: Any, stored: bytes) -> Any:
        first, _, rest = stored.partition(b"\n")
        head, part = _HEAD.validate_json(first), self._read(rest)
        if unknown := {*head.fields} - {field.name for field in dataclasses.fields(state)} | head.removed.keys() - self._keys:
            raise ValueError(f"a change of fields that the state does not have: {', '.join(sorted(unknown))}")
        after = {name: getattr(part, name) for name in head.fields}
        for name in self._keys.keys() & after.keys():
            with getattr(state, name).mutate() as entries:
                entries.update(after[name])
                for key in map(self._keys[name], head.removed.get(name, ())):
                    entries.pop(key, None)
                after[name] = entries.finish()
        return dataclasses.replace(state, **after)

    def _read(self, state: bytes) -> Any:
        try:
            return self._adapter.validate_json(state)
        except ValidationError as error:
            if not values.is_beyond_parser(error):
                raise
        return self._adapter.validate_python(values.read(state))


@cache
def model_of(registry: EventRegistry, decider: Decider[Any]) -> StateModel:
    return StateModel(registry, decider)


def _key_types(state_type: type) -> Iterator[tuple[str, Any]]:
    """The fields of a state that are persistent maps, and the types of their keys."""
    if not dataclasses.is_dataclass(state_type):
        return
    hints: Mapping[str, Any] = get_type_hints(state_type, include_extras=True)
    for field in dataclasses.fields(state_type):
        hint = hints[field.name]
        kept = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if get_origin(kept) is Map:
            yield field.name, get_args(kept)[0]


def code_of_slice(decider: Decider[Any]) -> Iterator[tuple[str, bytes]]:
    """Dotted name and file of each module of the decider's slice, in a fixed order.

    The slice is the module or the package that is named after it. An `evolve` that stands elsewhere has only its own module.
    """
    parts = decider.evolve.__module__.split(".")
    depth = parts.index(decider.slice) + 1 if decider.slice in parts else len(parts)
    for name in _modules_below(".".join(parts[:depth])):
        yield name, _code_of(name)


def _modules_below(name: str) -> Iterator[str]:
    """The module, and all modules below it if it is a package."""
    yield name
    spec = find_spec(name)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        for inner in sorted(found.name for found in pkgutil.iter_modules(spec.submodule_search_locations, f"{name}.")):
            yield from _modules_below(inner)


def _code_of(module_name: str) -> bytes:
    """The module's file, read by its loader: the file may be in an archive."""
    spec = find_spec(module_name)
    assert spec is not None and spec.origin is not None
    loader: Any = spec.loader
    code: bytes = loader.get_data(spec.origin)
    return code
