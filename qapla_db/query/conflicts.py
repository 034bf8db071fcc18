"""What happens to rows that meet others which exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa

from qapla_db.errors import InvalidArgument, Unsupported
from qapla_db.query.fields import mapper_of
from qapla_db.query.keys import kind_of, unique_key

__all__ = ["OnConflict", "Rule", "rule_of"]

OnConflict: TypeAlias = Literal["error", "ignore", "update"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to a row that meets one which exists.

    :ivar on_conflict: it is an error, or the row is left out, or it changes the other.
    :ivar key: the columns of the unique key that is meant; None: any key.
    :ivar update: the columns to change; None: all that a row gives, but the primary key.
    :ivar kind: what the other has to be, to be changed: of the class; None: anything.
    """

    on_conflict: OnConflict = "error"
    key: tuple[sa.Column[Any], ...] | None = None
    update: tuple[sa.Column[Any], ...] | None = None
    kind: sa.ColumnElement[bool] | None = None


def rule_of(
    model: type[Any],
    on_conflict: OnConflict,
    by: str | Sequence[str] | None,
    update: Sequence[sa.Column[Any]] | None = None,
) -> Rule:
    """Check the arguments that say what happens to rows which exist.

    :param update: the columns to change, for "update".
    :raises InvalidArgument: they do not go together.
    :raises UnknownField: the model has no such field.
    :raises Unsupported: the fields are no unique key, or the model counts its versions.
    """
    if on_conflict not in ("error", "ignore", "update"):
        raise InvalidArgument(f"on_conflict is 'error', 'ignore' or 'update', not {on_conflict!r}")
    if by is None and on_conflict == "update":
        raise InvalidArgument("on_conflict='update' needs by=, the field or fields of a unique key")
    if by is not None and on_conflict == "error":
        raise InvalidArgument("by= is for on_conflict='ignore' or 'update'")
    if on_conflict == "update" and mapper_of(model).version_id_col is not None:
        raise Unsupported(
            f"{model.__name__} counts its versions, which only a flush does; change its "
            "instances instead"
        )
    key = None if by is None else unique_key(model, by)
    if on_conflict != "update":
        return Rule(on_conflict, key)
    return Rule(on_conflict, key, None if update is None else tuple(update), kind_of(model))
