"""session.query(Model), and the same methods of the session and of a scoped session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, assert_type

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from qapla_db import Database, NotFound, Session
from qapla_db.errors import Misuse, MultipleFound
from qapla_db.query.interface import QueryInterface
from qapla_db.query.methods import ScopedSession
from qapla_db.query.pages import Page
from qapla_db.query.sql import Query
from tests.query.models import City, Leg, Street


@pytest.fixture
def session(memory: Database) -> Iterator[Session]:
    """A session of a database with four cities."""
    with memory.transaction() as session:
        session.add_all([City(code=code, name=code, size=ord(code)) for code in "ABCD"])
    with memory.session() as session:
        yield session


def codes(cities: Any) -> str:
    """The keys of some cities, in their order."""
    return "".join(city.code for city in cities)


def keeps_the_interface(session: Session) -> QueryInterface[City]:
    """A type checker sees that a query keeps what the interface promises."""
    return session.query(City)


def test_types(session: Session) -> None:
    """A type checker knows what comes out."""
    assert_type(session.query(City), Query[City])
    assert_type(session.query(City).find(), Page[City])
    assert_type(session.query(City).find(paginate=False), list[City])
    assert_type(session.query(City).get_one("A"), City)
    assert_type(session.find(City), Page[City])
    assert_type(session.find(sa.select(City), paginate=False), list[City])
    assert_type(session.find_one(City, {"code": "A"}), City | None)
    assert_type(session.get_or_create(City, {"code": "A"}), tuple[City, bool])
    assert_type(session.paginate(sa.select(City)), Page[City])
    assert "A" == keeps_the_interface(session).get_one("A").code


def test_query_of_a_model(session: Session) -> None:
    """A query of a model has every method of the interface."""
    query = session.query(City)
    assert isinstance(query, Query)
    assert "B" == query.get_one("B").code
    with pytest.raises(NotFound, match="City with the primary key 'X'"):
        query.get_one("X")
    with pytest.raises(NotFound):
        session.query(Leg).get_one((1, "A"))
    assert "AB" == codes(query.find({"code": ["A", "B"]}))
    assert "DCBA" == codes(query.find_all(order_by="-code", paginate=False))
    assert query.find_one({"code": "X"}) is None
    assert query.check_exists({"code": "A"})
    assert (4, 1) == (query.count(), query.count({"code": "A"}))
    assert ("C", 4) == (codes(query.paginate(3, 1)), query.paginate(3, 1).total)
    first = query.paginate_keyset("-code", per_page=3)
    after = query.paginate_keyset("-code", after=first.next_token)
    assert ("DCB", "A") == (codes(first), codes(after))
    assert "ABCD" == codes(sorted(query.stream(chunk=2), key=lambda city: city.code))
    made, created = query.get_or_create(filter_by={"code": "E"}, name="e")
    assert created
    assert (made, False) == query.get_or_create({"code": "E"})
    assert "x" == query.update(made, {"name": "x"}).name
    assert 7 == query.upsert({"code": "E", "name": "e", "size": 7}, by="code").size
    assert 1 == query.bulk_update([{"code": "E", "size": 8}])
    assert 8 == made.size
    query.delete(made)
    assert not query.check_exists({"code": "E"})
    assert 2 == query.bulk_insert([{"code": code, "name": code} for code in "FG"])
    assert 6 == query.count()


def test_query_of_no_model_yet(session: Session) -> None:
    """A query without a model takes it as model=."""
    query = session.query()
    assert "A" == query.get_one("A", model=City).code
    assert query.get("X", model=City) is None
    assert "ABCD" == codes(query.find(model=City))
    assert "A" == codes([query.find_one({"code": "A"}, model=City)])
    assert query.check_exists({"code": "A"}, model=City)
    assert 4 == query.count(model=City)
    assert 1 == query.paginate(per_page=3, page=2, model=City).last - 3
    assert "ABCD" == codes(query.paginate_keyset("code", model=City))
    assert 4 == len(list(query.stream(model=City)))
    assert query.get_or_create(model=City, filter_by={"code": "E"}, name="e")[1]
    assert 1 == query.upsert([{"code": "E", "name": "x"}], by="code", model=City)
    assert 1 == query.bulk_update([{"code": "E", "name": "y"}], model=City)
    assert 1 == query.bulk_insert([{"code": "F", "name": "f"}], model=City)
    for work in (query.find, query.find_one, query.count, lambda: query.get(1)):
        with pytest.raises(Misuse, match="of no model"):
            work()
    with pytest.raises(Misuse, match="not of Street"):
        session.query(City).find(model=Street)


def test_filters_of_the_query_are_respected(session: Session) -> None:
    """What a query says already stays, in everything that reads."""
    query = session.query(City).filter(City.code > "B")
    assert "CD" == codes(query.find())
    assert "CD" == codes(query.find(paginate=False))
    assert "C" == codes(query.find({"code": ["A", "C"]}))
    assert query.find_one({"code": "A"}) is None
    with pytest.raises(MultipleFound):
        query.find_one()
    assert (2, 1) == (query.count(), query.count({"code": "C"}))
    assert not query.check_exists({"code": "A"})
    assert 2 == query.paginate().total
    assert "DC" == codes(query.paginate_keyset("-code"))
    assert "CD" == codes(sorted(query.stream(), key=lambda city: city.code))
    assert "DC" == codes(query.order_by(City.code.desc()).find())


def test_what_writes_refuses_a_filter(session: Session) -> None:
    """What cannot heed the filters of a query refuses it instead of forgetting them."""
    query = session.query(City).filter(City.code == "A")
    row = {"code": "E", "name": "e"}
    for work in (
        lambda: query.get_or_create({"code": "E"}),
        lambda: query.bulk_insert([row]),
        lambda: query.bulk_update([row]),
        lambda: query.upsert(row, by="code"),
        lambda: query.get_one("A"),
        lambda: query.get("A"),
    ):
        with pytest.raises(Misuse, match="conditions already"):
            work()
    with pytest.raises(Misuse, match="one mapped class"):
        session.query(City.code).bulk_insert([row])
    with pytest.raises(Misuse, match="statement of its own"):
        session.query(City).from_statement(sa.text("SELECT * FROM city")).find()


def test_options_of_the_query_are_respected(session: Session) -> None:
    """What reads heeds the options of a query, and what writes refuses them."""
    city = session.get_one(City, "A")
    fresh = session.query(City).populate_existing()
    for read in (
        lambda: fresh.find_one({"code": "A"}),
        lambda: fresh.get_one("A"),
        lambda: fresh.get("A"),
        lambda: list(fresh.find({"code": "A"})),
    ):
        city.name = "changed"
        with session.no_autoflush:
            read()
        assert "A" == city.name
    session.add(City(code="E", name="e"))
    unflushed = session.query(City).autoflush(False)
    assert not unflushed.check_exists({"code": "E"})
    assert 4 == unflushed.count({"code": list("ABCDE")})
    assert unflushed.find_one({"code": "E"}) is None
    assert unflushed.get("E") is None
    with pytest.raises(NotFound):
        unflushed.get_one("E")
    assert 1 == len(session.new)
    session.expunge_all()
    loaded = session.query(City).options(orm.joinedload(City.streets)).get_one("A")
    assert "streets" in sa.inspect(loaded).dict
    row = {"code": "F", "name": "f"}
    query = session.query(City).with_for_update()
    for work in (
        lambda: query.get_or_create({"code": "F"}),
        lambda: query.upsert(row, by="code"),
        lambda: query.bulk_insert([row]),
        lambda: query.bulk_update([row]),
    ):
        with pytest.raises(Misuse, match="would not heed the options"):
            work()


def test_rows_are_locked(database: Database) -> None:
    """get_one and find_one of a query with with_for_update() lock the row where there are locks."""
    seen: list[Any] = []
    with database.session() as session:
        session.add(City(code="A", name="a"))
        session.flush()
        sa.event.listen(database.engine, "before_cursor_execute", lambda *all: seen.append(all[2]))
        query = session.query(City).with_for_update()
        assert query.get_one("A") is query.find_one({"code": "A"})
    locks = database.engine.dialect.name != "sqlite"
    assert [locks, locks] == ["FOR UPDATE" in one for one in seen if "FROM city" in one]


def test_sqlalchemy_s_own_methods(session: Session) -> None:
    """The methods of SQLAlchemy's Query mean what they mean there, without a warning."""
    query = session.query(City)
    city = query.get("A")
    assert city is not None
    assert city is query.get("A")
    assert query.get("X") is None
    session.add(Leg(number=1, origin="A"))
    session.flush()
    assert session.query(Leg).get((1, "A")) is session.query(Leg).get({"number": 1, "origin": "A"})
    assert session.query(query.filter_by(code="A").exists()).scalar()
    assert 1 == query.filter_by(code="A").update({"name": "changed"})
    assert 1 == query.filter_by(code="B").update(values={City.name: "changed"})
    assert ["changed", "changed"] == [query.get_one(code).name for code in "AB"]
    assert 1 == query.filter_by(code="B").delete()
    assert 1 == query.filter_by(code="C").delete(synchronize_session=False)
    assert "AD" == codes(query.order_by(City.code).all())
    assert "A" == session.get_one(City, "A").code
    with pytest.raises(sa.exc.NoResultFound):
        session.get_one(City, "X")
    with pytest.raises(sa.exc.NoResultFound):
        query.filter_by(code="X").one()


