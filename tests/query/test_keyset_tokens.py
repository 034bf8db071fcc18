"""Tokens of keyset pages, as a client may send them."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qapla_db.errors import InvalidToken
from qapla_db.query.keyset import paginate_keyset
from qapla_db.query.tokens import LONGEST
from tests.query.test_keyset import TYPES, Base, Thing, Wide
from tests.support import make_application

ALL = list(TYPES)
MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def session(each_url: sa.URL) -> Iterator[Session]:
    """A session with rows of every type."""
    database = make_application({"main": each_url}).dbs["main"]
    Base.metadata.create_all(database.engine)
    with database.session() as found:
        found.add_all(
            Wide(id=number, **{name: values[-2] for name, values in TYPES.items()})
            for number in range(3)
        )
        found.flush()
        yield found
    database.dispose()


def read(session: Session, token: Any, order: Any = ALL) -> Any:
    """A page after a token."""
    return paginate_keyset(session, sa.select(Wide.id), order_by=order, after=token, per_page=1)


def parts_of(token: str) -> list[Any]:
    """What is in a token."""
    found: list[Any] = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return found


def token_of(parts: Any) -> str:
    """A token with something else in it."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@MANY
@given(st.text() | st.binary() | st.none() | st.integers() | st.text("abcdefgh0-_", max_size=60))
def test_garbage(session: Session, token: Any) -> None:
    """Whatever is no token is an InvalidToken, without a query."""
    if token is not None:
        with NoSQL(session), pytest.raises(InvalidToken):
            read(session, token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "A" * (LONGEST + 1),
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
        base64.urlsafe_b64encode(b"1" * 3000).decode(),
        token_of([1, "x" * 12, 0, [1, 2]]),
        token_of({"a": 1}),
        token_of(None),
        base64.urlsafe_b64encode(b"[1,NaN,0,[]]").decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_known_garbage(session: Session, token: str) -> None:
    """Too long, too deep, too large, not JSON, not text: an InvalidToken, without a query."""
    with NoSQL(session), pytest.raises(InvalidToken):
        read(session, token)


@MANY
@given(st.integers(0, 4000), st.integers(0, 7))
def test_flipped_bits(session: Session, place: int, bit: int) -> None:
    """A damaged token is an InvalidToken or another position, no error of the database."""
    token = read(session, None).next_token
    damaged = bytearray(token, "ascii")
    damaged[place % len(damaged)] ^= 1 << bit
    check_harmless(session, damaged.decode("latin-1"))


def check_harmless(session: Session, token: str, order: Any = ALL) -> None:
    """A token gives a page or an InvalidToken."""
    try:
        page = read(session, token, order)
    except InvalidToken:
        return
    assert len(page) <= 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(
        [
            "nan",
            "inf",
            "NaN",
            "-Infinity",
            "1E+999999",
            "1e400",
            "sNaN",
            "\0",
            "\ud800",
            "2024-01-01T00:00:00+00:00",
            "2024-01-01",
            "0001-01-01",
            "LOW",
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=1),
    max_leaves=3,
)


@settings(MANY, max_examples=300)
@given(st.sampled_from(ALL), json_values)
def test_forged_values(session: Session, name: str, value: Any) -> None:
    """A value of another type than the column's never reaches the database."""
    parts = parts_of(read(session, None, [name]).next_token)
    parts[3][0] = value
    check_harmless(session, token_of(parts), [name])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("integer", "1"),
        ("integer", True),
        ("integer", 2**64),
        ("boolean", 1),
        ("text", 1),
        ("double", 1.5),
        ("amount", "much"),
        ("day", "2024-13-01"),
        ("moment", "2024-01-01T00:00:00+00:00"),
        ("identity", "no"),
        ("grade", "NOPE"),
        ("word", "beta"),
        ("blob", "*"),
        ("span", [10**12, 0, 0]),
    ],
)
def test_wrong_types(session: Session, name: str, value: Any) -> None:
    """A value that the column cannot have is an InvalidToken, without a query."""
    parts = parts_of(read(session, None, [name]).next_token)
    parts[3][0] = value
    with NoSQL(session), pytest.raises(InvalidToken):
        read(session, token_of(parts), [name])


class Shift(DeclarativeBase):
    """Base of the model with times of day in a zone."""


class Duty(Shift):
    """Moments and times of day, with their offsets."""

    __tablename__ = "duty"
    id: Mapped[int] = mapped_column(primary_key=True)
    start: Mapped[dt.time] = mapped_column(sa.Time(timezone=True))
    since: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True))


