"""SQLConnection: a database without an application."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.orm import Session as SQLAlchemySession

from qapla_db import SQLConnection
from qapla_db.backends.address import one_value
from qapla_db.errors import (
    AlreadyPrepared,
    ConfigurationError,
    InvalidArgument,
    Misuse,
    NotPrepared,
    SessionConflict,
)
from qapla_db.session import Session


class Base(DeclarativeBase):
    pass


class Object(Base):
    """A thing in the sky."""

    __tablename__ = "object"

    oid: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    ndethist: Mapped[int]
    ncovhist: Mapped[int]
    mjdstarthist: Mapped[float]
    mjdendhist: Mapped[float]
    firstmjd: Mapped[float]
    lastmjd: Mapped[float]
    ndet: Mapped[int]
    deltajd: Mapped[float]
    meanra: Mapped[float]
    meandec: Mapped[float]
    step_id_corr: Mapped[str] = mapped_column(sa.String(20))
    corrected: Mapped[bool]
    stellar: Mapped[bool]

    def __repr__(self) -> str:
        return f"<Object(oid={self.oid!r})>"


class Detection(Base):
    """One sight of it."""

    __tablename__ = "detection"

    candid: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    oid: Mapped[str] = mapped_column(sa.ForeignKey("object.oid"))
    mag: Mapped[float | None]


@pytest.fixture
def db(each_url: sa.URL) -> Iterator[SQLConnection]:
    """A connection to a database with the tables, on each kind of engine in turn."""
    db = SQLConnection()
    db.connect(config=each_url, base=Base)
    db.create_db()
    yield db
    db.close()


MODEL_ARGS: dict[str, Any] = {
    "ndethist": 0,
    "ncovhist": 0,
    "mjdstarthist": 0.0,
    "mjdendhist": 0.0,
    "firstmjd": 0.0,
    "lastmjd": 0.0,
    "ndet": 0,
    "deltajd": 0.0,
    "meanra": 0.0,
    "meandec": 0.0,
    "step_id_corr": "v1.0.0",
    "corrected": False,
    "stellar": False,
}


def test_a_first_acquaintance(db: SQLConnection) -> None:
    """An object is made once, found again, gets its detections, is changed and committed."""
    obj, created = db.query(Object).get_or_create(filter_by={"oid": "ZTF_OID"}, **MODEL_ARGS)
    assert created
    assert "ZTF_OID" == obj.oid
    again, created = db.query().get_or_create(
        model=Object, filter_by={"oid": "ZTF_OID"}, **MODEL_ARGS
    )
    assert (obj, False) == (again, created)
    assert "<Object(oid='ZTF_OID')> created: False" == f"{again} created: {created}"

    detections = [{"candid": n, "oid": "ZTF_OID", "mag": n / 10} for n in range(30)]
    assert 30 == db.query(Detection).bulk_insert(detections)

    obj, _ = db.query(Object).get_or_create(filter_by={"oid": "ZTF_OID"})
    obj = db.query().update(obj, {"lastmjd": 12345})
    db.session.commit()

    filters = {"oid": "ZTF_OID"}
    found = db.query(Object).find_one(filter_by=filters)
    assert found is obj
    assert 12345 == found.lastmjd
    page = db.query(Detection).find(filter_by=filters)
    assert (30, 10) == (page.total, len(page))
    assert 30 == len(db.query(Detection).find_all(filter_by=filters, paginate=False))
    assert db.query(Detection).check_exists({"candid": 29})
    assert 30 == len(db.query(Detection).all())


def test_a_mapping_says_where(postgresql_url: sa.URL, fresh_url: Any) -> None:
    """A mapping of ENGINE, HOST, USER, PASSWORD, PORT and DB_NAME is as good as a URL."""
    url: sa.URL = fresh_url("postgresql")
    config: dict[str, Any] = {
        "ENGINE": "postgresql",
        "HOST": one_value(url.query["host"]),
        "USER": url.username,
        "PASSWORD": "pwd",
        "PORT": int(one_value(url.query["port"])),
        "DB_NAME": url.database,
    }
    with SQLConnection(config, Base=Base) as db:
        db.database.create()
        db.create_db()
        assert [] == db.query(Object).all()
        assert "pwd" not in repr(db)
        assert str(url.database) in repr(db)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"HOST": "h"}, "ENGINE"),
        ({"SQL": {"ENGINE": "postgresql"}}, "ENGINE"),
        ("nonsense://x", "nonsense"),
        ("", "db:database:url"),
    ],
)
def test_a_config_that_cannot_be_used(config: Any, problem: str) -> None:
    """A configuration that cannot be used is an error that says what is wrong with it."""
    with pytest.raises(ConfigurationError, match=problem):
        SQLConnection().connect(config)


def test_the_tables_go_and_the_database_stays(db: SQLConnection) -> None:
    """drop_db() drops the tables of the base, no other table, and never the database."""
    db.session.execute(sa.text("CREATE TABLE somebody (id INTEGER)"))
    db.session.commit()
    db.drop_db()
    assert ["somebody"] == sa.inspect(db.engine).get_table_names()
    db.create_db()
    assert 0 == db.query(Object).count()


@pytest.mark.parametrize("change", ["create_db", "drop_db"])
def test_tables_are_not_waited_for(db: SQLConnection, change: str) -> None:
    """Where the tables would wait for the connection's own session, that is an error at once."""
    db.query(Object).all()
    with pytest.raises(SessionConflict, match=r"in a transaction; call session\.commit"):
        getattr(db, change)()
    db.session.rollback()
    getattr(db, change)()


