"""Copies of databases, for tests that each want one of their own."""

from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

CLONE = SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY file_copy")
# A copy has the rights that are inside of the database, but not those on the database.
LET_BUILD = SQL("GRANT CREATE ON DATABASE {} TO {}")


async def copy_database(admin: psycopg.AsyncConnection[Any], source: str, name: str, owner: str) -> None:
    """`admin`: a superuser's connection, in autocommit. Nobody may be connected to `source`. `owner`: the login of the servers."""
    await admin.execute(CLONE.format(Identifier(name), Identifier(owner), Identifier(source)))
    await admin.execute(LET_BUILD.format(Identifier(name), Identifier(f"{owner}_app")))
