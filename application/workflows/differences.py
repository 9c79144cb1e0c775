"""What differs between two definitions: each place with what stood there and what stands there now.

Steps are compared by their keys, so a step that is put in front of the others is one difference, and not one of each step.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

from domain.errors import json_pointer
from domain.kernel import Json, same_json

Place = tuple[str | int, ...]


class WorkflowDifference(BaseModel):
    pointer: str
    """JSON Pointer to the place: in the definition after the change; of what was removed, in the one before."""
    kind: Literal["added", "removed", "changed", "order"]
    """`order`: the steps stand in another order, which `before` and `after` give by their keys."""
    step: str | None = None
    """The key of the step in which the place is."""
    before: Json = None
    after: Json = None


def differences(before: Json, after: Json) -> list[WorkflowDifference]:
    """What changes `before` into `after`. Empty if both say the same."""
    return list(_of_values(before, after, (), (), None))


def _of_values(before: Json, after: Json, old: Place, new: Place, step: str | None) -> Iterator[WorkflowDifference]:
    """`old`, `new`: the place in the definition before and in the one after."""
    if same_json(before, after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if name in after:
                yield from _of_values(value, after[name], (*old, name), (*new, name), step)
            else:
                yield WorkflowDifference(pointer=json_pointer((*old, name)), kind="removed", step=step, before=value)
        for name, value in after.items():
            if name not in before:
                yield WorkflowDifference(pointer=json_pointer((*new, name)), kind="added", step=step, after=value)
        return
    keys, others = _keys_of(before), _keys_of(after)
    if keys is not None and others is not None:
        yield from _of_steps(keys, others, old, new)
    else:
        yield WorkflowDifference(pointer=json_pointer(new), kind="changed", step=step, before=before, after=after)


def _of_steps(before: dict[str, Any], after: dict[str, Any], old: Place, new: Place) -> Iterator[WorkflowDifference]:
    places = {key: place for place, key in enumerate(after)}
    for place, (key, value) in enumerate(before.items()):
        if key in after:
            yield from _of_values(value, after[key], (*old, place), (*new, places[key]), key)
        else:
            yield WorkflowDifference(pointer=json_pointer((*old, place)), kind="removed", step=key, before=value)
    for key, value in after.items():
        if key not in before:
            yield WorkflowDifference(pointer=json_pointer((*new, places[key])), kind="added", step=key, after=value)
    kept, same = [key for key in before if key in after], [key for key in after if key in before]
    if kept != same:
        yield WorkflowDifference(pointer=json_pointer(new), kind="order", before=kept, after=same)


def _keys_of(value: Json) -> dict[str, Any] | None:
    """Steps by their keys. None for anything else than a list of steps."""
    if not isinstance(value, list) or not all(isinstance(item, dict) and isinstance(item.get("key"), str) for item in value):
        return None
    found = {item["key"]: item for item in value}
    return found if len(found) == len(value) else None