@pytest.mark.parametrize("instance", [None, True, 0, 7, City, "WAW"])
def test_what_is_no_instance_changes_nothing(session: Session, instance: Any) -> None:
    """A row that was not found is not mistaken for all rows."""
    query: Any = session.query(City)
    refused = (Misuse, sa.exc.ArgumentError)  # of a string, which SQLAlchemy's own takes
    for work in (
        lambda: query.delete(instance),
        lambda: query.delete(instance=instance),
        lambda: query.update(instance, {"name": "x"}),
        lambda: query.update(instance=instance, values={"name": "x"}),
    ):
        with pytest.raises(refused):
            work()
    assert 4 == query.count()
    assert 0 == query.filter(City.name == "x").count()
    for keyword in ("auto", "evaluate", "fetch", False):
        assert 0 == query.filter(City.code == "X").delete(keyword)


def test_get_of_an_instance_in_the_session(session: Session) -> None:
    """An instance that is in the session is got without a statement."""
    city = session.get_one(City, "A")
    seen: list[str] = []
    sa.event.listen(session.get_bind(), "before_cursor_execute", lambda *all: seen.append(all[2]))
    assert city is session.query(City).get("A")
    assert city is session.query(City).get_one("A")
    assert [] == seen


def test_session_has_the_same_methods(session: Session) -> None:
    """A session takes a model or a select."""
    big = sa.select(City).where(City.code > "B")
    assert "CD" == codes(session.find(big))
    assert "AB" == codes(session.find_all(City, {"code": ["A", "B"]}, paginate=False))
    assert (4, 2) == (session.count(City), session.count(big))
    assert session.check_exists(City, City.code == "A")
    assert "D" == codes(session.paginate(big, page=2, per_page=1))
    assert "DC" == codes(session.paginate_keyset(big, order_by="-code"))
    assert 4 == len(list(session.stream(City)))
    made, created = session.get_or_create(City, {"code": "E"}, name="e")
    assert created
    assert "x" == session.update(made, {"name": "x"}).name
    assert "y" == session.upsert(City, {"code": "E", "name": "y"}, by="code").name
    assert 1 == session.bulk_update(City, [{"code": "E", "name": "z"}])
    assert 1 == session.bulk_insert(City, [{"code": "F", "name": "f"}])
    session.delete(made)
    assert "ABCDF" == codes(session.find(City))


def test_scoped_session(database: Database) -> None:
    """A scoped session has the same methods, for the session of each thread."""
    scoped = ScopedSession(database.get_session)
    try:
        made, created = scoped.get_or_create(City, {"code": "A"}, name="a")
        assert created
        assert 1 == scoped.upsert(City, [{"code": "B", "name": "b"}], by="code")
        assert 1 == scoped.bulk_update(City, [{"code": "B", "name": "c"}])
        assert 1 == scoped.bulk_insert(City, [{"code": "C", "name": "c"}])
        scoped.update(made, {"name": "x"})
        assert "x" == scoped.query(City).get_one("A").name
        assert "ABC" == codes(scoped.find(City))
        paging: Any = scoped
        assert "ABC" == codes(paging.paginate(sa.select(City)))
        assert "ABC" == codes(paging.paginate_keyset(sa.select(City), order_by="code"))
        assert 3 == len(list(scoped.stream(City)))
        assert (3, True) == (scoped.count(City), scoped.check_exists(City))
        scoped.commit()
        others: list[Any] = []

        def work() -> None:
            others.append(scoped())
            scoped.remove()

        other = threading.Thread(target=work)
        other.start()
        other.join(20)
        assert others[0] is not scoped()
    finally:
        scoped.remove()
