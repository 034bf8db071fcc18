"""Pages by number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, aliased, contains_eager, joinedload

from qapla_db.errors import InvalidArgument, Misuse, PageNotFound
from qapla_db.query.pages import paginate
from tests.query.models import Airport, Base, City, Dog, Leg, Street, Truck
from tests.support import make_application


@pytest.fixture
def session(each_url: sa.URL) -> Iterator[Session]:
    """A session with seven cities of three names, three streets in each."""
    database = make_application({"main": each_url}).dbs["main"]
    Base.metadata.create_all(database.engine)
    with database.session() as found:
        for number in range(7):
            streets = [Street(id=number * 3 + one + 1, name=f"street {one}") for one in range(3)]
            found.add(City(code=f"c{number}", name=f"name {number % 3}", streets=streets))
            found.flush()
        yield found
    database.dispose()


CITIES = sa.select(City)


class Statements:
    """The statements that a session sends."""

    def __init__(self, session: Session) -> None:
        self.engine = session.get_bind().engine
        self.sent: list[str] = []

    def __enter__(self) -> list[str]:
        sa.event.listen(self.engine, "before_cursor_execute", self.note)
        return self.sent

    def __exit__(self, *error: object) -> None:
        sa.event.remove(self.engine, "before_cursor_execute", self.note)

    def note(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        self.sent.append(statement)


def everything(session: Session, statement: Any, per_page: int = 2) -> list[Any]:
    """The items of all pages."""
    page = paginate(session, statement, per_page=per_page)
    found = list(page)
    while page.has_next:
        page = page.next()
        found += page
    assert page.total == len(found)
    return found


def test_middle_page(session: Session) -> None:
    """A page says where it stands among all."""
    page = paginate(session, CITIES, page=2, per_page=3)
    assert ["c3", "c4", "c5"] == [city.code for city in page]
    assert (7, 2, 3, 3) == (page.total, page.page, page.per_page, page.pages)
    assert (4, 6, 3) == (page.first, page.last, len(page))
    assert (True, 1, True, 3) == (page.has_prev, page.prev_num, page.has_next, page.next_num)
    assert "<page 2 of 3, 3 of 7 items>" == repr(page)


def test_first_and_last_page(session: Session) -> None:
    """At the ends there is no page before or after."""
    first = paginate(session, CITIES, per_page=4)
    assert (False, None, True, 2) == (
        first.has_prev,
        first.prev_num,
        first.has_next,
        first.next_num,
    )
    last = first.next()
    assert (True, 1, False, None) == (last.has_prev, last.prev_num, last.has_next, last.next_num)
    assert (5, 7) == (last.first, last.last)
    assert ["c0", "c1", "c2", "c3"] == [city.code for city in last.prev()]
    assert [] == last.next().items
    with pytest.raises(InvalidArgument, match="before the first"):
        first.prev()


def test_full_last_page(session: Session) -> None:
    """A last page that is full is known to be the last, counted or not."""
    assert not paginate(session, CITIES, per_page=7).has_next
    assert not paginate(session, CITIES, per_page=7, count=False).has_next


def test_beyond_the_end(session: Session) -> None:
    """Beyond the last page there is nothing, but the total is right; or an error, if asked for."""
    page = paginate(session, CITIES, page=9, per_page=3)
    assert ([], 7, 3, 0, 0) == (page.items, page.total, page.pages, page.first, page.last)
    assert (True, 8, False) == (page.has_prev, page.prev_num, page.has_next)
    assert page  # as an object it is there
    with pytest.raises(PageNotFound, match="no page 9; there are 3") as caught:
        paginate(session, CITIES, page=9, per_page=3, error_out=True)
    assert (9, 3) == (caught.value.page, caught.value.pages)
    with pytest.raises(PageNotFound, match=r"no page 4$"):
        paginate(session, CITIES, page=3, per_page=3, count=False, error_out=True).next()


def test_nothing_at_all(session: Session) -> None:
    """Without rows there is one empty page, which is no error."""
    page = paginate(session, sa.select(Leg), error_out=True)
    assert ([], 0, 0, []) == (page.items, page.total, page.pages, list(page.iter_pages()))


def test_huge_page_number(session: Session) -> None:
    """A page number whose offset no database could hold is beyond the end like any other."""
    assert ([], 7) == ((page := paginate(session, CITIES, page=10**18)).items, page.total)


@pytest.mark.parametrize("name", ["page", "per_page", "max_per_page"])
@pytest.mark.parametrize("value", [0, -1, "abc", 1.5, True, None, "", "-1", "1" * 30, "\u00b2"])
def test_wrong_numbers(name: str, value: Any) -> None:
    """What is no whole number of at least 1 is refused before any SQL, by the argument's name."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(InvalidArgument, match=rf"^{name} is a whole number of at least 1, not "):
        paginate(Session(), CITIES, **arguments)


