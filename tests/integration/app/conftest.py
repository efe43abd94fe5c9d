"""A registry to put builds and models into."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from app.db.session import Database
from app.main import create_app
from app.settings import Settings
from tests.integration.app.registry import Registry


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@contextmanager
def _registry(postgres: str) -> Iterator[Registry]:
    name = f"shared_{secrets.token_hex(6)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_registry".encode())
    database = Database(make_url(postgres).set(database=name).render_as_string(hide_password=False))
    yield Registry(database)
    database.close()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="package")
def unchanged(postgres: str) -> Iterator[Registry]:
    """An empty registry for all the tests that must leave it empty: it saves each a database of its own."""
    with _registry(postgres) as registry:
        yield registry


@pytest.fixture(scope="package")
def shared(postgres: str) -> Iterator[Registry]:
    """A registry for tests that look at builds of their own alone, whatever else is in it."""
    with _registry(postgres) as registry:
        yield registry


@pytest.fixture(scope="package")
def unchanged_api(unchanged: Registry) -> Iterator[TestClient]:
    """The API over the empty registry, and over no AWS."""
    settings = Settings.model_validate(
        {
            "database_url": unchanged.database.conninfo,
            "aws_endpoint_url": "http://127.0.0.1:1",
            "access": "open",
        }
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client
