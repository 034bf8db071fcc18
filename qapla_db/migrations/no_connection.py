"""What stands in the place of a connection where revisions are run without a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext

__all__ = ["NoConnection"]

_READS = ("select", "with", "show", "describe", "values", "pragma")


class NoConnection:
    """Stands in the place of ``op.get_bind()``: writes are noted, reads find no rows.

    :param context: what writes SQL down.
    :param hide: is told what cannot be shown.
    """

    def __init__(self, context: MigrationContext, hide: Callable[[str], object]) -> None:
        self._context = context
        self._hide = hide
        self.dialect = context.dialect

    def __enter__(self) -> NoConnection:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self) -> NoConnection:
        return self

    @property
    def engine(self) -> NoConnection:
        return self

    @property
    def name(self) -> str:
        return self.dialect.name

    def begin_nested(self) -> AbstractContextManager[None]:
        return nullcontext()

    def in_transaction(self) -> bool:
        return True

    def exec_driver_sql(self, statement: str, parameters: Any = None, **_: Any) -> _NoRows:
        if parameters:
            raise _NeedsConnection("a statement with parameters of the driver")
        return self.execute(sa.text(statement.replace(":", r"\:")))

    def execute(self, statement: Any, parameters: Any = None, **_: Any) -> _NoRows:
        first = str(statement).lstrip("( \n").split(maxsplit=1)[:1]
        if first and first[0].lower() in _READS:
            self._hide("it reads rows, and what it does with them is not known")
            return _NoRows()
        for one in _with_parameters(statement, parameters):
            self._context.impl._exec(one)
        return _NoRows()

    def scalar(self, statement: Any, parameters: Any = None, **_: Any) -> Any:
        return self.execute(statement, parameters).scalar()

    def scalars(self, statement: Any, parameters: Any = None, **_: Any) -> _NoRows:
        return self.execute(statement, parameters)

    def _run_ddl_visitor(self, *args: Any, **options: Any) -> None:
        connection: Any = self._context.connection  # Alembic's, which writes SQL down
        connection._run_ddl_visitor(*args, **options)

    def __getattr__(self, name: str) -> Any:
        raise _NeedsConnection(name)


def _with_parameters(statement: Any, parameters: Any) -> list[Any]:
    if not parameters:
        return [statement]
    rows: Sequence[Mapping[str, Any]]
    rows = [parameters] if isinstance(parameters, Mapping) else parameters
    if isinstance(statement, sa.TextClause):
        return [statement.bindparams(**row) for row in rows]
    if isinstance(statement, sa.Insert):
        return [statement.values(dict(row)) for row in rows]
    return [statement.params(dict(row)) for row in rows]


class _NeedsConnection(AttributeError):
    """A revision asks a connection for something that there is none to give."""

    def __init__(self, what: str) -> None:
        super().__init__(f"it needs a connection: {what}")


class _NoRows:
    """The result of a query in a database that has no rows."""

    rowcount = 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def all(self) -> list[Any]:
        return []

    def first(self) -> None:
        return None

    fetchall, fetchone, one_or_none, scalar, scalar_one_or_none = all, first, first, first, first

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return []

    partitions = fetchmany

    def mappings(self) -> _NoRows:
        return self

    scalars = mappings

    def __getattr__(self, name: str) -> Any:
        raise _NeedsConnection(f"{name} of a result")
