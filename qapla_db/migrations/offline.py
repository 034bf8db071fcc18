"""What revisions would do, seen without a database: their operations and their SQL."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
from qapla_db.migrations.no_connection import NoConnection

__all__ = ["Call", "Emitted", "SeenRevision", "see"]

Choose = Callable[[ScriptDirectory], Iterable[Script]]


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
class SeenRevision:
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
    running: list[MigrateOperation | None] = field(default_factory=list)
    """The operations that write SQL now; None stands for those of a batch."""

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


def see(database: Database, choose: Choose) -> list[SeenRevision]:
    """Run the ``upgrade()`` of revisions without a database and return what they ask for.

    :param database: a prepared database; it need not exist, nothing is connected to.
    :param choose: picks the revisions, in the order in which they are run.
    :raises MigrationError: the migrations directory is broken, or a revision unknown.
    """
    seen: list[SeenRevision] = []

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


def _seen(context: MigrationContext, script: Script) -> SeenRevision:
    seen = SeenRevision(script, context.dialect, in_transaction=context.impl.transactional_ddl)
    with _recording(context, seen):
        try:
            script.module.upgrade()
        except KeyboardInterrupt:  # of a person at the keyboard
            raise
        except BaseException as error:  # sys.exit() too, which is of the revision's
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
def _recording(context: MigrationContext, seen: SeenRevision) -> Iterator[None]:
    operations: Operations = vars(op)["_proxy"]
    heard = {
        "invoke": _listening(operations.invoke, seen),
        "get_bind": lambda: NoConnection(context, seen.hide),
        "batch_alter_table": _batches(operations.batch_alter_table, seen),
    }
    write, impl = context.impl.static_output, vars(context.impl)

    def output(text: str) -> None:
        _emitted(seen, text.strip().rstrip(";").rstrip())
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


def _emitted(seen: SeenRevision, sql: str) -> None:
    if sql in ("BEGIN", "COMMIT"):
        seen.in_transaction = sql == "BEGIN"
    if not seen.running:  # past the operations: on a connection, or the context itself
        seen.calls.append(Call(ExecuteSQLOp(sql), seen.line(), seen.in_transaction))
    is_raw = not seen.running or isinstance(seen.running[-1], ExecuteSQLOp)
    seen.emitted.append(Emitted(sql, seen.line(), seen.in_transaction, is_raw))


def _listening(invoke: Callable[..., Any], seen: SeenRevision) -> Callable[[MigrateOperation], Any]:
    def invoke_and_note(operation: MigrateOperation) -> Any:
        seen.calls.append(Call(operation, seen.line(), seen.in_transaction))
        seen.running.append(operation)
        try:
            return invoke(operation)
        except sa.exc.CompileError as error:  # a value whose type the revision does not say
            seen.hide(f"its SQL cannot be written down ({_words(error)})")
            return None
        finally:
            seen.running.pop()

    return invoke_and_note


def _batches(
    batch_alter_table: Callable[..., AbstractContextManager[BatchOperations]], seen: SeenRevision
) -> Callable[..., AbstractContextManager[BatchOperations]]:
    @contextmanager
    def batch(table_name: str, *args: Any, **options: Any) -> Iterator[BatchOperations]:
        reached = False
        try:
            with batch_alter_table(table_name, *args, **options) as operations:
                vars(operations)["invoke"] = _listening(operations.invoke, seen)
                yield operations
                reached = True
                seen.running.append(None)
        except CommandError:
            if not reached:
                raise
            seen.hide(f"the table {table_name!r} is made anew, from what the database has of it")
        finally:
            if reached:
                seen.running.pop()

    return batch
