"""What revisions would do, seen without a database: their operations and their SQL."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.config import Config
from alembic.operations import BatchOperations, Operations
from alembic.operations.ops import ExecuteSQLOp, MigrateOperation
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import Dialect

from qapla_db.database import Database
from qapla_db.migrations.commands import run_alembic

__all__ = ["Call", "Emitted", "Seen", "see"]

Choose = Callable[[ScriptDirectory], Iterable[Script]]

_READS = ("select", "with", "show", "describe", "values", "pragma")


@dataclass(frozen=True)
class Call:
    """One operation of a revision, with the line of its file that asks for it."""

    operation: MigrateOperation
    line: int | None
    in_transaction: bool


@dataclass(frozen=True)
class Emitted:
    """One statement that a revision would send, with the line of its file."""

    sql: str
    line: int | None
    in_transaction: bool
    is_raw: bool
    """The revision has it as text."""


@dataclass
class Seen:
    """What was seen of one revision."""

    script: Script
    dialect: Dialect
    calls: list[Call] = field(default_factory=list)
    emitted: list[Emitted] = field(default_factory=list)
    hidden: list[tuple[int | None, str]] = field(default_factory=list)
    """What cannot be shown without a database: line and reason."""
    end: int | None = None
    """The line that the rest of the revision could not be seen after; 0 if it is unknown."""
    in_transaction: bool = True

    def line(self) -> int | None:
        """Return the line of the revision's file that is being run."""
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self.script.path:
            frame = frame.f_back
        return None if frame is None else frame.f_lineno

    def hide(self, reason: str, line: int | None = None) -> None:
        """Note what cannot be shown, once for each line."""
        note = (line or self.line(), reason)
        if note not in self.hidden:
            self.hidden.append(note)


def see(database: Database, choose: Choose) -> list[Seen]:
    """Run the ``upgrade()`` of revisions without a database and return what they ask for.

    :param database: a prepared database; it need not exist, nothing is connected to.
    :param choose: picks the revisions, in the order in which they are run.
    :raises MigrationError: the migrations directory is broken, or a revision unknown.
    """
    seen: list[Seen] = []

    def run(config: Config) -> None:
        config.output_buffer = io.StringIO()
        scripts = ScriptDirectory.from_config(config)

        def look(heads: object, context: MigrationContext) -> list[Any]:
            seen.extend(_seen(context, script) for script in choose(scripts))
            return []

        with EnvironmentContext(config, scripts, fn=look, as_sql=True, destination_rev="head"):
            scripts.run_env()

    run_alembic(database, run)
    return seen


def _seen(context: MigrationContext, script: Script) -> Seen:
    seen = Seen(script, context.dialect, in_transaction=context.impl.transactional_ddl)
    with _recording(context, seen):
        try:
            script.module.upgrade()
        except Exception as error:
            line = _line_of(error, script.path)
            seen.end = line or 0
            seen.hide(f"it ends here without a database ({_words(error)})", line)
    return seen


def _line_of(error: BaseException, path: str) -> int | None:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return lines[-1] if lines else None


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


# --- the operations of Alembic, listened to


@contextmanager
def _recording(context: MigrationContext, seen: Seen) -> Iterator[None]:
    operations: Operations = vars(op)["_proxy"]
    heard = {
        "invoke": _listening(operations.invoke, seen),
        "get_bind": lambda: _NoConnection(context, seen),
        "batch_alter_table": _batches(operations.batch_alter_table, seen),
    }
    write, impl = context.impl.static_output, vars(context.impl)

    def output(text: str) -> None:
        sql = text.strip().rstrip(";").rstrip()
        if sql in ("BEGIN", "COMMIT"):
            seen.in_transaction = sql == "BEGIN"
        seen.emitted.append(Emitted(sql, seen.line(), seen.in_transaction, _is_raw(seen)))
        write(text)

    vars(operations).update(heard)
    operations._install_proxy()  # the functions of the module op are made anew
    impl["static_output"] = output
    try:
        yield
    finally:
        del impl["static_output"]
        for name in heard:
            del vars(operations)[name]
        operations._install_proxy()


def _is_raw(seen: Seen) -> bool:
    last = seen.calls[-1].operation if seen.calls else None
    return last is None or isinstance(last, ExecuteSQLOp)


def _listening(invoke: Callable[..., Any], seen: Seen) -> Callable[[MigrateOperation], Any]:
    def invoke_and_note(operation: MigrateOperation) -> Any:
        seen.calls.append(Call(operation, seen.line(), seen.in_transaction))
        try:
            return invoke(operation)
        except sa.exc.CompileError as error:  # a value whose type the revision does not say
            seen.hide(f"its SQL cannot be written down ({_words(error)})")
            return None

    return invoke_and_note


def _batches(
    batch_alter_table: Callable[..., AbstractContextManager[BatchOperations]], seen: Seen
) -> Callable[..., AbstractContextManager[BatchOperations]]:
    @contextmanager
    def batch(table_name: str, *args: Any, **options: Any) -> Iterator[BatchOperations]:
        reached = False
        try:
            with batch_alter_table(table_name, *args, **options) as operations:
                vars(operations)["invoke"] = _listening(operations.invoke, seen)
                yield operations
                reached = True
        except CommandError:
            if not reached:
                raise
            seen.hide(f"the table {table_name!r} is made anew, from what the database has of it")

    return batch


class _NoConnection:
    """Stands in the place of ``op.get_bind()``: writes are noted, reads find no rows."""

    def __init__(self, context: MigrationContext, seen: Seen) -> None:
        self._context = context
        self._seen = seen
        self.dialect = context.dialect

    def __enter__(self) -> _NoConnection:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self) -> _NoConnection:
        return self

    @property
    def engine(self) -> _NoConnection:
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
        first = str(statement).lstrip("( \n").partition(" ")[0].lower()
        if first.strip() in _READS:
            self._seen.hide("it reads rows, and what it does with them is not known")
            return _NoRows()
        for one in _with_parameters(statement, parameters):
            self._seen.calls.append(_raw_call(one, self._seen))
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


def _raw_call(statement: Any, seen: Seen) -> Call:
    return Call(ExecuteSQLOp(statement), seen.line(), seen.in_transaction)


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
