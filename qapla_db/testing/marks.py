"""What the marks of a test say: ``real_commit`` and ``database``."""

from __future__ import annotations

import pytest

from qapla_db.errors import Misuse
from qapla_db.testing.isolation import Needs
from qapla_db.testing.run import TestRun

__all__ = ["needs_of", "reported_by"]


def needs_of(
    node: pytest.Item | pytest.Collector,
    database_key: str,
    *,
    strict: bool,
    allowed_threads: tuple[str, ...] | str = (),
) -> Needs:
    """Return what a test, or a class for its rows, says that it needs.

    The marks ``database`` of the test, its class and its module add up.

    :param database_key: the database of ``dbsession``, which a test names without a mark.
    :param strict: without a mark that is the only one that it may use.
    :raises Misuse: a mark names no database, or has arguments that it does not take.
    """
    marks = list(node.iter_markers("database"))
    names = [name for mark in marks for name in mark.args]
    if marks and (not names or not all(isinstance(name, str) for name in names)):
        wrong = next((repr(name) for name in names if not isinstance(name, str)), "none")
        raise Misuse(
            f"{node.nodeid} has a mark 'database' that names {wrong}; write the names as text, "
            f"such as @pytest.mark.database({database_key!r})"
        )
    real_commit = node.get_closest_marker("real_commit")
    if real_commit is not None and (real_commit.args or real_commit.kwargs):
        raise Misuse(
            f"{node.nodeid} has a mark 'real_commit' with arguments, and it takes none: leave the "
            "mark away where commits are not to be real"
        )
    if isinstance(allowed_threads, str):
        raise Misuse(
            f"the allowed threads of {node.nodeid} are the text {allowed_threads!r}; write a tuple "
            f"of beginnings of names: ({allowed_threads!r},)"
        )
    if not marks and strict:
        names = [database_key]
    return Needs(
        real_commit=real_commit is not None,
        databases=tuple(dict.fromkeys(names)) or None,
        allowed_threads=tuple(allowed_threads),
        test=node.nodeid,
    )


def reported_by(run: TestRun, config: pytest.Config) -> TestRun:
    """Let a run know what pytest reports, and return it."""
    if not config.pluginmanager.is_registered(run.reports):
        config.pluginmanager.register(run.reports)
    return run
