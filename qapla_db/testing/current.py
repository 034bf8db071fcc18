"""The session of the test that runs, for factories, which are made before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qapla_db.errors import Misuse
from qapla_db.session import Session

__all__ = ["offered", "session_of"]

_offers: dict[str, list[Callable[[], Session]]] = {}


def session_of(database_key: str = "main") -> Callable[[], Session]:
    """Return a function that returns the ``dbsession`` of the test that runs.

    ::

        class ShipFactory(factory.alchemy.SQLAlchemyModelFactory):
            class Meta:
                model = Ship
                sqlalchemy_session_factory = session_of("main")

    In ``set_up_data`` it is the session that this gets.

    :param database_key: the name of the database of that session.
    :raises Misuse: (of the function) no test that runs has such a session.
    """

    def session() -> Session:
        offers = _offers.get(database_key)
        if not offers:
            raise Misuse(
                f"no test that runs has a session of the database {database_key!r}, so that a "
                "factory cannot store its rows; call it in a test (or in set_up_data) of a class "
                f"with DATABASE_KEY = {database_key!r}, or let the test name its fixture of "
                "fixtures_for(...).dbsession"
            )
        return offers[-1]()

    return session


@contextmanager
def offered(database_key: str, session: Callable[[], Session]) -> Iterator[None]:
    """Let :func:`session_of` return a session during a block."""
    offers = _offers.setdefault(database_key, [])
    offers.append(session)
    try:
        yield
    finally:
        offers.remove(session)
