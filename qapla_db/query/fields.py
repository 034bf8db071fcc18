"""The fields of a model: which there are, and what stands behind a name."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from dataclasses import is_dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, QueryableAttribute, RelationshipProperty
from sqlalchemy.orm.util import AliasedInsp

from qapla_db.errors import InvalidArgument, Misuse, UnknownField

__all__ = [
    "as_stored",
    "attribute",
    "check_arguments",
    "check_fields",
    "check_stored",
    "is_given_by_database",
    "is_loaded_whole",
    "is_rounded",
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
    """Raise an error for the names that the model's constructor does not take, or cannot store.

    Attributes count, and what a constructor of the model's own takes beyond them.

    :raises UnknownField: there is no such attribute or argument.
    :raises InvalidArgument: it is an attribute that cannot be stored.
    """
    mapped = mapper_of(model).all_orm_descriptors
    if any(name not in mapped for name in names):
        known = {*mapped.keys(), *_own_arguments(model)}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UnknownField(model, unknown, sorted(known))
    for name in names:
        if _why_not_stored(model, name) and (
            is_dataclass(model) or name not in _own_arguments(model)
        ):
            check_stored(model, [name])


def check_stored(model: type[Any], names: Iterable[str]) -> None:
    """Raise InvalidArgument for the names whose values would be stored nowhere."""
    for name in names:
        why = _why_not_stored(model, name)
        if why is not None:
            raise InvalidArgument(
                f"{model.__name__}.{name} cannot be set, since it {why}; leave it out, or set what "
                "it is made of"
            )


def _why_not_stored(model: type[Any], name: str) -> str | None:
    mapper = mapper_of(model)
    while name in mapper.synonyms:
        name = mapper.synonyms[name].name
    relationship = mapper.relationships.get(name)
    if relationship is not None and relationship.viewonly:
        return "is a relationship with viewonly=True"
    found = mapper.column_attrs.get(name)
    if found is None:
        return None
    if any(is_given_by_database(column) for column in found.columns):
        return "is given by the database"
    if not isinstance(found.columns[0], sa.ColumnClause):
        return "is an SQL expression"
    return None


def is_given_by_database(column: Any) -> bool:
    """Tell whether no value can be given for a column: it is computed, or an identity always."""
    identity = getattr(column, "identity", None)
    return getattr(column, "computed", None) is not None or bool(identity and identity.always)


def is_rounded(field: QueryableAttribute[Any]) -> bool:
    """Tell whether the database may store another value of a field than the one it is given."""
    kind = field.type
    if isinstance(kind, sa.types.TypeDecorator):
        kind = kind.impl_instance
    return isinstance(kind, sa.Numeric | sa.Float | sa.DateTime | sa.Time)


def as_stored(field: QueryableAttribute[Any], value: Any) -> Any:
    """Return an expression for a value as the database stores it in a field."""
    if value is None or not is_rounded(field):
        return value
    return sa.cast(sa.literal(value, field.type), field.type)


def is_loaded_whole(relationship: RelationshipProperty[Any]) -> bool:
    """Tell whether a relationship is a collection that is loaded and set as a whole."""
    return bool(relationship.uselist) and relationship.lazy not in ("dynamic", "write_only")


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
