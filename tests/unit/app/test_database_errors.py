"""Which errors of the database pass by themselves."""

import psycopg
import pytest
from procrastinate.exceptions import ConnectorException
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.db.session import is_temporary

PASSES = ("08006", "25006", "25P03", "40001", "40P01", "53300", "55P03", "57P01", "57P03", "58030")
STAYS = ("22001", "22021", "22P02", "23505", "23514", "25P02", "42703", "54000")


def as_sqlalchemy_raises(error: psycopg.Error) -> DBAPIError:
    raised = DBAPIError.instance("SELECT 1", None, error, psycopg.Error)
    assert isinstance(raised, DBAPIError)
    return raised


@pytest.mark.parametrize("sqlstate", PASSES)
def test_trouble_of_the_database_itself_passes(sqlstate: str) -> None:
    error = psycopg.errors.lookup(sqlstate)("told")
    assert is_temporary(error)
    assert is_temporary(as_sqlalchemy_raises(error))


@pytest.mark.parametrize("sqlstate", STAYS)
def test_what_the_statement_itself_causes_stays(sqlstate: str) -> None:
    error = psycopg.errors.lookup(sqlstate)("told")
    assert not is_temporary(error)
    assert not is_temporary(as_sqlalchemy_raises(error))


def test_a_lost_connection_and_an_exhausted_pool_pass() -> None:
    lost = psycopg.OperationalError("server closed the connection unexpectedly")
    assert is_temporary(as_sqlalchemy_raises(lost))
    assert is_temporary(PoolTimeout())
    queue = ConnectorException()
    queue.__cause__ = lost
    assert is_temporary(queue)


def test_other_errors_are_not_the_databases() -> None:
    assert not is_temporary(ConnectorException())
    assert not is_temporary(TimeoutError())
    assert not is_temporary(psycopg.ProgrammingError("the query has 1 placeholder but 2 parameters"))
