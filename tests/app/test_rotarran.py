"""The reference application, through every face."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from webtest import TestApp

from qapla_db.errors import NotFound
from qapla_db.registry import Databases
from qapla_db.session import Session
from qapla_db.testing import BaseApplicationFixture
from rotarran import main
from rotarran.application.app import RotarranApplication
from rotarran.application.db import Airport, Event, Neighbour, Origin
from rotarran.application.forms import airport_changes
from rotarran.load import airport_rows
from rotarran.tasks import celery, compute_neighbours, great_circle

ROOT = Path(__file__).parents[2]
FORM = "application/x-www-form-urlencoded"


@cache
def some_airports() -> list[dict[str, Any]]:
    return [row for row in airport_rows() if row["country"] in ("PL", "IS")]


def token_of(web: TestApp) -> str:
    """The CSRF token of the form, whose cookie the browser keeps."""
    return str(web.get("/airports/EPWA").forms[0]["csrf_token"].value)


class RotarranFixture(BaseApplicationFixture):
    APP_CLASS = RotarranApplication
    DATABASE_KEY = "main"

    @pytest.fixture
    def airports(self, dbplugin: Databases) -> list[dict[str, Any]]:
        """The real airports of Poland and Iceland, stored and committed."""
        with dbplugin["main"].transaction() as session:
            session.execute(insert(Airport), some_airports())
        return some_airports()

    @pytest.fixture
    def web(self, application: RotarranApplication, airports: object) -> TestApp:
        return TestApp(application.make_wsgi_app())

    @pytest.fixture
    def eager(self) -> Iterator[None]:
        """Run tasks in this process, at once."""
        celery.conf.task_always_eager = celery.conf.task_eager_propagates = True
        yield
        celery.conf.task_always_eager = celery.conf.task_eager_propagates = False


class TestPages(RotarranFixture):
    def test_list(self, web: TestApp, airports: list[dict[str, Any]]) -> None:
        """The list shows a page of the airports and how many there are."""
        page = web.get("/")
        assert f"{len(airports):,} in the database" in " ".join(page.text.split())
        assert 25 == len(page.html.select("tbody tr"))
        assert "next" in page.text

    def test_pages_do_not_overlap(self, web: TestApp, airports: list[dict[str, Any]]) -> None:
        """All pages together hold every airport once."""
        first = web.get("/api/airports").json
        codes = [
            airport["code"]
            for page in range(1, first["pages"] + 1)
            for airport in web.get("/api/airports", {"page": page}).json["airports"]
        ]
        assert sorted(row["code"] for row in airports) == codes

    @pytest.mark.parametrize("words", ["epwa", "WAW", "chopin", "  Chopin "])
    def test_search(self, web: TestApp, words: str) -> None:
        """An airport is found by its codes and by a part of its name."""
        found = web.get("/api/airports", {"q": words}).json["airports"]
        assert ["EPWA"] == [airport["code"] for airport in found]

    @pytest.mark.parametrize("words", ["%", "_", "100%", "'; DROP TABLE airport; --"])
    def test_search_takes_words_literally(self, web: TestApp, words: str) -> None:
        """What means something to SQL means nothing in a search."""
        assert 0 == web.get("/api/airports", {"q": words}).json["total"]

    def test_airport(self, web: TestApp) -> None:
        """An airport's page shows it, in any spelling of its code."""
        assert "Warsaw Chopin Airport" in web.get("/airports/epwa").text
        assert "EPWA" == web.get("/api/airports/EPWA").json["airport"]["code"]

    @pytest.mark.parametrize(
        ("path", "status", "reason"),
        [
            ("/api/airports?page=-1", 400, "page must be a whole number"),
            ("/api/airports?page=0", 400, "page must be a whole number"),
            ("/api/airports?page=abc", 400, "page must be a whole number"),
            ("/api/airports?page=1e3", 400, "page must be a whole number"),
            ("/api/airports?page=99999999999999999999", 400, "page must be a whole number"),
            ("/api/airports?page=%C2%B2", 400, "page must be a whole number"),
            ("/api/airports?page=999", 404, "the last one is"),
            ("/api/airports?q=" + "x" * 61, 400, "too long"),
            ("/api/airports?q=%00", 400, "cannot be printed"),
            ("/api/airports?q=%ff", 400, "UTF-8"),
            ("/api/airports/NOPE", 404, "no airport has the code NOPE"),
            ("/api/airports/%00", 404, "no airport"),
            ("/api/airports/%ff", 400, "UTF-8"),
            ("/api/nowhere", 404, ""),
            ("/api/audit?page=-1", 400, "page must be a whole number"),
        ],
    )
    def test_bad_address(self, web: TestApp, path: str, status: int, reason: str) -> None:
        """A bad address is answered with its status and reason, as JSON and as a page."""
        assert reason in web.get(path, status=status).json["detail"]
        page = web.get(path.replace("/api/airports?", "/?").replace("/api", ""), status=status)
        assert "text/html" == page.content_type
        assert reason in page.text