def test_numbers_of_a_query_string(session: Session) -> None:
    """Decimal digits in a string are a number."""
    page = paginate(session, CITIES, page="2", per_page="3")
    assert (2, 3, 3) == (page.page, page.per_page, len(page))


def test_per_page_is_lowered(session: Session) -> None:
    """More items to a page than allowed are lowered to the limit, on the next page as well."""
    assert 100 == paginate(session, CITIES, per_page=10**9).per_page
    page = paginate(session, CITIES, per_page=10**9, max_per_page=2)
    assert (2, 2) == (page.per_page, len(page.next()))
    assert 2 == len(page.next().prev())


def test_one_query_where_the_page_shows_the_total(session: Session) -> None:
    """A page that is not full shows the total without counting."""
    with Statements(session) as sent:
        assert 7 == paginate(session, CITIES, per_page=10).total
        assert 7 == paginate(session, CITIES, page=2, per_page=5).total
    assert 2 == len(sent)


def test_counting_is_apart(session: Session) -> None:
    """Counting is a second query, without order and lock; the first one has no window."""
    statement = CITIES.order_by(City.name).with_for_update()
    with Statements(session) as sent:
        paginate(session, statement, per_page=3)
    assert 2 == len(sent)
    assert "count" not in sent[0].lower()
    assert "ORDER BY" not in sent[1]
    assert "FOR UPDATE" not in sent[1]


def test_without_count(session: Session) -> None:
    """Without a count there is one query, no total, and one more row says what follows."""
    with Statements(session) as sent:
        page = paginate(session, CITIES, page=2, per_page=3, count=False)
    assert 1 == len(sent)
    assert (None, None, True, 3) == (page.total, page.pages, page.has_next, len(page))
    last = page.next()
    assert (None, False, 1) == (last.total, last.has_next, len(last))


def test_bounded_count(session: Session) -> None:
    """A bounded count gives the total up to the bound, and beyond it that there are more."""
    page = paginate(session, CITIES, per_page=2, count=5)
    assert (None, None, 5, True) == (page.total, page.pages, page.more_than, page.has_next)
    assert [1, 2, 3, None] == list(page.iter_pages())
    assert 5 == page.next().more_than
    enough = paginate(session, CITIES, per_page=2, count=7)
    assert (7, 4, None) == (enough.total, enough.pages, enough.more_than)
    with pytest.raises(InvalidArgument, match="count"):
        paginate(session, CITIES, count=0)


@pytest.mark.parametrize(
    ("page", "pages", "expected"),
    [
        (1, 1, [1]),
        (1, 7, [1, 2, 3, 4, 5, 6, 7]),
        (1, 20, [1, 2, 3, 4, 5, None, 19, 20]),
        (10, 20, [1, 2, None, 8, 9, 10, 11, 12, 13, 14, None, 19, 20]),
        (20, 20, [1, 2, None, 18, 19, 20]),
        (30, 20, [1, 2, None, 19, 20]),
    ],
)
def test_iter_pages(session: Session, page: int, pages: int, expected: list[int | None]) -> None:
    """The row of links shows the edges and the surroundings, and gaps between."""
    session.execute(sa.insert(Leg), [{"number": number, "origin": "x"} for number in range(pages)])
    found = paginate(session, sa.select(Leg), page=page, per_page=1)
    assert expected == list(found.iter_pages())


def test_iter_pages_as_asked(session: Session) -> None:
    """How many links there are is up to the caller."""
    page = paginate(session, CITIES, page=4, per_page=1)
    edges = {"left_edge": 1, "left_current": 0, "right_current": 0, "right_edge": 0}
    assert [1, None, 4, None] == list(page.iter_pages(**edges))
    unknown = paginate(session, CITIES, page=4, per_page=1, count=False)
    assert [1, 2, 3, 4, 5, None] == list(unknown.iter_pages())


def test_pages_never_overlap(session: Session) -> None:
    """Rows that tie in the order asked for stand in the order of their key."""
    by_name = everything(session, CITIES.order_by(City.name.desc()))
    assert ["c2", "c5", "c1", "c4", "c0", "c3", "c6"] == [city.code for city in by_name]


