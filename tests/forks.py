"""A program that forks, started by test_fork: ``python -m tests.forks URL SCENARIO...``.

It prints one JSON object: what each scenario saw.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa

from qapla_db import Database, Session
from tests.support import SmallApplication, make_application

WHO = {
    "postgresql": "SELECT pg_backend_pid()",
    "mariadb": "SELECT connection_id()",
    "sqlite": "SELECT 0",
}
INSERT = sa.text("INSERT INTO visit (who) VALUES (:who)")


def identity(session: Session) -> object:
    """The server's name for a session's connection."""
    return session.scalar(sa.text(WHO[session.get_bind().dialect.name]))


def try_inherited(session: Session) -> str:
    """What happens to a child that goes on with a session of its parent."""
    try:
        return f"answered {session.scalar(sa.text('SELECT 1'))}"
    except Exception as error:
        return type(error).__name__


def visit(database: Database, inherited: Session | None, who: str) -> dict[str, object]:
    """What a child does: go on with the parent's session, and use one of its own."""
    found = {"inherited": "unused"}
    if inherited is not None:
        found["inherited"] = try_inherited(inherited)
        inherited.abandon()
    with database.transaction() as session:
        session.execute(INSERT, {"who": who})
        return {**found, "own": identity(session)}


def fork_in_c() -> int:
    """Fork as a server written in C does, without a word to Python."""
    return int(ctypes.CDLL(None).fork())


def end(ending: str, app: SmallApplication) -> None:
    """End a child in one of the ways."""
    if ending == "close":
        app.close()
    elif ending == "dispose":
        app.dbs["main"].dispose()
    sys.stdout.flush()
    if ending in ("_exit", "in c"):
        os._exit(0)
    sys.exit()


def with_fork(app: SmallApplication, ending: str) -> object:
    """Fork beside an idle connection and an open session, and use both afterwards."""
    database = app.dbs["main"]
    in_c = ending == "in c"
    # SQLite lets one transaction write at a time: the child could not
    going_on = database.get_session(read_only=database.backend.name == "sqlite")
    before = identity(going_on)
    with database.session(read_only=True) as session:
        idle = identity(session)
    reader, writer = os.pipe()
    child = fork_in_c() if in_c else os.fork()
    if child == 0:
        seen = visit(database, None if in_c else going_on, ending)
        os.write(writer, json.dumps(seen).encode())
        os.close(writer)
        end(ending, app)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        seen = json.loads(pipe.read() or b'{"inherited": "died", "own": null}')
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    same = before == identity(going_on)
    going_on.commit()
    going_on.close()
    with database.session() as session:
        same_idle = identity(session) in (before, idle)
        stored = session.scalar(sa.text("SELECT count(*) FROM visit WHERE who = :w"), {"w": ending})
    own = seen["own"] not in (before, idle) or database.backend.name == "sqlite"
    return {
        "code": code,
        "inherited": seen["inherited"],
        "own connection": own,
        "parent's session": same,
        "parent's pool": same_idle,
        "stored": stored,
    }


def with_c_fork_unused(app: SmallApplication, ending: str) -> object:
    """Fork in C code; the child closes what it never used, and the parent goes on."""
    database = app.dbs["main"]
    with database.session(read_only=True) as session:
        idle = identity(session)
    child = fork_in_c()
    if child == 0:
        try:
            if ending == "close":
                app.close()
            else:
                database.dispose()
        finally:
            os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with database.session(read_only=True) as session:
        return {"code": code, "parent's pool": idle == identity(session)}


def with_generations(app: SmallApplication) -> object:
    """A child that has used its pool forks a child of its own."""
    database = app.dbs["main"]
    with database.session(read_only=True) as session:
        seen = [identity(session)]
    reader, writer = os.pipe()
    for generation in range(2):
        child = os.fork()
        if child != 0:
            break
        with database.transaction() as session:
            session.execute(INSERT, {"who": str(generation)})
            os.write(writer, f"{identity(session)} ".encode())
    os.close(writer)
    if child != 0:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if generation > 0:
            os._exit(code)
    else:
        end("exit", app)
    with os.fdopen(reader) as pipe:
        seen += map(int, pipe.read().split())
    with database.session() as session:
        visitors = list(session.scalars(sa.text("SELECT who FROM visit WHERE who < '9'")))
    return {"code": code, "connections": len(set(seen)), "visitors": sorted(visitors)}


_application: Any = None


def ask(number: int) -> bool:
    """Whether a question to the database gets its own answer."""
    with _application.dbs["main"].session(read_only=True) as session:
        return bool(number == session.scalar(sa.text("SELECT :n + 0"), {"n": number}))


def with_multiprocessing(app: SmallApplication) -> object:
    """Four processes and the parent ask at once; every answer belongs to its question."""
    global _application
    _application = app
    assert ask(0)
    right: list[bool] = []
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        answers = pool.map_async(ask, range(1000, 1500), chunksize=10)
        thread = threading.Thread(target=lambda: right.extend(map(ask, range(100))))
        thread.start()
        right += answers.get(60)
        thread.join(60)
        pool.close()
        pool.join()
    return {"answers": len(right), "right": sum(right)}


def main(url: str, *scenarios: str) -> None:
    """Run the scenarios and print what they saw."""
    special: dict[str, Callable[[SmallApplication], object]] = {
        "generations": with_generations,
        "multiprocessing": with_multiprocessing,
        "unused close in c": partial(with_c_fork_unused, ending="close"),
        "unused dispose in c": partial(with_c_fork_unused, ending="dispose"),
    }
    with make_application({"main": url}) as app:
        seen = {
            one: special[one](app) if one in special else with_fork(app, one) for one in scenarios
        }
        print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