def test_tables_of_which_base() -> None:
    """Without a base there are no tables to create or drop, which is said."""
    with SQLConnection("sqlite://") as db, pytest.raises(Misuse, match="base=Base"):
        db.drop_db()


def test_the_end_rolls_back(db: SQLConnection) -> None:
    """end_session() keeps what was committed and nothing else, and gives the connection back."""
    db.query(Object).get_or_create({"oid": "kept"}, **MODEL_ARGS)
    db.session.commit()
    db.query(Object).get_or_create({"oid": "lost"}, **MODEL_ARGS)
    db.end_session()
    db.end_session()
    with pytest.raises(NotPrepared, match="create_session"):
        db.query(Object)
    db.create_session()
    assert ["kept"] == [one.oid for one in db.query(Object).all()]


def test_one_session_at_a_time(db: SQLConnection) -> None:
    """A second session beside the first, or a second connect(), is an error, not a leak."""
    with pytest.raises(SessionConflict, match="end_session"):
        db.create_session()
    with pytest.raises(AlreadyPrepared, match="close"):
        db.connect("sqlite://")


def test_a_scoped_session(db: SQLConnection) -> None:
    """A scoped session is another one in each thread, with the same methods, until removed."""
    db.end_session()
    db.create_session(use_scoped=True)
    db.query(Object).get_or_create({"oid": "one"}, **MODEL_ARGS)
    db.session.commit()
    mine = db.session()
    found: list[Any] = []

    def look() -> None:
        found.append(db.session())
        found.append(db.session.find_one(Object, {"oid": "one"}).oid)
        found.append(db.query().count(model=Object))
        db.session.remove()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(20)
    assert mine is not found[0]
    assert ["one", 1] == found[1:]
    assert mine is db.session()
    db.session.remove()
    assert mine is not db.session()


def test_a_scoped_session_on_demand(each_url: sa.URL) -> None:
    """Connected without a session, one is made where it is needed, and removed after use."""
    conn = SQLConnection()
    conn.connect(each_url, base=Base, create_session=False)
    conn.create_db()
    conn.create_session(use_scoped=True)
    assert conn.query().find(model=Object, paginate=False) == []
    conn.session.remove()
    assert 0 == conn.query(Object).count()
    conn.close()


def test_a_scope_of_ones_own() -> None:
    """scope_func says what a scope is; without use_scoped it would be forgotten, and is refused."""
    scope = "a"
    with SQLConnection("sqlite://") as db:
        db.end_session()
        with pytest.raises(InvalidArgument, match="use_scoped"):
            db.create_session(scope_func=lambda: scope)
        db.create_session(use_scoped=True, scope_func=lambda: scope)
        first = db.session()
        assert first is db.session()
        scope = "b"
        assert first is not db.session()
        db.session.remove()
        scope = "a"
        assert first is db.session()


def test_session_options(tmp_path: Path) -> None:
    """session_options reach the session; one that it does not take is named."""
    db = SQLConnection()
    db.connect(f"sqlite:///{tmp_path / 'x.db'}", session_options={"expire_on_commit": False})
    assert not db.session.expire_on_commit
    db.close()
    with pytest.raises(InvalidArgument, match=r"session_options.*'expire'"):
        db.connect("sqlite://", session_options={"expire": True})
    db.connect("sqlite://")
    db.close()


def test_an_engine_of_ones_own() -> None:
    """A given engine is used, with our sessions over it, and is not disposed of."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with SQLConnection(engine=engine, Base=Base) as db:
        assert engine is db.engine
        assert isinstance(db.session, Session)
        db.create_db()
        db.query(Object).get_or_create({"oid": "one"}, **MODEL_ARGS)
        db.session.commit()
        with pytest.raises(Misuse, match="not both"):
            db.connect("sqlite://")
    with engine.connect() as connection:
        assert 1 == connection.scalar(sa.text("SELECT count(*) FROM object"))
    engine.dispose()


def test_a_session_of_ones_own() -> None:
    """A given session, or what makes them, gets the queries, and a given session stays open."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    Base.metadata.create_all(engine)
    with SQLAlchemySession(engine) as session:
        db = SQLConnection(session=session)
        made, created = db.query(Object).get_or_create({"oid": "one"}, **MODEL_ARGS)
        assert created
        db.close()
        assert made in session
        session.commit()
    db = SQLConnection(engine=engine, Session=sessionmaker(engine))
    with db:
        assert 1 == db.query(Object).count()
        assert db.query(Object).find_one({"oid": "one"}) in db.session
    engine.dispose()


def test_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The configuration in the code is the one that is used, whatever the environment says."""
    monkeypatch.setenv("QAPLA_DB_DATABASE_URL", "sqlite:////nowhere/x.db")
    with SQLConnection(f"sqlite:///{tmp_path / 'mine.db'}", Base=Base) as db:
        db.create_db()
    assert (tmp_path / "mine.db").exists()


def test_before_connect() -> None:
    """What needs a connection says which call is missing."""
    db = SQLConnection()
    with pytest.raises(Misuse, match="config"):
        db.connect()
    with pytest.raises(NotPrepared, match="connect"):
        db.query(Object)
    with pytest.raises(NotPrepared, match="connect"):
        db.engine  # noqa: B018
    db.close()
