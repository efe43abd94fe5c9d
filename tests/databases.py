"""Databases for tests: migrated ones, which are emptied and used again."""

import secrets
from typing import Any

import psycopg
from sqlalchemy import make_url


class Databases:
    """The databases of a module's tests.

    Making one takes up to a quarter of a second, and most tests need one. So a migrated database whose schema
    a test has left alone is emptied and given to the next test.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._emptied: list[str] = []
        self._fingerprint = ""

    def address(self, name: str) -> str:
        return make_url(self._server).set(database=name).render_as_string(hide_password=False)

    def take(self, template: str) -> str:
        """The name of an empty database that nobody else uses."""
        if template == "template_registry" and self._emptied:
            return self._emptied.pop()
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        if template == "template_registry" and not self._fingerprint:
            with psycopg.connect(self.address(name)) as connection:
                self._fingerprint = fingerprint(connection)
        return name

    def give_back(self, name: str, template: str) -> None:
        if template == "template_registry" and self._empty(name):
            self._emptied.append(name)
            return
        self._drop(name)

    def drop(self) -> None:
        """Drop those that wait for another test."""
        while self._emptied:
            self._drop(self._emptied.pop())

    def _drop(self, name: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def _empty(self, name: str) -> bool:
        """Remove every row. Returns whether the database is as a new one is."""
        with psycopg.connect(self.address(name)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if fingerprint(connection) != self._fingerprint:
                return False
            empty(connection)
            size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        return size is not None and size[0] < MAX_REUSED_BYTES


def empty(connection: psycopg.Connection[Any]) -> None:
    """Remove every row, and begin all sequences again."""
    tables = connection.execute(
        "SELECT quote_ident(tablename) FROM pg_tables"
        " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    ).fetchall()
    # Without triggers, because some tables refuse every change of what is in them.
    connection.execute("SET LOCAL session_replication_role = replica")
    connection.execute(";".join(f"DELETE FROM {table}" for (table,) in tables).encode())
    connection.execute(
        "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)"
        " FROM pg_sequences"
    )


# Deleted rows keep their room. A larger database than this had so many that they would slow later tests down.
MAX_REUSED_BYTES = 16 << 20


def fingerprint(connection: psycopg.Connection[Any]) -> str:
    """A digest of the schema, of its revision, and of the database's settings."""
    found = connection.execute(
        """
        SELECT md5(string_agg(part, E'\\n' ORDER BY part)) FROM (
            SELECT version_num FROM alembic_version
            UNION ALL SELECT format('%s %s', attribute.attrelid::regclass, attribute)
              FROM pg_attribute attribute JOIN pg_class ON pg_class.oid = attrelid
             WHERE relnamespace = 'public'::regnamespace
            UNION ALL SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid))
              FROM pg_constraint WHERE connamespace = 'public'::regnamespace
            UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT format('%s %s', tgenabled, pg_get_triggerdef(oid)) FROM pg_trigger
            UNION ALL SELECT prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            UNION ALL SELECT format('%s', setconfig) FROM pg_db_role_setting
             WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
        ) parts(part)
        """
    ).fetchone()
    return str(found and found[0])
