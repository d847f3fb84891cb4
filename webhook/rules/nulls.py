"""
Nulls as the API server reads them: a field that is null is absent, a null in a list or map is the empty value.

Go's decoder leaves a field that is null as it was, and puts the zero value where a null stands in a list or in a map:
`labels: {app: null}` is stored with `app: ""`. The types that decisions are read with take no nulls there, which is
fastest; where one of them refuses a document, it is read once more by its twin, which takes a null for everything.

https://pkg.go.dev/encoding/json#Unmarshal ("The JSON null value unmarshals into … has no effect")
"""

import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Union

import msgspec

_UNIONS: Final = (Union, types.UnionType)
Rebuild = Callable[[Any], Any]
"""What makes a value of the twin a value of the type itself."""


@cache
def decoder(kind: Any) -> Callable[[bytes | msgspec.Raw], Any]:
    """
    Return what reads JSON as *kind*, nulls as the API server does.

    Raises (the function that is returned):
        msgspec.MsgspecError: It is no such JSON, with the field's path.

    """
    strict = msgspec.json.Decoder(kind)

    def read(text: bytes | msgspec.Raw) -> Any:
        try:
            return strict.decode(text)
        except msgspec.ValidationError:
            if b"null" not in bytes(text):
                raise
        return tolerant(kind)(text)

    return read


@cache
def tolerant(kind: Any) -> Callable[[bytes | msgspec.Raw], Any]:
    """Return what reads JSON as *kind*'s twin and makes a *kind* of it: the second half of what `decoder` does."""
    twin, rebuild, _ = _twin(kind)
    decode = msgspec.json.Decoder(twin).decode
    return lambda text: rebuild(decode(text))


def _twin(kind: Any) -> tuple[Any, Rebuild, Any]:
    """Return the type that takes a null wherever *kind* might hold one, the way back, and what a null stands for."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        return _union(arguments)
    if origin is list:
        twin, rebuild, empty = _twin(arguments[0])
        return list[twin | None], lambda value: [_or(each, empty, rebuild) for each in value], []  # type: ignore[valid-type]
    if origin is dict:
        twin, rebuild, empty = _twin(arguments[1])
        entries = dict[arguments[0], twin | None]  # type: ignore[valid-type]
        return entries, lambda value: {key: _or(each, empty, rebuild) for key, each in value.items()}, {}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return (*_struct(kind), _MISSING if _needs(kind) else kind())
    if kind in {str, int, bool, float}:
        return kind, _same, kind()
    return kind, _same, None  # Raw, Literal, Any, an Enum: as they are


class _Missing:
    pass


_MISSING: Final = _Missing()


def _same(value: Any) -> Any:
    return value


def _or(value: Any, empty: Any, rebuild: Rebuild) -> Any:
    if value is not None:
        return rebuild(value)
    if isinstance(empty, _Missing):
        raise msgspec.ValidationError("Expected `object`, got `null`")
    return empty


def _union(arguments: tuple[Any, ...]) -> tuple[Any, Rebuild, Any]:
    """Of several Structs the tag tells which it is; an optional type is its own twin but for what is below it."""
    others = tuple(each for each in arguments if each is not types.NoneType)
    twins = [_twin(each) for each in others]
    optional = len(others) < len(arguments)
    whole: Any = Union[(*(twin for twin, _, _ in twins), *((None,) if optional else ()))]
    by_type = {twin: rebuild for twin, rebuild, _ in twins if isinstance(twin, type)}

    def rebuild(value: Any) -> Any:
        if value is None:
            return None
        found = by_type.get(type(value))
        return found(value) if found is not None else twins[0][1](value)

    return whole, rebuild, None if optional else _MISSING


def _needs(kind: type[msgspec.Struct]) -> bool:
    """Whether a field of *kind* must be there."""
    return any(field.required for field in msgspec.structs.fields(kind))


@cache
def _struct(kind: type[msgspec.Struct]) -> tuple[type[msgspec.Struct], Rebuild]:
    fields, builders = [], []
    for field in msgspec.structs.fields(kind):
        twin, rebuild, _ = _twin(field.type)
        raw = field.type is msgspec.Raw
        optional = twin if raw else twin | None
        if field.required:
            fields.append((field.name, twin, msgspec.field(name=field.encode_name)))
        else:
            default: Any = field.default if raw else None
            fields.append((field.name, optional, msgspec.field(default=default, name=field.encode_name)))
        builders.append((field.name, rebuild))
    config = kind.__struct_config__
    twin = msgspec.defstruct(
        f"Nullable{kind.__name__}", fields, tag=config.tag, tag_field=config.tag_field, frozen=True, kw_only=True
    )

    def build(value: Any) -> Any:
        given = ((name, rebuild, getattr(value, name)) for name, rebuild in builders)
        return kind(**{name: rebuild(each) for name, rebuild, each in given if each is not None})

    return twin, build