class TestEdit(RotarranFixture):
    def test_form(self, web: TestApp, dbplugin: Databases) -> None:
        """The form changes the airport and the audit trail says who changed what."""
        form = web.get("/airports/EPWA").forms[0]
        form["name"] = "Żurawia <b>&</b>"
        form["elevation"] = "400.5"
        page = form.submit().follow()
        assert "Żurawia &lt;b&gt;&amp;&lt;/b&gt;" in page.text
        with dbplugin["audit"].session() as audit:
            event = audit.query(Event).one()
        assert ("edited", "EPWA") == (event.action, event.airport_code)
        assert {"name", "elevation"} == set(event.details)
        assert "Żurawia" in web.get("/audit").text

    def test_json(self, web: TestApp) -> None:
        """JSON changes only the fields that it names."""
        before = web.get("/api/airports/EPWA").json["airport"]
        answer = web.post_json("/api/airports/EPWA", {"version": 1, "elevation": 1}).json
        assert {**before, "elevation": 1.0, "version": 2} == answer["airport"]

    def test_nothing_changed(self, web: TestApp, dbplugin: Databases) -> None:
        """A form that changes nothing leaves no event."""
        web.get("/airports/EPWA").forms[0].submit().follow()
        with dbplugin["audit"].session() as audit:
            assert 0 == audit.scalar(select(func.count()).select_from(Event))

    def test_old_state(self, web: TestApp) -> None:
        """Who edits a state that another has changed since is told, and nothing is lost."""
        first, second = web.get("/airports/EPWA").forms[0], web.get("/airports/EPWA").forms[0]
        first["name"] = "First"
        first.submit().follow()
        second["name"] = "Second"
        second.submit(status=409)
        assert "First" == web.get("/api/airports/EPWA").json["airport"]["name"]

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"name": ""}, "name must not be empty"),
            ({"name": "x" * 121}, "name is too long"),
            ({"name": "a\x00b"}, "cannot be printed"),
            ({"name": 5}, "name must be text"),
            ({"name": None}, "name must be text"),
            ({"elevation": "high"}, "elevation must be a number"),
            ({"elevation": True}, "elevation must be a number"),
            ({"elevation": []}, "elevation must be a number"),
            ({"elevation": "nan"}, "elevation must be a number"),
            ({"elevation": "1_000"}, "elevation must be a number"),
            ({"elevation": 1e300}, "elevation must lie between"),
            ({"elevation": 10**400}, "elevation must be a number"),
            ({"version": "x"}, "version must be a number"),
            ({"version": 1.5}, "version must be a whole number"),
            ({"version": 1e300}, "version must be a whole number"),
            ({"latitude": 0}, "unknown fields: latitude"),
        ],
    )
    def test_bad_values(self, web: TestApp, values: dict[str, Any], reason: str) -> None:
        """Bad values are refused with a reason, and nothing is changed."""
        before = web.get("/api/airports/EPWA").json
        answer = web.post_json("/api/airports/EPWA", {"version": 1, **values}, status=400)
        assert reason in answer.json["detail"]
        assert before == web.get("/api/airports/EPWA").json

    def test_bad_form(self, web: TestApp) -> None:
        """A form that is no UTF-8 is refused, and no name is damaged."""
        token = token_of(web).encode()
        page = web.post("/airports/EPWA", b"version=1&name=Caf%E9&csrf_token=" + token, status=400)
        assert "name holds characters" in page.text
        assert "Warsaw Chopin Airport" == web.get("/api/airports/EPWA").json["airport"]["name"]

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            (f"{FORM}; charset=latin-1", b"version=1"),
            (f"{FORM}; charset=nonsense", b"version=1"),
            (FORM, b"csrf_token=%C5%BC"),
            (FORM, b"\xff=\xff"),
            ("multipart/form-data", b"version=1"),
            ("multipart/form-data; boundary=x", b"--x\r\n"),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="csrf_token"; filename="f"\r\n'
                b"\r\n1\r\n--x--\r\n",
            ),
        ],
    )
    def test_unreadable_form(self, web: TestApp, content_type: str, body: bytes) -> None:
        """A form that cannot be read is refused as such, whatever it is in."""
        web.post("/airports/EPWA", body, headers={"Content-Type": content_type}, status=400)

    @pytest.mark.parametrize("path", ["/airports/EPWA", "/airports/EPWA/neighbours"])
    @pytest.mark.parametrize("token", [None, "", "0" * 40])
    def test_form_of_another_site(self, web: TestApp, path: str, token: str | None) -> None:
        """A form without the token of our page changes nothing, though the cookie comes along."""
        token_of(web)
        values = {"version": "1", "name": "Mine"} | ({} if token is None else {"csrf_token": token})
        assert "the form is not of our page" in web.post(path, values, status=400).text
        assert "Warsaw Chopin Airport" == web.get("/api/airports/EPWA").json["airport"]["name"]

    @pytest.mark.parametrize("path", ["/api/airports/EPWA", "/api/airports/EPWA/neighbours"])
    @pytest.mark.parametrize("content_type", ["text/plain", FORM, "multipart/form-data", ""])
    def test_json_of_another_site(self, web: TestApp, path: str, content_type: str) -> None:
        """JSON is taken only as such, which a page of another site cannot send unasked."""
        body, headers = b'{"version": 1, "name": "Mine"}', {"Content-Type": content_type}
        answer = web.post(path, body, headers=headers, status=415)
        assert "application/json" in answer.json["detail"]
        assert "Warsaw Chopin Airport" == web.get("/api/airports/EPWA").json["airport"]["name"]

    def test_json_with_a_charset(self, web: TestApp) -> None:
        """JSON may say its charset, and is refused in one that is not UTF-8."""
        utf8, latin = (f"application/json; charset={name}" for name in ("utf-8", "latin-1"))
        for content_type, status in ((utf8, 200), (latin, 400)):
            body, headers = (
                '{"version": 1, "city": "Łódź"}'.encode(),
                {"Content-Type": content_type},
            )
            web.post("/api/airports/EPWA", body, headers=headers, status=status)

    @pytest.mark.parametrize("body", ["", "{", "[]", "5", '"x"', "\xff", "[" * 9_000])
    def test_bad_body(self, web: TestApp, body: str) -> None:
        """A body that is no JSON object is refused."""
        web.post(
            "/api/airports/EPWA",
            body.encode("latin-1"),
            content_type="application/json",
            status=400,
        )

    def test_version_is_needed(self, web: TestApp) -> None:
        """An edit says which state it edits."""
        answer = web.post_json("/api/airports/EPWA", {"name": "x"}, status=400)
        assert "version is missing" in answer.json["detail"]

    def test_every_airport_can_be_edited(self) -> None:
        """What is loaded passes the checks of the form."""
        for row in airport_rows():
            values = {field: row[field] for field in ("name", "city", "elevation")}
            assert (1, values) == airport_changes({"version": "1", **values})

    def test_unknown_airport(self, web: TestApp) -> None:
        """What does not exist is not edited."""
        web.post_json("/api/airports/NOPE", {"version": 1, "name": "x"}, status=404)


