"""A registry to put builds and models into."""

import pytest

from app.db.session import Database
from tests.integration.app.registry import Registry


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)