OTHERS = CITIES.subquery()
KINDS: list[tuple[Any, int]] = [
    (sa.select(City.name, Street.name).join(Street), 21),
    (sa.select(City).join(Street), 21),
    (sa.select(City.code).join(Street), 21),
    (sa.select(City.code).where(City.code == Street.city_code), 21),
    (sa.select(City.code).select_from(Street).join(City), 21),
    (sa.select(Street.name).outerjoin(Street.city), 21),
    (sa.select(City.code).join(Truck, Truck.plate != City.code), 0),
    (sa.select(City.code).join(OTHERS, OTHERS.c.code != City.code), 42),
    (sa.select(City.name), 7),
    (sa.select(City.name).distinct(), 3),
    (sa.select(City).distinct().join(Street), 7),
    (sa.select(City.name, sa.func.count()).group_by(City.name), 3),
    (sa.select(sa.func.count(City.code)), 1),
    (sa.select(sa.func.coalesce(sa.func.max(City.code), "x")), 1),
    (sa.select(sa.func.lower(City.name).label("low")).distinct(), 3),
    (sa.select(sa.func.coalesce(City.size, 1)), 7),
    (sa.select(aliased(City)), 7),
    (sa.select(City.__table__), 7),
    (sa.select(CITIES.subquery().c.name), 7),
    (sa.select(aliased(City, CITIES.limit(5).subquery())), 5),
    (
        sa.select(
            sa.select(City.name).where(City.code == Street.city_code).scalar_subquery()
        ).select_from(Street),
        21,
    ),
    (sa.select(sa.func.row_number().over(order_by=City.code)), 7),
    (sa.union_all(CITIES, CITIES).subquery().select(), 14),
]


def test_every_kind_of_select(session: Session) -> None:
    """Pages of joins, groups, distinct rows and expressions are valid SQL and lose no row."""
    for statement, expected in KINDS:
        found = everything(session, statement)
        assert expected == len(found), statement
        whole = list(session.execute(statement))
        if len(statement.column_descriptions) == 1:
            whole = [row[0] for row in whole]
        assert sorted(map(repr, whole)) == sorted(map(repr, found)), statement


def test_joined_rows_are_told_apart(session: Session) -> None:
    """The order has the key of every table that may repeat a row, of one looked up by key none."""

    def order(statement: Any) -> str:
        with Statements(session) as sent:
            paginate(session, statement, count=False)
        return re.sub(r"\s+", " ", sent[0]).partition("ORDER BY ")[2].partition(" LIMIT")[0]

    assert "city.code, street.id" == order(sa.select(City.code).join(Street))
    assert "city.code, street.id" == order(sa.select(City).join(City.streets))
    crossed = sa.select(City).where(City.code == Street.city_code)
    assert "city.code, street.id" == order(crossed)
    assert "street.id" == order(sa.select(Street).join(Street.city))
    assert "street.id" == order(sa.select(Street.name).join(City, Street.city_code == City.code))
    assert "city.code" == order(CITIES.where(City.streets.any(Street.name == "street 1")))


def test_rows_of_several_columns(session: Session) -> None:
    """A select of several columns gives rows, of one column values, of an entity instances."""
    rows = paginate(session, sa.select(City.code, City.name), per_page=2)
    assert [("c0", "name 0"), ("c1", "name 1")] == rows.items
    assert "c0" == rows.items[0].code
    assert ["c0", "c1"] == paginate(session, sa.select(City.code), per_page=2).items
    assert isinstance(paginate(session, CITIES).items[0], City)


def test_model(session: Session) -> None:
    """A model, or an alias of one, stands for a select of it."""
    assert ["c0", "c1"] == [city.code for city in paginate(session, City, per_page=2)]
    assert ["c2", "c3"] == [c.code for c in paginate(session, aliased(City), page=2, per_page=2)]
    assert "c6" == paginate(session, City, per_page=3).next().next().items[0].code


def test_as_dict(session: Session) -> None:
    """The dict has what a client of JSON needs; rows become mappings."""
    page = paginate(session, sa.select(City.code, City.name), per_page=2)
    assert {
        "items": [{"code": "c0", "name": "name 0"}, {"code": "c1", "name": "name 1"}],
        "page": 1,
        "per_page": 2,
        "total": 7,
        "more_than": None,
        "pages": 4,
        "first": 1,
        "last": 2,
        "has_prev": False,
        "prev_num": None,
        "has_next": True,
        "next_num": 2,
    } == page.as_dict()
    assert ["c0"] == paginate(session, CITIES, per_page=1).as_dict(lambda city: city.code)["items"]


