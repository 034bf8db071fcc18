"""The web application that an Application makes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyramid.exceptions import ConfigurationConflictError
from pyramid.interfaces import IExecutionPolicy
from pyramid.response import Response

from qapla_db.errors import InvalidArgument, Misuse
from tests.support import SmallApplication
from tests.web.conftest import MakeSite, URLs
from tests.web.site import Site, ok, views, write

pytestmark = pytest.mark.parametrize("kind", ["sqlite"])


def test_the_settings_become_pyramids(make_site: MakeSite) -> None:
    """The request sees the application's settings, and no URL of a database among them."""
    found: dict[str, Any] = {}

    def view(request: Any) -> Response:
        found.update(request.registry.settings)
        return Response("ok")

    settings = {
        "title": "%(name)s pages",
        "name": "Kronos",
        "colours": {"sky": "red"},
        "pyramid.debug_notfound": "true",
        "db:main:environment": "staging",
    }
    make_site(views(home=view), settings).client().get("/home")
    assert ("Kronos pages", {"sky": "red"}, True) == (
        found["title"],
        found["colours"],
        found["debug_notfound"],
    )
    assert dict is type(found["colours"])
    assert [] == [key for key in found if key.startswith("db:")]


def test_relative_names_start_from_the_application(make_site: MakeSite) -> None:
    """config.include(".x") and config.scan() look in the package of the application's class."""
    packages: list[str] = []
    make_site(lambda config: packages.append(config.package.__name__)).make_wsgi_app()
    assert ["tests.web"] == packages


@pytest.mark.parametrize(
    "name",
    ["session", "response", "registry", "exception", "context", "url", "params", "body", "root"],
)
def test_names_that_the_request_has(urls: URLs, name: str) -> None:
    """A database cannot take the name of an attribute that every request has."""
    site = Site((name,), views(home=ok))
    site.prepare("wsgi", {f"db:{name}:url": urls["main"]})
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=rf"request\.{name} is Pyramid's own"):
            site.make_wsgi_app()
    site.close()


def test_registered_twice(make_site: MakeSite) -> None:
    """Adding the databases twice is a conflict that names the two lines of the application."""

    def configure(config: Any) -> None:
        site.add_database_web()

    site = make_site(configure)
    with pytest.raises(ConfigurationConflictError) as caught:
        site.make_wsgi_app()
    text = str(caught.value)
    assert "('qapla_db.database', 'main')" in text
    assert re.search(r"file .*support\.py:\n +self\.add_database_web\(\)", text), text
    assert re.search(r"file .*test_application\.py:\n +site\.add_database_web\(\)", text), text


def test_threads_get_the_same_application(urls: URLs) -> None:
    """Threads that call run_wsgi() at once get one application, made once."""
    made: list[object] = []
    at_once = threading.Barrier(8)
    site = Site(("main", "audit"), made.append)
    settings = {f"db:{name}:url": url for name, url in urls.items()}

    def run(number: int) -> object:
        at_once.wait(10)
        return site.run_wsgi(settings)

    with ThreadPoolExecutor(8) as pool:
        applications = list(pool.map(run, range(8)))
    assert 1 == len({id(application) for application in applications})
    assert 1 == len(made)
    site.close()


def test_asked_for_while_it_is_made(make_site: MakeSite) -> None:
    """A scanned module that calls run_wsgi() is told so, instead of going round for ever."""

    def configure(config: Any) -> None:
        site.run_wsgi()

    site = make_site(configure)
    with pytest.raises(Misuse, match=r"while it is made.*config\.scan"):
        site.make_wsgi_app()


def test_a_policy_of_the_application_is_kept(make_site: MakeSite) -> None:
    """An execution policy that the application sets runs inside of ours."""
    seen: list[str] = []

    def policy(environ: dict[str, Any], router: Any) -> Any:
        seen.append(environ["PATH_INFO"])
        with router.request_context(environ) as request:
            return router.invoke_request(request)

    def view(request: Any) -> Response:
        write(request)
        request.main.commit()
        return Response("ok")

    def configure(config: Any) -> None:
        config.set_execution_policy(policy)
        views(home=view)(config)

    site = make_site(configure)
    site.client().get("/home")
    assert ["/home"] == seen
    assert ["written"] == site.stored()


def test_a_policy_around_ours_sees_the_response(make_site: MakeSite) -> None:
    """Whoever wraps the application's policy finds the status of a streamed response too."""
    statuses: list[int] = []

    def configure(config: Any) -> None:
        def wrap() -> None:
            inner = config.registry.getUtility(IExecutionPolicy)

            def policy(environ: dict[str, Any], router: Any) -> Any:
                response = inner(environ, router)
                statuses.append(response.status_code)
                return response

            config.registry.registerUtility(policy, IExecutionPolicy)

        views(home=lambda request: Response(app_iter=iter([b"x"]), status=202))(config)
        config.action(None, wrap, order=10**9)

    assert "x" == make_site(configure).client().get("/home").text
    assert [202] == statuses


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({"__script__": "pshell"}, "shell"),
        ({"__script__": "pserve"}, "wsgi"),
        ({}, "wsgi"),
        (None, "wsgi"),
    ],
)
def test_called_by_paste_deploy(urls: URLs, given: dict[str, str] | None, endpoint: str) -> None:
    """The application object is an entry point of PasteDeploy; its settings have dots."""
    application = SmallApplication()
    url = urls["main"].render_as_string(hide_password=False)
    main: Callable[..., Any] = application
    wsgi = main(given, **{"db.main.url": url, "db.main.options.echo": "false", "debug": "1"})
    assert (endpoint, "1") == (application.endpoint, wsgi.registry.settings["debug"])
    assert str(urls["main"].database) == application.dbs["main"].settings.url.database
    application.close()


def test_a_failed_start_can_be_repeated(make_site: MakeSite) -> None:
    """After an error in append_web_plugins() the next call starts over and may succeed."""
    errors = [LookupError()]

    def configure(config: Any) -> None:
        if errors:
            raise errors.pop()
        views(home=ok)(config)

    site = make_site(configure)
    with pytest.raises(LookupError):
        site.make_wsgi_app()
    assert "ok" == site.client().get("/home").text
