"""Arrays in PostgreSQL's binary format, put together from elements that were encoded one by one.

The driver's own array dumper costs about a microsecond for each element, and an append has a dozen. Here every caller encodes its
own elements, so that a bad value is the error of its own caller, and the batch is a `join`.

Format: dimensions, has-null flag, element type, then per dimension length and lower bound, then each element as length and bytes
(`array_send` in PostgreSQL's src/backend/utils/adt/arrayfuncs.c).
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, ClassVar
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format

_header = struct.Struct(">iiIii").pack
_length = struct.Struct(">i").pack
_int2 = struct.Struct(">ih").pack
_int4 = struct.Struct(">ii").pack
_int8 = struct.Struct(">iq").pack
UUID_LENGTH = _length(16)
"""Stands before the 16 bytes of each element of a `uuid[]`."""


def uuid_element(value: UUID) -> bytes:
    return UUID_LENGTH + value.int.to_bytes(16)


@lru_cache(maxsize=4_096)
def length_prefix(length: int) -> bytes:
    return _length(length)


def bytes_element(value: bytes) -> bytes:
    """For bytea, and for text encoded in UTF-8."""
    return length_prefix(len(value)) + value


@lru_cache(maxsize=4_096)
def int2_element(value: int) -> bytes:
    return _int2(2, value)


@lru_cache(maxsize=4_096)
def int4_element(value: int) -> bytes:
    return _int4(4, value)


@lru_cache(maxsize=4_096)
def int8_element(value: int) -> bytes:
    return _int8(8, value)


@lru_cache(maxsize=4_096)
def _array_header(element_oid: int, count: int) -> bytes:
    return _header(1, 0, element_oid, count, 1)


class EncodedArray(bytes):
    """An array parameter in binary form. The class tells a cursor the type; a statement with known types takes the bytes alone."""

    array_oid: ClassVar[int]
    element_oid: ClassVar[int]

    @classmethod
    def encoded(cls, elements: Iterable[bytes], count: int) -> bytes:
        """`elements`: pieces that hold one or more encoded elements each; `count`: how many elements they hold together."""
        return _array_header(cls.element_oid, count) + b"".join(elements)

    @classmethod
    def of(cls, elements: Iterable[bytes], count: int) -> "EncodedArray":
        """As `encoded`, for a cursor."""
        return cls(cls.encoded(elements, count))


class UuidArray(EncodedArray):
    array_oid, element_oid = 2951, 2950


class TextArray(EncodedArray):
    array_oid, element_oid = 1009, 25


class ByteaArray(EncodedArray):
    array_oid, element_oid = 1001, 17


class Int2Array(EncodedArray):
    array_oid, element_oid = 1005, 21


class Int4Array(EncodedArray):
    array_oid, element_oid = 1007, 23


class Int8Array(EncodedArray):
    array_oid, element_oid = 1016, 20


class _EncodedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


_DUMPERS = {
    array: type(f"{array.__name__}Dumper", (_EncodedDumper,), {"oid": array.array_oid})
    for array in (UuidArray, TextArray, ByteaArray, Int2Array, Int4Array, Int8Array)
}


def register_arrays(connection: AsyncConnection[Any] | Connection[Any]) -> None:
    """Lets a connection, and the cursors made from it afterwards, take the arrays of this module as parameters."""
    for array, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(array, dumper)
