"""The fields of a model: which there are, and what stands behind a name."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, QueryableAttribute
from sqlalchemy.orm.util import AliasedInsp

from qapla_db.errors import Misuse, UnknownField

__all__ = [
    "attribute",
    "check_arguments",
    "check_fields",
    "mapper_of",
    "mapper_read",
    "primary_key",
]


def mapper_of(model: Any) -> Mapper[Any]:
    """Return the mapper of a mapped class.

    :raises Misuse: it is none.
    """
    mapper = sa.inspect(model, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise Misuse(f"a mapped class is needed, such as Airport, not {model!r}")
    return mapper


def mapper_read(entity: Any) -> Mapper[Any]:
    """Return the mapper of what can be read from: a mapped class, or an ``aliased()`` of one.

    :raises Misuse: it is neither.
    """
    inspected = sa.inspect(entity, raiseerr=False)
    return inspected.mapper if isinstance(inspected, AliasedInsp) else mapper_of(entity)


def check_fields(model: type[Any], names: Iterable[str]) -> None:
    """Raise UnknownField for the names that are no attributes of the model."""
    known = mapper_read(model).all_orm_descriptors.keys()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownField(model, unknown, sorted(known))


def check_arguments(model: type[Any], names: Collection[str]) -> None:
    """Raise UnknownField for the names that the model's constructor does not take.

    Attributes count, and what a constructor of the model's own takes beyond them.
    """
    mapped = mapper_of(model).all_orm_descriptors
    if all(name in mapped for name in names):
        return
    known = {*mapped.keys(), *_own_arguments(model)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownField(model, unknown, sorted(known))


def _own_arguments(model: type[Any]) -> list[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(model).parameters.values()
    return [one.name for one in parameters if one.kind not in kinds]


def attribute(model: type[Any], name: str) -> QueryableAttribute[Any]:
    """Return the attribute of a model by its mapped name.

    :raises UnknownField: there is none.
    """
    check_fields(model, [name])
    found: QueryableAttribute[Any] = getattr(model, name)
    return found


def primary_key(model: type[Any]) -> tuple[QueryableAttribute[Any], ...]:
    """Return the attributes of the primary key, in its order."""
    mapper = mapper_of(model)
    return tuple(
        getattr(model, mapper.get_property_by_column(column).key) for column in mapper.primary_key
    )
