from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pytest
import sqlalchemy as sa

from qapla_db.backends import get_backend
from tests.conftest import FreshURL
from tests.web.site import Configure, Site, start_application

URLs = dict[str, sa.URL]


class MakeSite(Protocol):
    def __call__(self, configure: Configure, settings: Mapping[str, Any] | None = None) -> Site: ...


@pytest.fixture(scope="session")
def postgresql_pair(postgresql_url: sa.URL) -> Iterator[URLs]:
    """Two databases that the tests of this directory share, one test after the other."""
    urls = {
        name: postgresql_url.set(database=f"web_test_{os.getpid()}_{name}")
        for name in ("main", "audit")
    }
    backend = get_backend(postgresql_url)
    assert backend is not None
    for url in urls.values():
        backend.create(url, None)
    yield urls
    for url in urls.values():
        backend.drop(url, None)


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of database that a site uses; a test may fix it by parametrizing."""
    return str(request.param)


@pytest.fixture
def urls(request: pytest.FixtureRequest, kind: str, fresh_url: FreshURL) -> URLs:
    """URLs of two empty databases, main and audit."""
    if kind == "sqlite":
        return {name: fresh_url(kind) for name in ("main", "audit")}
    pair: URLs = request.getfixturevalue("postgresql_pair")
    for url in pair.values():
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            # a test that left a transaction open must not stop the ones after it
            connection.execute(sa.text("SET LOCAL lock_timeout = '10s'"))
            connection.execute(sa.text("DROP TABLE IF EXISTS note"))
    return pair


@pytest.fixture
def make_site(urls: URLs) -> Iterator[MakeSite]:
    """Start sites with the databases main and audit; each must give every connection back."""
    sites: list[Site] = []

    def make(configure: Configure, settings: Mapping[str, Any] | None = None) -> Site:
        sites.append(start_application(urls, configure, settings or {}))
        return sites[-1]

    yield make
    left = [site.checked_out() for site in sites]
    for site in sites:
        site.close()
    assert all(count == 0 for counts in left for count in counts.values()), left