class TestTask(RotarranFixture):
    def test_button(self, web: TestApp, eager: None) -> None:
        """The button starts the task, whose result is on the page and in the audit trail."""
        page = web.get("/airports/EPWA").forms[1].submit().follow()
        assert "EPMO" in page.text
        neighbours = web.get("/api/airports/EPWA").json["neighbours"]
        assert 10 == len(neighbours)
        assert sorted(one["distance"] for one in neighbours) == [
            one["distance"] for one in neighbours
        ]
        assert "computed neighbours" in web.get("/audit").text

    def test_again(self, web: TestApp, eager: None, dbsession: Session) -> None:
        """Computing again replaces what was there."""
        for _ in range(2):
            assert 202 == web.post_json("/api/airports/EPWA/neighbours", {}).status_code
        assert 10 == dbsession.scalar(select(func.count()).select_from(Neighbour))

    def test_call(self, airports: object, dbsession: Session) -> None:
        """Called directly it works with sessions of its own."""
        assert 3 == compute_neighbours("BIRK", "a test", 3)
        assert "BIKF" in dbsession.scalars(select(Neighbour.other_code)).all()

    def test_origin(
        self, web: TestApp, eager: None, dbplugin: Databases, application: RotarranApplication
    ) -> None:
        """The audit trail knows what came from the web, from a worker and from a command."""
        web.post_json("/api/airports/EPWA", {"version": 1, "name": "Chopin"})
        web.post_json("/api/airports/EPWA/neighbours", {})
        compute_neighbours("BIRK", "a test", 3)
        with dbplugin["audit"].session(read_only=True) as audit:
            origins = audit.scalars(select(Event.origin).order_by(Event.id)).all()
        assert [Origin.WEB, Origin.WORKER, Origin.COMMAND] == origins

    def test_elevation_is_stored_in_metres(self, web: TestApp, dbsession: Session) -> None:
        """A pilot's feet are metres in the database, and the same feet again."""
        answer = web.post_json("/api/airports/EPWA", {"version": 1, "elevation": 362.5})
        assert 362.5 == answer.json["airport"]["elevation"]
        stored = dbsession.scalar(text("SELECT elevation FROM airport WHERE code = 'EPWA'"))
        assert stored == pytest.approx(110.49)
        assert 362.5 == web.get("/api/airports/EPWA").json["airport"]["elevation"]

    def test_unknown_airport(self, application: RotarranApplication) -> None:
        """A task for an airport that does not exist fails and leaves nothing."""
        with pytest.raises(NotFound, match="NOPE"):
            compute_neighbours("NOPE", "a test")

    def test_arguments_are_checked_early(self) -> None:
        """Sending the task with wrong arguments fails at once, in the sender."""
        with pytest.raises(TypeError):
            compute_neighbours.delay()

    def test_great_circle(self) -> None:
        """The distance of London to Paris, and of the poles."""
        assert great_circle(51.4706, -0.4619, 49.0097, 2.5479) == pytest.approx(347, abs=1)
        assert great_circle(90, 0, -90, 0) == pytest.approx(20015, abs=1)


class TestWhole(RotarranFixture):
    def test_it_is_the_module_s_object(self, application: RotarranApplication) -> None:
        """The fixture tests the object that views and tasks import."""
        assert main is application

    @pytest.mark.parametrize("again", [1, 2])
    def test_commits_are_gone(self, web: TestApp, dbsession: Session, again: int) -> None:
        """What one test commits through the web another does not see."""
        assert 0 == dbsession.scalar(
            select(func.count()).select_from(Airport).where(Airport.name == "Mine")
        )
        web.post_json("/api/airports/EPWA", {"version": 1, "name": "Mine"})
        assert "Mine" == web.get("/api/airports/EPWA").json["airport"]["name"]

    @pytest.mark.parametrize("section", ["alembic", "audit"])
    def test_models_match_the_migrations(
        self, application: RotarranApplication, section: str
    ) -> None:
        """Alembic finds no difference between models and migrated database."""
        command = [sys.executable, "-m", "alembic", "-n", section, "-x", "is_test=true", "check"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert 0 == done.returncode, done.stdout + done.stderr
