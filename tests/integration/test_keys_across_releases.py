"""Idempotency keys during and after an upgrade: this release and the release before know the keys of each other."""

import asyncio
from typing import Any
from uuid import UUID

import httpx2
import pytest
from uuid_utils.compat import uuid7

from adapters.postgres.migrate import load_migrations
from application.engine.commands.request import CommandOutcome
from domain.kernel import Command, derive_id
from domain.projects import CreateProject, default_project_id
from domain.runs import CancelRun, Plan, StartRun, Step
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.system_kit import System, request_of

[MIGRATION] = [migration.sql for migration in load_migrations() if migration.number == 26]
BEGIN = """
INSERT INTO idempotency_key (key_id, tenant_id, body_sha256, token) VALUES (%(id)s, %(tenant)s, %(body)s, %(token)s)
ON CONFLICT (key_id) DO UPDATE SET
    token = CASE WHEN idempotency_key.begun_at < now() - interval '24 hours' THEN EXCLUDED.token ELSE idempotency_key.token END,
    begun_at = now(), released = false, body_sha256 = EXCLUDED.body_sha256, status = NULL, answer = NULL
WHERE idempotency_key.begun_at < now() - interval '24 hours'
   OR (idempotency_key.status IS NULL AND idempotency_key.body_sha256 = EXCLUDED.body_sha256
       AND (idempotency_key.released OR idempotency_key.begun_at < now() - interval '30 seconds'
            OR idempotency_key.begun_at > now() + interval '30 seconds'))
RETURNING token
"""
"""Of release 0.1.0. Without a row the release looks for the key's answer, and says 409 if there is none."""


class Before:
    """What a process of release 0.1.0 does for requests with an idempotency key."""

    def __init__(self, system: System, principal: UUID) -> None:
        self._system = system
        self._principal = principal

    async def begin(self, path: str) -> UUID | None:
        """The id for the command of a request that is to be carried out. None: the key has been used."""
        key_id = derive_id(DEFAULT_TENANT_ID, f"idempotency:{self._principal}:POST:{path}:k")
        values = {"id": key_id, "tenant": DEFAULT_TENANT_ID, "body": "x", "token": uuid7()}
        async with self._system.container.command_database.connection() as connection:
            row = await (await connection.execute(BEGIN, values)).fetchone()
        return row[0] if row else None

    async def start(self) -> UUID:
        """Starts a run of `alpha` with the key. Returns the id of the run, which is the id of its command."""
        run_id = await self.begin("/v1/runs")
        assert run_id is not None
        await self.carry_out(run_id, start_of(run_id))
        return run_id

    async def carry_out(self, command_id: UUID, command: Command) -> CommandOutcome:
        return await self._system.container.commands.execute(request_of(command_id=command_id, repeatable=True), command)


def start_of(run_id: UUID) -> StartRun:
    plan = Plan(steps=(Step(key="alpha", agent="alpha", agent_version="1"),))
    return StartRun(run_id=run_id, project_id=default_project_id(DEFAULT_TENANT_ID), plan=plan)


@pytest.fixture
async def before(system: System) -> Before:
    await system.worker().register("alpha")
    await system.settled()
    [(principal,)] = await system.sql("SELECT key_id FROM api_key")
    return Before(system, principal)


async def post(system: System, path: str, **body: Any) -> httpx2.Response:
    return await system.http.post(path, json=body, headers={"Idempotency-Key": "k"})


async def refused(system: System, path: str, **body: Any) -> None:
    answer = await post(system, path, **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused"), answer.text


async def test_keys_of_before_the_upgrade_stay_known(system: System, before: Before) -> None:
    await system.sql("DROP TRIGGER idempotency_key_is_a_command ON idempotency_key; DROP FUNCTION idempotency_key_is_a_command")
    run_id = await before.start()
    path = f"/v1/runs/{run_id}/cancel"
    cancel, create = await before.begin(path), await before.begin("/v1/projects")
    assert cancel is not None and create is not None
    await before.carry_out(cancel, CancelRun(run_id=run_id, reason="enough"))
    project_id = derive_id(create, "project")
    await before.carry_out(create, CreateProject(project_id=project_id, name="p", metadata={"n": 1}))
    head = await system.settled()
    await system.sql(MIGRATION)

    run = await post(system, "/v1/runs", agent="alpha")
    assert run.status_code == 201 and run.json()["run_id"] == str(run_id) and run.headers["idempotency-replayed"] == "true"
    cancelled = await post(system, path, reason="enough")
    assert cancelled.status_code == 202 and cancelled.headers["idempotency-replayed"] == "true"
    project = await post(system, "/v1/projects", name="p", metadata={"n": 1})
    assert project.json()["project_id"] == str(project_id) and project.headers["idempotency-replayed"] == "true"
    await refused(system, "/v1/runs", agent="alpha", input=1)
    await refused(system, path, reason="another")
    await refused(system, "/v1/projects", name="p", metadata={"n": True})
    later = [event.topic for event in await system.events() if event.position > head]
    assert later == ["audit.action_recorded"], "nothing but that another cancellation was refused"


async def test_while_both_releases_run_each_knows_the_keys_of_the_other(system: System, before: Before) -> None:
    run_id = await before.start()
    known = await post(system, "/v1/runs", agent="alpha")
    assert known.json()["run_id"] == str(run_id) and known.headers["idempotency-replayed"] == "true"
    await refused(system, "/v1/runs", agent="alpha", input=1)
    first = await post(system, "/v1/projects", name="p")
    assert first.status_code == 201 and "idempotency-replayed" not in first.headers
    assert await before.begin("/v1/projects") is None, "the older process answers 409: the request is to come again"
    assert await system.sql("SELECT count(*) FROM idempotency_key") == [(1,)]


async def test_of_both_releases_at_once_one_carries_the_request_out(system: System, before: Before) -> None:
    run_id = await before.begin("/v1/runs")
    assert run_id is not None
    outcome, answer = await asyncio.gather(before.carry_out(run_id, start_of(run_id)), post(system, "/v1/runs", agent="alpha"))
    assert answer.status_code == 201 and answer.json()["position"] == outcome.position
    assert sum(event.topic == "run.started" for event in await system.events()) == 1
