"""qapla_db.retry: a request runs again when its database says that this would help."""

from __future__ import annotations

import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from pyramid.response import Response
from pyramid_retry import IRetryableError, RetryableException
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from qapla_db.errors import ConfigurationError
from tests.web.conftest import MakeSite
from tests.web.site import NOTHING_OUT, Note, Site, ok, pool_of, views, write

POSTGRESQL = pytest.mark.parametrize("kind", ["postgresql"])
SQLITE = pytest.mark.parametrize("kind", ["sqlite"])
STRICT = {"qapla_db.retry": "true", "db:main:options": {"isolation_level": "REPEATABLE READ"}}


def _seed(site: Site) -> None:
    with site.dbs["main"].transaction() as session:
        session.add(Note(text="0"))


def _collide(site: Site) -> None:
    """Change the row behind the back of whoever has read it."""
    with site.dbs["main"].transaction() as session:
        session.execute(sa.update(Note).values(text="changed by another"))


class _Collides:
    """A view that loses against another transaction in its first attempts."""

    def __init__(self, losing: int = 2) -> None:
        self.site: Site | None = None
        self.losing = losing
        self.sessions: list[Any] = []

    def __call__(self, request: Any) -> Response:
        assert self.site is not None
        assert NOTHING_OUT == self.site.checked_out()  # the attempt before is over
        self.sessions.append(request.main)
        note = request.main.get_one(Note, 1)
        if len(self.sessions) <= self.losing:
            _collide(self.site)
        note.text = f"attempt {len(self.sessions)}"
        request.main.commit()
        return Response("ok")


def _start(make_site: MakeSite, view: _Collides, settings: dict[str, Any]) -> Site:
    view.site = make_site(views(home=view), settings)
    _seed(view.site)
    return view.site


@POSTGRESQL
def test_a_request_runs_three_times(make_site: MakeSite) -> None:
    """A request that loses twice succeeds in its third attempt, in a session of its own."""
    view = _Collides()
    site = _start(make_site, view, STRICT)
    assert "ok" == site.client().get("/home").text
    assert ["attempt 3"] == site.stored()
    assert 3 == len({id(session) for session in view.sessions})
    assert NOTHING_OUT == site.checked_out()


@POSTGRESQL
def test_the_last_attempt_fails_as_it_is(make_site: MakeSite) -> None:
    """A request that loses every attempt ends in the database's own error."""
    view = _Collides(losing=9)
    site = _start(make_site, view, STRICT)
    with pytest.raises(OperationalError, match="could not serialize access"):
        site.client().get("/home")
    assert 3 == len(view.sessions)
    assert ["changed by another"] == site.stored()
    assert NOTHING_OUT == site.checked_out()


@POSTGRESQL
def test_the_number_of_attempts_is_a_setting(make_site: MakeSite) -> None:
    """retry.attempts of pyramid_retry counts, and the application may include it by itself."""
    view = _Collides(losing=4)

    def configure(config: Any) -> None:
        config.include("pyramid_retry")
        views(home=view)(config)

    view.site = make_site(configure, {**STRICT, "retry.attempts": "5"})
    _seed(view.site)
    view.site.client().get("/home")
    assert ["attempt 5"] == view.site.stored()


@POSTGRESQL
def test_a_failure_at_commit_is_retried(make_site: MakeSite) -> None:
    """A conflict that the server reports only at COMMIT runs the request again as well."""
    attempts: list[int] = []

    def view(request: Any) -> Response:
        attempts.append(request.environ["retry.attempt"])
        text = "fails at commit" if len(attempts) < 3 else "fine"
        write(request, text)
        request.main.commit()
        return Response("ok")

    site = make_site(views(home=view), {"qapla_db.retry": True})
    with site.dbs["main"].engine.begin() as connection:
        connection.execute(sa.text(_FAILS_AT_COMMIT))
    site.client().get("/home")
    assert [0, 1, 2] == attempts
    assert ["fine"] == site.stored()


_FAILS_AT_COMMIT = """
    CREATE OR REPLACE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.text = 'fails at commit' THEN
            RAISE EXCEPTION 'too late' USING ERRCODE = '40001';
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON note
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fails();
"""


@POSTGRESQL
def test_an_exception_view_does_not_end_the_attempts(make_site: MakeSite) -> None:
    """The answer of an exception view to a conflict is thrown away, and the request runs again."""
    view = _Collides()

    def configure(config: Any) -> None:
        views(home=view)(config)
        config.add_exception_view(
            lambda error, request: Response("sorry", status=503), context=DBAPIError
        )

    view.site = make_site(configure, STRICT)
    _seed(view.site)
    assert "ok" == view.site.client().get("/home").text
    assert NOTHING_OUT == view.site.checked_out()


@POSTGRESQL
def test_off_means_off(make_site: MakeSite) -> None:
    """Without the setting pyramid_retry does not know the errors of a database."""
    view = _Collides()

    def configure(config: Any) -> None:
        config.include("pyramid_retry")
        views(home=view)(config)

    view.site = make_site(configure, {**STRICT, "qapla_db.retry": "false"})
    _seed(view.site)
    with pytest.raises(OperationalError):
        view.site.client().get("/home")
    assert 1 == len(view.sessions)


