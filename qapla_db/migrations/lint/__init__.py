"""What is unsafe in revisions that run while the database is in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from alembic.operations import ops
from alembic.script import Script, ScriptDirectory

from qapla_db.database import Database
from qapla_db.errors import MigrationError
from qapla_db.migrations.lint.allowed import comments
from qapla_db.migrations.lint.operations import created_by, risks_of
from qapla_db.migrations.lint.rules import ALLOW, NOT_SEEN, RULES, SAY, Risk, rule_for
from qapla_db.migrations.lint.squawk import OURS, Remark, remarks
from qapla_db.migrations.offline import Call, SeenRevision, see
from qapla_db.migrations.sqltext import created_in

__all__ = ["Finding", "lint"]


@dataclass(frozen=True)
class Finding:
    """Something unsafe in a revision.

    :param revision: the revision's id.
    :param path: its file.
    :param line: the line of the operation; None when it is not known.
    :param rule: the rule's name, as a comment that allows it has it.
    :param message: what is unsafe.
    :param remedy: what to do instead.
    """

    revision: str
    path: str
    line: int | None
    rule: str
    message: str
    remedy: str

    def as_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)


def lint(database: Database, revisions: Iterable[str] | None = None) -> list[Finding]:
    """Look for what is unsafe, online, in what revisions do.

    Their ``upgrade()`` is run without a database: nothing is connected to, nothing
    executed. The operations are judged for the kind of database that the settings
    name, and SQL that a revision has as text in the plain cases; where ``squawk`` is
    installed it is asked too (PostgreSQL). A comment in a revision's file allows a
    rule there, for a reason: ``# qapla: allow drop-column, nobody reads it since 3.2``.

    :param database: a prepared database; it need not exist.
    :param revisions: ids of the revisions to look at, whole or as far as they are
        unique, or ``head``; all of them when it is not given.
    :returns: what was found, in the order of the revisions and lines.
    :raises MigrationError: a revision is unknown, or the migrations directory is broken.
    """
    wanted = None if revisions is None else list(revisions)

    def choose(scripts: ScriptDirectory) -> list[Script]:
        everything = list(scripts.walk_revisions())[::-1]
        if wanted is None:
            return everything
        chosen: set[str] = set()
        for one in wanted:
            # of "-9" it may be None or a text, where there are not so many
            found: tuple[object, ...] = scripts.get_revisions(one)
            known = {script.revision for script in found if isinstance(script, Script)}
            if len(known) < len(found):
                raise MigrationError(
                    f"the database {database.name!r} has no revision {one!r} to look at in "
                    f"{scripts.dir}; 'qapla-db history {database.name}' lists what there is"
                )
            chosen |= known
        return [script for script in everything if script.revision in chosen]

    return [finding for seen in see(database, choose) for finding in _findings(seen)]


def _findings(seen: SeenRevision) -> list[Finding]:
    ours = [*_risks(seen), *_not_seen(seen)]
    found = [one for risk, line in ours if (one := _finding(seen, risk, line))]
    found += [_remarked(seen, remark) for remark in _remarks(seen) if _is_news(remark, ours)]
    silenced, wrong = _allowed(seen)
    kept = {one: None for one in found if one.rule not in silenced}
    return sorted([*kept, *wrong], key=lambda one: one.line or 0)


def _finding(seen: SeenRevision, risk: Risk, line: int | None) -> Finding | None:
    rule = rule_for(seen.dialect.name, risk.rule)
    if rule is None:
        return None
    message, remedy = rule.message.format(what=risk.what), rule.remedy.replace("{rule}", risk.rule)
    return Finding(seen.script.revision, seen.script.path, line, risk.rule, message, remedy)


def _risks(seen: SeenRevision) -> Iterator[tuple[Risk, int | None]]:
    """Yield the risks that are not about a table which the revision itself has made."""
    new: set[str] = set()
    for call in seen.calls:
        new |= _created(call)
        for risk in risks_of(call, seen.dialect):
            if risk.table not in new:
                yield risk, call.line
            elif risk.rule == "rename-table":
                new.add(risk.what.rpartition(" to ")[2])


def _created(call: Call) -> set[str]:
    if isinstance(call.operation, ops.ExecuteSQLOp):
        return created_in(str(call.operation.sqltext))
    table = created_by(call)
    return {table} if table else set()


def _not_seen(seen: SeenRevision) -> Iterator[tuple[Risk, int | None]]:
    if seen.end is not None:
        line, reason = seen.hidden[-1]
        yield Risk(NOT_SEEN, None, reason), line


# --- squawk


def _remarks(seen: SeenRevision) -> Iterator[Remark]:
    return remarks(seen.emitted if seen.dialect.name == "postgresql" else [])


def _is_news(remark: Remark, ours: list[tuple[Risk, int | None]]) -> bool:
    """Tell whether we have not said it; of operations we know more than their SQL shows."""
    same = OURS.get(remark.rule)
    if same is None:
        return True
    line = remark.statement.line
    return remark.statement.is_raw and not any(
        risk.rule in same and at == line for risk, at in ours
    )


def _remarked(seen: SeenRevision, remark: Remark) -> Finding:
    rule = OURS.get(remark.rule, (remark.rule,))[0]
    line, script = remark.statement.line, seen.script
    remedy = f"{remark.remedy or 'look at it'}; {SAY.replace('{rule}', rule)}"
    return Finding(script.revision, script.path, line, rule, f"{remark.message} (squawk)", remedy)


# --- comments


def _allowed(seen: SeenRevision) -> tuple[set[str], list[Finding]]:
    """Return the rules that comments allow, and what is wrong with comments."""
    allowed, wrong = set[str](), list[Finding]()
    known = {name for rules in RULES.values() for name in rules} - {ALLOW}
    for comment in comments(seen.script.path):
        if comment.verb != "allow":
            continue
        if comment.what and comment.reason:
            allowed.add(comment.what)
            continue
        what = f"'# qapla: allow {comment.what}' gives no reason, so it allows nothing"
        if not comment.what:
            what = f"'# qapla: allow' names no rule; they are {', '.join(sorted(known))}"
        finding = _finding(seen, Risk(ALLOW, None, what), comment.line)
        wrong += [finding] if finding else []
    return allowed, wrong
