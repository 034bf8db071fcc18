"""What a type checker sees of the public names; mypy runs over this file, nothing executes it."""

from __future__ import annotations

from typing import assert_type

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import qapla_db
from qapla_db import (
    Application,
    Database,
    DatabaseApplication,
    KeysetPage,
    NotFound,
    Page,
    QaplaError,
    ReadDriver,
    Session,
    WriteDriver,
)
from qapla_db.migrations.rehearsal import Rehearsal
from qapla_db.registry import Databases, Host
from qapla_db.settings import DatabaseSettings
from qapla_db.testing import Rehearse


class Base(DeclarativeBase):
    pass


class Airport(Base):
    __tablename__ = "airport"
    code: Mapped[str] = mapped_column(primary_key=True)


class AirportReadDriver(ReadDriver[Airport]):
    model = Airport


class AirportWriteDriver(WriteDriver[Airport]):
    model = Airport


class Shop(DatabaseApplication):
    settings_package = "shop.settings"

    def append_app_plugins(self) -> None:
        self.add_database_app([Database("main", "migrations_main"), Database()])


def an_application(app: Shop) -> None:
    assert_type(app.run_tests(), Shop)
    assert_type(app.run_command({"db:main:url": "sqlite://"}), Shop)
    assert_type(app.endpoint, str | None)
    assert_type(app.dbs, Databases)
    assert_type(app.dbs["main"], Database)
    with app as same:
        assert_type(same, Shop)
    host: Host = app
    host.prepare("tests")
    plain: Application = app
    plain.close()


def a_database(database: Database) -> None:
    assert_type(database.name, str)
    assert_type(database.engine, sa.Engine)
    assert_type(database.settings, DatabaseSettings)
    assert_type(database.settings.url, sa.URL)
    assert_type(database.migrations_path, str)
    assert_type(database.ping(), float)
    assert_type(database.exists(), bool)
    assert_type(database.create(), bool)
    assert_type(database.drop(confirm="main"), bool)
    assert_type(database.get_session(), Session)
    with database.session(read_only=True) as session:
        assert_type(session, Session)
    with database.transaction() as session:
        assert_type(session, Session)


def a_session(session: Session) -> None:
    assert_type(session.has_uncommitted, bool)
    assert_type(session.read_only, bool)
    assert_type(session.database_name, str)
    assert_type(session.get(Airport, "EPWA"), Airport | None)
    assert_type(list(session.scalars(sa.select(Airport))), list[Airport])


def queries(session: Session) -> None:
    assert_type(session.find(Airport), Page[Airport])
    assert_type(session.find(Airport, paginate=False), list[Airport])
    assert_type(session.find_one(Airport, {"code": "EPWA"}), Airport | None)
    assert_type(session.get_or_create(Airport, {"code": "EPWA"}), tuple[Airport, bool])
    assert_type(session.bulk_insert(Airport, [{"code": "EPWA"}]), int)
    assert_type(session.upsert(Airport, {"code": "EPWA"}, by="code"), Airport)
    assert_type(session.upsert(Airport, [{"code": "EPWA"}], by="code"), int)
    assert_type(session.paginate(Airport), Page[Airport])
    assert_type(session.paginate_keyset(Airport, order_by="code"), KeysetPage[Airport])
    assert_type(session.query(Airport).find(), Page[Airport])
    assert_type(session.query(Airport).find_one(), Airport | None)
    assert_type(session.query(Airport).paginate(page=2), Page[Airport])


def drivers(session: Session) -> None:
    assert_type(AirportReadDriver(session).get_by_id("EPWA"), Airport)
    assert_type(AirportReadDriver(session).list_all(), list[Airport])
    assert_type(AirportWriteDriver(session).create(code="EPWA"), Airport)
    AirportReadDriver("main")  # type: ignore[arg-type]


def errors(error: NotFound) -> None:
    assert_type(error.key, object)
    assert_type(error.message, str)
    root: QaplaError = error
    assert_type(str(root), str)
    assert_type(qapla_db.__version__, str)


def rehearsing(rehearse: Rehearse) -> None:
    assert_type(rehearse("main", rows=1), Rehearsal)