def test_another_error_is_not_retried(make_site: MakeSite) -> None:
    """A duplicate key stays one, however often it is tried; it is tried once."""
    attempts: list[int] = []

    def view(request: Any) -> Response:
        attempts.append(1)
        request.main.add(Note(id=1, text="again"))
        request.main.commit()
        return Response("ok")

    site = make_site(views(home=view), {"qapla_db.retry": "true"})
    _seed(site)
    with pytest.raises(IntegrityError):
        site.client().get("/home")
    assert [1] == attempts
    assert NOTHING_OUT == site.checked_out()


@SQLITE
def test_a_locked_file_is_retried(make_site: MakeSite) -> None:
    """On SQLite a database that another process holds is tried again."""
    holders: list[sqlite3.Connection] = []
    attempts: list[int] = []

    def view(request: Any) -> Response:
        attempts.append(1)
        if len(attempts) == 3:
            holders[0].rollback()
        write(request)
        request.main.commit()
        return Response("ok")

    site = make_site(
        views(home=view),
        {"qapla_db.retry": "on", "db:main:options": {"connect_args": {"timeout": 0.01}}},
    )
    with closing(sqlite3.connect(site.dbs["main"].settings.url.database or "")) as holder:
        holders.append(holder)
        holder.execute("BEGIN IMMEDIATE")
        site.client().get("/home")
    assert 3 == len(attempts)
    assert ["written"] == site.stored()


def test_an_attempt_does_not_wait_for_the_one_before(make_site: MakeSite) -> None:
    """What an attempt has locked is free in the next one, also for a session opened by hand."""
    attempts: list[int] = []

    def view(request: Any) -> Response:
        attempts.append(1)
        assert NOTHING_OUT == site.checked_out()
        if len(attempts) == 1:
            request.main.get_one(Note, 1).text = "locked"
            request.main.flush()
            raise RetryableException
        with site.dbs["main"].transaction() as session:
            session.get_one(Note, 1).text = "free"
        return Response("ok")

    site = make_site(views(home=view), {"qapla_db.retry": "true"})
    _seed(site)
    site.client().get("/home")
    assert ["free"] == site.stored()


def test_a_discarded_attempt_is_not_warned_about(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """What a failed attempt wrote was meant to be lost: no commit is missing."""
    attempts: list[int] = []

    def view(request: Any) -> Response:
        attempts.append(1)
        if len(attempts) == 1:
            write(request)
            raise RetryableException
        return Response("ok")

    make_site(views(home=view), {"qapla_db.retry": "true"}).client().get("/home")
    assert 2 == len(attempts)
    assert [] == [record for record in caplog.records if record.name == "qapla_db"]


@POSTGRESQL
def test_only_errors_of_requests_are_marked(make_site: MakeSite) -> None:
    """A conflict in a script or a task of the same process stays an ordinary error."""
    view = _Collides()
    site = _start(make_site, view, STRICT)
    site.client().get("/home")
    with site.dbs["main"].session() as session:
        note = session.get_one(Note, 1)
        _collide(site)
        note.text = "by hand"
        with pytest.raises(OperationalError) as caught:
            session.commit()
    assert not IRetryableError.providedBy(caught.value)


def test_nothing_piles_up_on_the_engine(make_site: MakeSite) -> None:
    """However many requests there were, the engine has one listener more than before."""

    def view(request: Any) -> Response:
        request.main.scalar(sa.select(1))
        return Response("ok")

    site = make_site(views(home=view), {"qapla_db.retry": "true"})
    listeners = site.dbs["main"].engine.dialect.dispatch.handle_error
    before = len(listeners)
    client = site.client()
    for _ in range(10):
        client.get("/home")
    assert before + 1 == len(listeners)


@POSTGRESQL
def test_no_update_is_lost_in_a_crowd(make_site: MakeSite) -> None:
    """Forty increments by four clients at once are forty in the end."""

    def increment(request: Any) -> Response:
        note = request.main.get_one(Note, 1)
        note.text = str(int(note.text) + 1)
        request.main.commit()
        return Response("ok")

    site = make_site(views(home=increment), {**STRICT, "retry.attempts": "50"})
    _seed(site)
    client = site.client()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.get("/home").status_code, range(40)))
    assert [200] * 40 == answers
    assert ["40"] == site.stored()
    assert 0 == pool_of(site.dbs["main"])


@SQLITE
def test_retry_needs_pyramid_retry(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting without the package is an error that names both, when the site is made."""
    monkeypatch.setitem(sys.modules, "pyramid_retry", None)
    site = make_site(views(home=ok), {"qapla_db.retry": "true"})
    with pytest.raises(ConfigurationError, match=r"'qapla_db\.retry'.*pip install pyramid_retry"):
        site.make_wsgi_app()
    make_site(views(home=ok)).make_wsgi_app()