@pytest.mark.parametrize(
    ("offset", "is_one"),
    [
        ("+15:59:59", True),
        ("-15:59:59", True),
        ("+16:00", False),
        ("-16:00", False),
        ("+23:59:59", False),
        ("+01:00:00.5", False),
    ],
)
@pytest.mark.parametrize(("name", "value"), [("start", ""), ("since", "2024-01-01T")])
def test_offsets(
    postgresql_database_url: sa.URL, name: str, value: str, offset: str, is_one: bool
) -> None:
    """An offset that PostgreSQL has not is an InvalidToken, without a query."""
    with make_application({"main": postgresql_database_url}) as app:
        Shift.metadata.create_all(app.dbs["main"].engine)
        with app.dbs["main"].session() as session:
            noon = dt.time(12, tzinfo=dt.UTC)
            since = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
            session.add_all(Duty(id=at, start=noon, since=since) for at in range(3))
            page = paginate_keyset(session, Duty, order_by=[name], per_page=1)
            parts = parts_of(page.next_token or "")
            parts[3][0] = f"{value}00:00:00{offset}"

            def read_on() -> object:
                after = token_of(parts)
                return paginate_keyset(session, Duty, order_by=[name], after=after, per_page=1)

            if is_one:
                read_on()
                return
            with NoSQL(session), pytest.raises(InvalidToken):
                read_on()


@pytest.mark.parametrize("flags", [4, -1, True, None, "1", 1.0])
def test_wrong_flags(session: Session, flags: Any) -> None:
    """A token with flags that nobody set is an InvalidToken."""
    parts = parts_of(read(session, None).next_token)
    with NoSQL(session), pytest.raises(InvalidToken):
        read(session, token_of([*parts[:2], flags, parts[3]]))


@pytest.mark.parametrize("version", [2, True, 1.5, None])
def test_other_version(session: Session, version: Any) -> None:
    """A token of another version says so."""
    parts = parts_of(read(session, None).next_token)
    with NoSQL(session), pytest.raises(InvalidToken, match="version"):
        read(session, token_of([version, *parts[1:]]))


@pytest.mark.parametrize(
    "order",
    [
        ["-day"],
        ["day", "text"],
        ["moment"],
        [Wide.day.desc().nulls_last()],
        [sa.func.coalesce(Wide.day, Wide.day)],
    ],
)
def test_other_order(session: Session, order: Any) -> None:
    """A token of one order is refused by any other, also by its reverse."""
    token = read(session, None, ["day"]).next_token
    with NoSQL(session), pytest.raises(InvalidToken, match="another order"):
        read(session, token, order)


def test_other_model(session: Session) -> None:
    """A token of one model is refused by another."""
    session.add_all(Thing(batch=number, number="1") for number in range(2))
    page = paginate_keyset(session, sa.select(Thing), order_by="a", per_page=1)
    with pytest.raises(InvalidToken, match="another order"):
        read(session, page.next_token, ["integer"])


def test_constants_of_an_order(session: Session) -> None:
    """Orders by expressions that differ in a constant only are told apart."""
    token = read(session, None, [sa.func.coalesce(Wide.integer, 0)]).next_token
    with pytest.raises(InvalidToken, match="another order"):
        read(session, token, [sa.func.coalesce(Wide.integer, 1)])


def test_survives_a_restart(session: Session) -> None:
    """A token of an earlier process is understood: nothing in it is of this one."""
    known = parts_of(read(session, None, ["text", "-day"]).next_token)
    assert "3a350bb801da" == known[1]


class NoSQL:
    """No statement is sent inside."""

    def __init__(self, session: Session) -> None:
        self.engine = session.get_bind().engine

    def __enter__(self) -> None:
        sa.event.listen(self.engine, "before_cursor_execute", _refuse)

    def __exit__(self, *error: object) -> None:
        sa.event.remove(self.engine, "before_cursor_execute", _refuse)


def _refuse(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
    raise AssertionError(f"sent: {statement}")


def test_special_numbers(session: Session) -> None:
    """Infinity and NaN, where a database has them, are positions like others; else no token."""
    name = session.get_bind().dialect.name
    specials = [float("inf"), float("-inf"), float("nan")]
    had = {"postgresql": specials, "sqlite": specials[:2]}.get(name, [])
    parts = parts_of(read(session, None, "double").next_token)
    for lacking in specials[len(had) :]:
        parts[3][0] = repr(lacking)
        with NoSQL(session), pytest.raises(InvalidToken):
            read(session, token_of(parts), "double")
    session.execute(sa.delete(Wide))
    values = [1.0, *had]
    session.add_all(Wide(id=number, double=value) for number, value in enumerate(values))
    session.flush()
    for order in ("double", "-double"):
        found = []
        page = read(session, None, order)
        while True:
            found += page.items
            if page.next_token is None:
                break
            page = read(session, page.next_token, order)
        wanted = [one for one in (2, 0, 1, 3) if one < len(values)]
        assert (wanted if order == "double" else wanted[::-1]) == found
    if not had:
        session.add(Wide(id=9, double=specials[0]))
        with pytest.raises(sa.exc.ProgrammingError, match="inf can not be used with MySQL"):
            session.flush()
