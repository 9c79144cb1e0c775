"""Persistent maps for states that grow: a changed map shares all but a few nodes with the map from which it was made.

So an event costs the same whether the state holds ten entries or ten thousand, and several states of one stream need hardly more
memory than one. The maps keep no order. A stored map has the order of its keys, in every process.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

from immutables import Map
from immutables._version import __version__
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

K = TypeVar("K")
V = TypeVar("V")

MAP_VERSION = f"immutables {__version__}"
"""The library behind the maps. A snapshot is used only under the version that wrote the snapshot."""


class _AsObject:
    """Stores a map as a JSON object, and reads the object as a map."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        key, value = get_args(source)
        stored = core_schema.dict_schema(handler.generate_schema(key), handler.generate_schema(value))
        in_order = core_schema.plain_serializer_function_ser_schema(_in_order, return_schema=stored)
        return core_schema.no_info_after_validator_function(Map, stored, serialization=in_order)


def _in_order(state: Mapping[Any, Any]) -> dict[Any, Any]:
    return dict(sorted(state.items()))


PersistentMap: TypeAlias = Annotated[Map[K, V], _AsObject()]
