"""Structs of thrift's compact protocol, which parquet's page headers and footer are written in.

All fields of a struct are kept, known or not, so that it can be written with only some of them changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.Thrift import TException, TType
from thrift.transport.TTransport import TMemoryBuffer

_DEEPEST = 32  # nesting depth; a parquet footer has about eight


class Field(NamedTuple):
    """A field of a struct, or an element of a list.

    Attributes:
        kind: its ``TType``.
        value: a number, boolean or bytes; a :data:`ThriftStruct`; for a list, its elements.
        of: for a list, the ``TType`` of its elements.
    """

    kind: int
    value: Any
    of: int = TType.STOP


ThriftStruct: TypeAlias = dict[int, Field]
"""Field number -> field."""

I32, I64, LIST, STRING, STRUCT = TType.I32, TType.I64, TType.LIST, TType.STRING, TType.STRUCT


def read_struct(data: bytes) -> tuple[ThriftStruct, int]:
    """Read a struct; return it and its size in bytes.

    Raises:
        ValueError: it is damaged, truncated, or has a field of a type that parquet does not use.
    """
    buffer = TMemoryBuffer(data)
    try:
        found = _read(TCompactProtocol(buffer), TType.STRUCT, 0)
    except (TException, EOFError, LookupError, AssertionError) as error:
        raise ValueError(f"a header is damaged ({str(error) or type(error).__name__})") from None
    return found.value, buffer.cstringio_buf.tell()


def write_struct(struct: ThriftStruct) -> bytes:
    """Return the bytes of a struct."""
    buffer = TMemoryBuffer()
    _write(TCompactProtocol(buffer), Field(TType.STRUCT, struct))
    written: bytes = buffer.getvalue()
    return written


def values(struct: ThriftStruct) -> dict[int, Any]:
    """Return the values of a struct's fields by number; nested structs are converted too."""
    return {number: _plain(field) for number, field in struct.items()}


def _plain(field: Field) -> Any:
    if field.kind == TType.STRUCT:
        return values(field.value)
    if field.kind == TType.LIST:
        return [_plain(Field(field.of, value)) for value in field.value]
    return field.value


_SCALARS = {
    TType.BOOL: "Bool",
    TType.BYTE: "Byte",
    TType.I16: "I16",
    TType.I32: "I32",
    TType.I64: "I64",
    TType.DOUBLE: "Double",
    TType.STRING: "Binary",
}


def _read(protocol: Any, kind: int, depth: int) -> Field:
    if depth > _DEEPEST:
        raise ValueError("a header has too many nested structs")
    if kind == TType.STRUCT:
        struct: ThriftStruct = {}
        protocol.readStructBegin()
        while True:
            _, own, number = protocol.readFieldBegin()
            if own == TType.STOP:
                break
            struct[number] = _read(protocol, own, depth + 1)
            protocol.readFieldEnd()
        protocol.readStructEnd()
        return Field(kind, struct)
    if kind == TType.LIST:
        of, size = protocol.readListBegin()
        elements = [_read(protocol, of, depth + 1).value for _ in range(size)]
        protocol.readListEnd()
        return Field(kind, elements, of)
    read: Callable[[], Any] = getattr(protocol, f"read{_SCALARS[kind]}")
    return Field(kind, read())


def _write(protocol: Any, field: Field) -> None:
    if field.kind == TType.STRUCT:
        protocol.writeStructBegin(None)
        for number, own in sorted(field.value.items()):
            protocol.writeFieldBegin(None, own.kind, number)
            _write(protocol, own)
            protocol.writeFieldEnd()
        protocol.writeFieldStop()
        protocol.writeStructEnd()
    elif field.kind == TType.LIST:
        protocol.writeListBegin(field.of, len(field.value))
        for value in field.value:
            _write(protocol, Field(field.of, value))
        protocol.writeListEnd()
    else:
        getattr(protocol, f"write{_SCALARS[field.kind]}")(field.value)
