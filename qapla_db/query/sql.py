"""``session.query(Model)``: SQLAlchemy's Query, which can also do what the interface promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

import sqlalchemy as sa
from sqlalchemy import exc, orm

from qapla_db import query
from qapla_db.errors import Misuse, NotFound
from qapla_db.query import CHUNK
from qapla_db.query.fields import mapper_of

if TYPE_CHECKING:
    from qapla_db.query.changing import Names, Row
    from qapla_db.query.conflicts import OnConflict
    from qapla_db.query.filters import FilterBy, OrderBy
    from qapla_db.query.keyset import KeysetPage
    from qapla_db.query.pages import Page

__all__ = ["Query"]

M = TypeVar("M")


class Query(orm.Query[M]):
    """A query of one model, or of none yet: ``session.query().find(model=Airport)``.

    SQLAlchemy's own methods keep their meaning. Ours take ``model=`` where the
    query has none; those that read respect the filters, joins and options that
    the query has already, and those that write refuse them.
    """

    # --- reading

    def get(self, ident: Any, *, model: type[Any] | None = None) -> M | None:
        """Return the instance with a primary key, or None; one in the session costs no SQL.

        :param ident: the key; a tuple or a mapping of attribute to value where it is composite.
        :param model: the mapped class, where the query has none.
        """
        return self._got("get", ident, model)

    def get_one(self, id: Any, *, model: type[Any] | None = None) -> M:
        """Return the instance with a primary key; one in the session costs no SQL.

        :param id: the key; a tuple or a mapping of attribute to value where it is composite.
        :param model: the mapped class, where the query has none.
        :raises NotFound: there is no such row.
        """
        found = self._got("get_one", id, model)
        if found is None:
            raise NotFound(self._bare("get_one", model), id)
        return found

    @overload
    def find(
        self,
        filter_by: FilterBy = None,
        *,
        model: type[Any] | None = None,
        order_by: OrderBy = None,
        paginate: Literal[True] = True,
        page: int = 1,
        per_page: int = 10,
    ) -> Page[M]: ...

    @overload
    def find(
        self,
        filter_by: FilterBy = None,
        *,
        model: type[Any] | None = None,
        order_by: OrderBy = None,
        paginate: Literal[False],
        page: int = 1,
        per_page: int = 10,
    ) -> list[M]: ...

    def find(
        self,
        filter_by: FilterBy = None,
        *,
        model: type[Any] | None = None,
        order_by: OrderBy = None,
        paginate: bool = True,
        page: int = 1,
        per_page: int = 10,
    ) -> Page[M] | list[M]:
        """Return what answers a filter; see :func:`~qapla_db.query.reading.find`."""
        target = self._select(model)
        if not paginate:
            return query.reading.find(
                self.session, target, filter_by, order_by=order_by, paginate=False
            )
        return query.reading.find(
            self.session, target, filter_by, order_by=order_by, page=page, per_page=per_page
        )

    find_all = find

    def find_one(self, filter_by: FilterBy = None, *, model: type[Any] | None = None) -> M | None:
        """Return the one that answers; see :func:`~qapla_db.query.reading.find_one`."""
        found: M | None = query.reading.find_one(self.session, self._select(model), filter_by)
        return found

    def check_exists(self, filter_by: FilterBy = None, *, model: type[Any] | None = None) -> bool:
        """Tell whether anything answers; see :func:`~qapla_db.query.reading.check_exists`."""
        return query.reading.check_exists(self.session, self._select(model), filter_by)

    def count(self, filter_by: FilterBy = None, *, model: type[Any] | None = None) -> int:
        """Return how many rows answer; without arguments as SQLAlchemy counts."""
        if filter_by is None and model is None and self._raw_columns:
            return super().count()
        return query.reading.count(self.session, self._select(model), filter_by)

    def paginate(
        self,
        page: int | str = 1,
        per_page: int | str = 10,
        *,
        model: type[Any] | None = None,
        max_per_page: int = 100,
        count: bool | int = True,
        error_out: bool = False,
    ) -> Page[M]:
        """Return one page; see :func:`~qapla_db.query.pages.paginate`."""
        return query.pages.paginate(
            self.session,
            self._select(model),
            page=page,
            per_page=per_page,
            max_per_page=max_per_page,
            count=count,
            error_out=error_out,
        )

    def paginate_keyset(
        self,
        order_by: OrderBy,
        *,
        model: type[Any] | None = None,
        after: str | None = None,
        before: str | None = None,
        per_page: int | str = 10,
        max_per_page: int = 100,
    ) -> KeysetPage[M]:
        """Return one page by position; see :func:`~qapla_db.query.keyset.paginate_keyset`."""
        return query.keyset.paginate_keyset(
            self.session,
            self._select(model),
            order_by=order_by,
            after=after,
            before=before,
            per_page=per_page,
            max_per_page=max_per_page,
        )

    def stream(self, chunk: int = 1000, *, model: type[Any] | None = None) -> Iterator[M]:
        """Yield what answers, few at a time; see :func:`~qapla_db.query.streaming.stream`."""
        return query.streaming.stream(self.session, self._select(model), chunk=chunk)

    # --- writing

    def get_or_create(
        self,
        model: type[Any] | Mapping[str, Any] | None = None,
        filter_by: Mapping[str, Any] | None = None,
        **defaults: Any,
    ) -> tuple[M, bool]:
        """Return a row, made if it is missing; see :mod:`~qapla_db.query.creating`.

        :param model: the mapped class, where the query has none; the filter can stand here too.
        :param filter_by: a mapping of field to value.
        :param defaults: what a new instance gets besides.
        """
        if isinstance(model, Mapping) and filter_by is None:
            model, filter_by = None, model
        entity = self._written("get_or_create", model)
        return query.creating.get_or_create(self.session, entity, filter_by, **defaults)

    @overload
    def update(self, instance: M, values: Row) -> M: ...

    @overload
    def update(
        self,
        values: Mapping[Any, Any],
        synchronize_session: Any = "auto",
        update_args: dict[Any, Any] | None = None,
    ) -> int: ...

    def update(self, *args: Any, **options: Any) -> Any:
        """``update(instance, values)``: set its fields. ``update({...})``: SQLAlchemy's own."""
        is_one = "instance" in options or (args and not isinstance(args[0], Mapping | list | tuple))
        if not is_one:
            return super().update(*args, **options)
        _check_is_one("update", *args, **options)
        return query.changing.update(self.session, *args, **options)

    @overload
    def delete(self, instance: M) -> None: ...

    @overload
    def delete(
        self, synchronize_session: Any = "auto", delete_args: dict[Any, Any] | None = None
    ) -> int: ...

    def delete(self, *args: Any, **options: Any) -> Any:
        """``delete(instance)``: delete it. ``delete()``: SQLAlchemy's own, of what answers."""
        is_one = "instance" in options or (args and args[0] is not False)
        if not is_one or (args and isinstance(args[0], str)):
            return super().delete(*args, **options)
        _check_is_one("delete", *args, **options)
        return query.changing.delete(self.session, *args, **options)

    @overload
    def upsert(
        self,
        rows: Row,
        *,
        by: Names,
        update: Names | None = None,
        model: type[Any] | None = None,
    ) -> M: ...

    @overload
    def upsert(
        self,
        rows: Iterable[Row],
        *,
        by: Names,
        update: Names | None = None,
        model: type[Any] | None = None,
    ) -> int: ...

    def upsert(
        self,
        rows: Row | Iterable[Row],
        *,
        by: Names,
        update: Names | None = None,
        model: type[Any] | None = None,
    ) -> Any:
        """Insert or change; see :func:`~qapla_db.query.changing.upsert`."""
        entity: Any = self._written("upsert", model)
        return query.changing.upsert(self.session, entity, rows, by=by, update=update)

    def bulk_update(
        self, rows: Iterable[Row], by: Names | None = None, *, model: type[Any] | None = None
    ) -> int:
        """Change many; see :func:`~qapla_db.query.changing.bulk_update`."""
        return query.changing.bulk_update(
            self.session, self._written("bulk_update", model), rows, by
        )

    def bulk_insert(
        self,
        rows: Iterable[Any],
        *,
        model: type[Any] | None = None,
        on_conflict: OnConflict = "error",
        by: Names | None = None,
        chunk: int = CHUNK,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Store many; see :func:`~qapla_db.query.bulk.bulk_insert`."""
        return query.bulk.bulk_insert(
            self.session,
            self._written("bulk_insert", model),
            rows,
            on_conflict=on_conflict,
            by=by,
            chunk=chunk,
            progress=progress,
        )

    # --- what the query is of

    def _got(self, method: str, ident: Any, model: type[Any] | None) -> M | None:
        found: M | None = self.session.get(
            self._bare(method, model),
            ident,
            options=cast(Any, self._with_options),
            populate_existing=self.load_options._populate_existing,
            with_for_update=self._for_update_arg,
            execution_options=self._reading(),
        )
        return found

    def _reading(self) -> dict[str, Any]:
        """Return the execution options, with those that a Query keeps apart from a select."""
        options = dict(self._execution_options)
        if self.load_options._populate_existing:
            options["populate_existing"] = True
        if not self.load_options._autoflush:
            options["autoflush"] = False
        return options

    def _select(self, model: type[Any] | None) -> sa.Select[Any]:
        if not self._raw_columns:
            statement = self._of(model).statement
        else:
            if model is not None:
                self._check_same(model)
            statement = self.statement
        if not isinstance(statement, sa.Select):
            raise Misuse(
                "this query is made from a statement of its own, which cannot be narrowed, "
                "counted or paged; use session.execute()"
            )
        options = self._reading()
        return statement.execution_options(**options) if options else statement

    def _of(self, model: type[Any] | None) -> Any:
        if model is None:
            raise Misuse(
                "this query is of no model; write session.query(Airport), or name the model: "
                "session.query().find(model=Airport)"
            )
        mapper_of(model)
        return self.add_entity(model)

    def _written(self, method: str, model: type[Any] | Any) -> type[Any]:
        if self._with_options or self._for_update_arg is not None or self._reading():
            raise Misuse(
                f"{method}() would not heed the options of this query, such as with_for_update(); "
                f"begin with a query of the model alone: session.query(Airport).{method}(...)"
            )
        return self._bare(method, model)

    def _bare(self, method: str, model: type[Any] | Any) -> type[Any]:
        if model is not None:
            mapper_of(model)
        elif not self._raw_columns:
            self._of(model)
        try:
            self._no_criterion_assertion(method, order_by=False, distinct=False)
        except exc.InvalidRequestError as error:
            raise Misuse(
                f"{method}() of a query that has conditions already would not heed them; begin "
                f"with a query of the model alone: session.query(Airport).{method}(...)"
            ) from error
        if not self._raw_columns:
            found: type[Any] = model
            return found
        if model is not None:
            self._check_same(model)
        entities = self.column_descriptions
        if len(entities) != 1 or entities[0]["expr"] is not entities[0]["entity"]:
            raise Misuse(f"{method}() needs a query of one mapped class: session.query(Airport)")
        return mapper_of(entities[0]["entity"]).class_

    def _check_same(self, model: type[Any]) -> None:
        mapper_of(model)
        if all(one["entity"] is not model for one in self.column_descriptions):
            raise Misuse(f"this query is not of {model.__name__}; use session.query() with model=")


def _check_is_one(method: str, instance: Any = None, *_: Any, **__: Any) -> None:
    if not isinstance(sa.inspect(instance, raiseerr=False), orm.InstanceState):
        given = "None" if instance is None else type(instance).__name__
        everything = "delete()" if method == "delete" else "update({...})"
        raise Misuse(
            f"{method}() was given {given} for an instance; get_one() raises where there is none. "
            f"What changes all rows that a query answers is {everything}"
        )