def test_joined_eager_loading(session: Session) -> None:
    """Collections that are loaded with a join change neither the items nor the total."""
    session.expunge_all()
    page = paginate(session, CITIES.options(joinedload(City.streets)), page=3, per_page=3)
    assert ["c6"] == [city.code for city in page]
    assert 3 == len(page.items[0].__dict__["streets"])
    assert 7 == page.total


def test_joins_that_repeat_with_joined_eager_loading(session: Session) -> None:
    """An instance that a join repeats is not made unique on one page and shown on the next."""
    eager = joinedload(City.streets)
    repeated = CITIES.join(Street).options(eager)
    with pytest.raises(
        InvalidArgument, match=r"may repeat rows of City, .*\.distinct\(\).*selectinload"
    ):
        paginate(session, repeated, per_page=2)
    alias = aliased(City)
    with pytest.raises(InvalidArgument, match="may repeat rows of City"):
        paginate(session, sa.select(alias).join(alias.streets).options(joinedload(alias.streets)))
    several = sa.select(City, Street.name).join(Street).options(eager)
    with pytest.raises(InvalidArgument, match="may repeat rows of City"):
        paginate(session, several)
    assert 21 == len(everything(session, several.add_columns(Street.id)))
    for statement in (
        repeated.distinct(),
        CITIES.where(City.streets.any(Street.name != "x")).options(eager),
    ):
        found = everything(session, statement)
        assert [f"c{number}" for number in range(7)] == [city.code for city in found]
    towards_one = sa.select(Street).join(Street.city).options(joinedload(Street.city))
    assert 21 == len(set(everything(session, towards_one)))
    nested = towards_one.options(joinedload(Street.city).joinedload(City.streets))
    assert 21 == len(set(everything(session, nested)))


def test_inheritance(session: Session) -> None:
    """Models that inherit are paginated as themselves."""
    session.add_all([Dog(name="a"), Dog(name="b"), Truck(plate="x", tons=1)])
    session.flush()
    assert ["a", "b"] == [dog.name for dog in everything(session, sa.select(Dog), 1)]
    assert [1] == everything(session, sa.select(Truck.tons))


def test_pending_instances_are_flushed(session: Session) -> None:
    """What the session has not sent yet is on the page, and counted."""
    session.add(City(code="a", name="new"))
    page = paginate(session, CITIES, per_page=1)
    assert ("a", 8) == (page.items[0].code, page.total)


def test_refusals(session: Session) -> None:
    """A select with a limit, or no select at all, says what to do."""
    for limited in (CITIES.limit(2), CITIES.offset(2), CITIES.fetch(2)):
        with pytest.raises(InvalidArgument, match="LIMIT or OFFSET"):
            paginate(session, limited)
    eager = CITIES.join(City.streets).options(contains_eager(City.streets))
    with pytest.raises(InvalidArgument, match=r"fills City\.streets .* selectinload"):
        paginate(session, eager)
    towards_one = sa.select(Street).join(Street.city).options(contains_eager(Street.city))
    assert 21 == len(everything(session, towards_one))
    with pytest.raises(Misuse, match="select"):
        paginate(session, sa.union(CITIES, CITIES))  # type: ignore[call-overload]
    for unmapped in (Base, int):
        with pytest.raises(Misuse, match=f"mapped class or a select.*not {unmapped.__name__};"):
            paginate(session, unmapped)


def test_closed_session(session: Session) -> None:
    """A page outlives its session; only to turn it needs one."""
    page = paginate(session, sa.select(City.code), per_page=2)
    session.close()
    assert (["c0", "c1"], 7) == (page.items, page.total)
    with pytest.raises(sa.exc.InvalidRequestError, match="closed"):
        page.next()


def test_distinct_on(postgresql_database_url: sa.URL) -> None:
    """One row a group, of PostgreSQL's DISTINCT ON, is paginated by its groups."""
    database = make_application({"main": postgresql_database_url}).dbs["main"]
    Base.metadata.create_all(database.engine)
    with database.session() as session:
        session.add_all(Airport(code=str(number), name=f"n{number % 3}") for number in range(9))
        session.flush()
        statement = sa.select(Airport.code)
        if hasattr(postgresql, "distinct_on"):  # SQLAlchemy 2.1
            statement = statement.ext(postgresql.distinct_on(Airport.name))
        else:
            statement = statement.distinct(Airport.name)
        assert ["0", "1", "2"] == everything(session, statement)
        assert ["8", "7", "6"] == everything(
            session, statement.order_by(Airport.name.desc(), Airport.id.desc())
        )
    database.dispose()
