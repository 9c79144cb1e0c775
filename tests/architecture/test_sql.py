"""Statements are fixed texts, and each read model uses tables of its own."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from projections.kernel import Projection
from projections.registry import PROJECTIONS
from tests.architecture.sources import ROOT, functions_around, parsed, python_files

MIGRATIONS = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "migrations").glob("*.sql")))
TABLES = set(re.findall(r"^CREATE (?:UNLOGGED )?TABLE (\w+)", MIGRATIONS, re.MULTILINE))

NOT_READ_MODELS = {
    "event", "command", "log_head", "tracking", "history", "history_mark", "log_identity",  # the log
    "checkpoint", "parked_event",  # the progress of consumers
    "projection_build", "projection_previous", "projection_installation",  # versions of read models
    "idempotency_key",  # answers to requests
    "breaker_count",  # how calls ended, for breakers
    "upkeep",  # the chores of the server
    "access_rights",  # the roles of the database
    "snapshot",  # states of long streams
    "member", "lease",  # the members that do the work of the engine
    "worker_problem",  # reports of workers
    "tool_limit", "tool_permit", "permit_holder",  # limits of tools
    "worker_session", "worker_offer", "session_host",  # sessions of workers
    "browser_session", "sign_in_link",  # browsers that are signed in
    "api_key_use",  # when keys were last used
    "hook_secret",  # what proves deliveries of webhooks
    "installation_secret",  # what lease tokens are made with
    "work_log", "work_log_tally",  # lines of agents and tools
    "blob", "blob_chunk", "blob_upload", "blob_usage", "blob_reference",  # contents that are too large for events
}  # fmt: skip

REVIEWED = {
    # The given arguments choose one of a few fixed texts. Values are parameters.
    ("adapters/postgres/log/feed.py", "PostgresEventFeed._fetch"),
    # The statement is one of six constants, by the filters.
    ("projections/runs/walks.py", "page"),
    ("projections/runs/walks.py", "looked"),
    ("projections/runs/walks.py", "_sparsest"),
    ("projections/runs/walks.py", "counted"),
    # The statement is a constant of `WALKS`, by the filters.
    ("projections/approvals.py", "ApprovalQueries.list"),
    # The statement is one of four constants.
    ("projections/invocations/lists.py", "list_invocations"),
    ("projections/invocations/lists_as_of.py", "list_invocations_as_of"),
    ("projections/invocations/lists.py", "floor_of"),
    # The statement is one of six constants.
    ("projections/audit.py", "list_entries"),
    # The statement is one of four constants.
    ("projections/runs/rows.py", "_write"),
    # Owners, grants and policies, composed of the names in `TABLES` and of names from the catalogue.
    ("adapters/postgres/rights.py", "_together"),
    # A copy of a policy that the catalogue has.
    ("projections/engine/versions.py", "_set_policies"),
    # The text of a migration: a file of this release, checked by its SHA-256.
    ("adapters/postgres/migrate.py", "_apply"),
    # The statements that make a plug-in's tables: code of the installed distribution, like its handler.
    ("projections/engine/versions.py", "run_ddl"),
}
"""Places where the statement is no constant. A person has reviewed each place."""

SQL_TEXT = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|CREATE|ALTER|DROP|GRANT|COPY|LISTEN|NOTIFY|SET)\b")
REVIEWED_TEXTS = {
    # Column names and directions are literals of the function itself.
    ("adapters/postgres/log/feed.py", "tenant_query"),
    # Conditions and orders are constants of `WALKS`.
    ("projections/audit.py", "_list"),
    ("projections/audit.py", "_end"),
    ("projections/runs/walks.py", "_page"),
    ("projections/runs/walks.py", "_looked"),
    ("projections/runs/walks.py", "_depth"),
    ("projections/runs/walks.py", "_of_each"),
    ("projections/runs/walks.py", "_each_page"),
    ("projections/runs/walks.py", "_several_page"),
    ("projections/runs/walks.py", "_counts"),
    ("projections/invocations/lists.py", "_statement"),
    ("projections/invocations/lists.py", "_floor"),
    ("projections/invocations/lists_as_of.py", "_statement"),
}


def test_every_projection_has_tables_of_its_own() -> None:
    owned = [table for projection in PROJECTIONS for table in projection.tables]
    assert len(owned) == len(set(owned)), "two projections write one table"
    assert set(owned) <= TABLES
    assert TABLES - set(owned) == NOT_READ_MODELS


def test_projections_are_named_once() -> None:
    names = [projection.name for projection in PROJECTIONS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda projection: projection.name)
def test_projection_writes_no_table_of_another(projection: Projection) -> None:
    place = Path(f"projections/{projection.name}")
    modules = [parsed(path) for path in python_files(str(place))] if (ROOT / place).is_dir() else [parsed(place.with_suffix(".py"))]
    constants = (n for module in modules for n in ast.walk(module) if isinstance(n, ast.Constant))
    texts = " ".join(n.value for n in constants if isinstance(n.value, str))
    written = set(re.findall(r"\b(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", texts)) - {"SET"}
    assert written == set(projection.tables)


def statements() -> Iterator[tuple[Path, str, ast.Call]]:
    """Every call that passes a statement to Postgres, and the function around the call."""
    for path in python_files("adapters", "projections", "api", "application"):
        for function, node in functions_around(parsed(path)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            receiver = ast.unparse(node.func.value)
            if node.func.attr in ("execute", "executemany") and not receiver.endswith("commands"):  # a method of the command loop
                yield path, function, node


def is_fixed(node: ast.expr, path: Path, function: str) -> bool:
    """Whether an expression can only be a text of the source code, or a text that psycopg composes of quoted parts."""
    match node:
        case ast.Constant():
            return True
        case ast.JoinedStr(values=parts):
            return all(
                isinstance(part, ast.Constant)
                or (isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and part.value.id.isupper()
                    and is_fixed(part.value, path, function))
                for part in parts
            )  # fmt: skip
        case ast.IfExp(body=body, orelse=orelse):
            return is_fixed(body, path, function) and is_fixed(orelse, path, function)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return is_fixed(left, path, function) and is_fixed(right, path, function)
        case ast.Call(func=ast.Name(id="SQL") | ast.Attribute(attr="SQL"), args=[text]):
            return isinstance(text, ast.Constant)
        case ast.Call(func=ast.Attribute(attr="format", value=ast.Call() as template)):
            return is_fixed(template, path, function)
        case ast.Name() | ast.Attribute(value=ast.Name(id="self")):
            values = assigned(ast.unparse(node), path, function)
            return bool(values) and all(is_fixed(value, *where) for where, value in values)
    return False


def assigned(name: str, path: Path, function: str) -> list[tuple[tuple[Path, str], ast.expr]]:
    """All values that are assigned to a name, each with its file and function: in the function (or class) first, then in the
    module, then in the module from which the name is imported."""
    tree = parsed(path)
    local: list[tuple[tuple[Path, str], ast.expr]] = []
    outer: list[tuple[tuple[Path, str], ast.expr]] = []
    for where, node in functions_around(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(ast.unparse(target) == name for target in targets):
                mine = where == function or (name.startswith("self.") and where.split(".")[0] == function.split(".")[0])
                (local if mine else outer if not where else []).append(((path, where), node.value))
        elif isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            source = Path(*node.module.split(".")).with_suffix(".py")
            if (ROOT / source).is_file():
                outer += assigned(name, source, "")
    return local or outer


SQL_ROOMS = (Path("adapters/postgres"), Path("projections"), Path("migrations"))
OWN_SERVER = Path("adapters/embedded/postgres_server.py")
"""This module creates the role and the database of the server that it starts. The module uses no table."""


def test_sql_stands_in_its_rooms() -> None:
    """Checks the calls that pass statements to Postgres, and all texts that begin like a statement."""
    places = {path for path, _, _ in statements()}
    for path in python_files("domain", "application", "projections", "adapters", "api"):
        texts = (node.value for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str))
        if any(SQL_TEXT.match(text) for text in texts):
            places.add(path)
    assert {path for path in places if not any(path.is_relative_to(room) for room in SQL_ROOMS)} == {OWN_SERVER}


def test_statements_are_fixed_texts() -> None:
    found = {(str(path), function) for path, function, call in statements() if not is_fixed(call.args[0], path, function)}
    assert found == REVIEWED


def test_there_are_statements_to_check() -> None:
    assert sum(1 for _ in statements()) > 40


def test_no_statement_is_put_together_from_values() -> None:
    """Finds f-strings, `%`, `+` and `format` on SQL with parts that are no constants, wherever the statement is executed."""
    found = set()
    for path in python_files("adapters", "projections", "api", "application"):
        for function, node in functions_around(parsed(path)):
            text = first_text(node)
            if text is not None and SQL_TEXT.match(text) and isinstance(node, ast.expr) and not is_fixed(node, path, function):
                found.add((str(path), function))
    assert found == REVIEWED_TEXTS


def first_text(node: ast.AST) -> str | None:
    """The first text of an expression that composes a string."""
    match node:
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
            return text
        case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod() | ast.Add()):
            return text
        case ast.Call(func=ast.Attribute(attr="format", value=ast.Constant(value=str(text)))):
            return text
    return None


def test_the_check_itself_tells_fixed_from_built() -> None:
    here = Path("adapters/postgres/log/event_store.py")

    def fixed(source: str) -> bool:
        return is_fixed(ast.parse(source, mode="eval").body, here, "")

    assert fixed("'SELECT 1'")
    assert fixed("f'SELECT {EVENT_COLUMNS} FROM event'")
    assert fixed("READ_STREAM_SQL")
    assert fixed("SQL('LISTEN {}').format(Identifier(name))")
    assert not fixed("f'SELECT {name} FROM event'")
    assert not fixed("'SELECT %s' % name")
    assert not fixed("'SELECT ' + name")
    assert not fixed("'SELECT {}'.format(name)")
    assert not fixed("unknown")
