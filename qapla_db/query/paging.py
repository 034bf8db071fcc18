"""What every way of paging needs: its select and its numbers checked, its rows fetched."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, Session, UserDefinedOption
from sqlalchemy.orm.util import AliasedInsp, LoaderCriteriaOption
from sqlalchemy.sql.base import ExecutableOption

from qapla_db.errors import InvalidArgument, Misuse
from qapla_db.query.identity import eager_collection, has_limit

__all__ = ["LARGEST", "checked_select", "criteria", "fetched", "positive", "size_of"]

LARGEST = 2**63 - 1
"""The largest LIMIT and OFFSET that a database takes."""


def criteria(statement: sa.Select[Any]) -> list[ExecutableOption]:
    """Return the options of a select that say which rows it has, for one that is put around it.

    These are ``with_loader_criteria()``, and options of one's own, which a listener may read.
    """
    kinds = (LoaderCriteriaOption, UserDefinedOption)
    return [option for option in statement._with_options if isinstance(option, kinds)]


def fetched(session: Session, statement: sa.Select[Any]) -> tuple[list[Any], bool]:
    """Run a select; return instances, values or rows, and whether each is a row of the database.

    A select of one thing gives that thing, a select of several gives rows. Only what
    joined eager loading has multiplied is made unique: of equal rows none gets lost.
    """
    result = session.execute(statement)
    multiplied = result._unique_filter_state is not None
    if multiplied:
        result = result.unique()
    if len(statement.column_descriptions) == 1:
        return list(result.scalars()), not multiplied
    return list(result), not multiplied


def size_of(per_page: Any, max_per_page: Any) -> int:
    """Return how many items to a page, and no more than a database can be asked for.

    :raises InvalidArgument: one of them is no whole number of at least 1.
    """
    asked = positive("per_page", per_page), positive("max_per_page", max_per_page)
    return min(*asked, LARGEST - 1)


def positive(name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    :param name: the argument's name, for the error.
    :param value: an int, or a string of decimal digits as a query string has it.
    :raises InvalidArgument: it is neither, or below 1.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgument(f"{name} is a whole number of at least 1, not {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def checked_select(target: Any) -> sa.Select[Any]:
    """Return the select of a target, which is one already or a mapped class.

    :raises Misuse: it is neither.
    :raises InvalidArgument: it has a LIMIT, OFFSET or FETCH, or fills a collection
        from its rows, which pages would cut.
    """
    if isinstance(sa.inspect(target, raiseerr=False), Mapper | AliasedInsp):
        return sa.select(target)
    statement = target
    if not isinstance(statement, sa.Select):
        given = target if isinstance(target, type) else type(target)
        raise Misuse(
            "a mapped class or a select() is needed, such as Airport or select(Airport), not "
            f"{given.__name__}; a union or a text goes into one: select(union.subquery())"
        )
    if has_limit(statement):
        raise InvalidArgument(
            "this select has a LIMIT or OFFSET of its own, which pages would replace; leave it "
            "out, or put it into a subquery: select(aliased(Airport, statement.subquery()))"
        )
    collection = eager_collection(statement)
    if collection is not None:
        raise InvalidArgument(
            f"contains_eager() fills {collection} from the rows of this select, and a page would "
            "have a part of them; load the collection with selectinload(), and filter by EXISTS"
        )
    return statement
