"""How tyro reads what was typed for an option, so that a mistake is answered in the words of whoever typed it."""

from dataclasses import replace
from types import NoneType, UnionType
from typing import Union, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

REGISTRY = ConstructorRegistry()
"""Active where it is entered, before tyro's own rules."""

NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}


@REGISTRY.primitive_rule
def _number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    kind = info.type
    if kind not in NUMBERS:
        return None

    def read(words: list[str]) -> int | float:
        try:
            return kind(words[0])
        except ValueError:
            raise ValueError(f"{words[0]} is not {NUMBERS[kind]}.") from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _may_be_left_out(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """T | None is read as T: None is given by leaving the option out."""
    kinds = get_args(info.type) if get_origin(info.type) in (Union, UnionType) else ()
    if len(kinds) != 2 or NoneType not in kinds:
        return None
    kind = kinds[kinds.index(NoneType) - 1]
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
    )
