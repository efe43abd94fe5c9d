"""Cursors of pages."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.errors import Invalid
from app.registry.pages import Cursor

times = st.datetimes(
    datetime(1970, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=9, minutes=30))]),
)


@given(times, st.uuids(), st.none() | st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_cursor_comes_back_as_it_went_out(at: datetime, id_: UUID, of: str | None) -> None:
    cursor = Cursor(at, id_, of)
    assert Cursor.parse(str(cursor)) == cursor
    assert str(cursor).replace("-", "").replace("_", "").isalnum()  # needs no quoting in a URL


@given(st.text(max_size=60))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is not a cursor of this registry"):
        Cursor.parse(text)


def test_a_time_without_zone_is_refused() -> None:
    naive = str(Cursor(datetime(2026, 1, 1), UUID(int=1)))  # noqa: DTZ001
    with pytest.raises(Invalid, match="is not a cursor of this registry"):
        Cursor.parse(naive)
