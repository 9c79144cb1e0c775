"""A project is removed when its runs have ended: no run begins in it any more, and its runs stay readable."""

from uuid import UUID

import httpx2
import pytest

from application.projects import OpenRunsOfProject, remove_project
from domain.projects import default_project_id
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.sdk_kit import end_of
from tests.integration.system_kit import PATIENCE_S, System, eventually, new_id, request_of
from tidelog import Client
from tidelog.errors import ConflictError, NotFoundError


async def created(http: httpx2.AsyncClient, name: str = "p") -> str:
    return str((await http.post("/v1/projects", json={"name": name})).json()["project_id"])


def is_refused(answer: httpx2.Response, status: int, code: str) -> str:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    return str(problem["detail"])


async def test_a_project_is_removed_once_its_runs_have_ended(shared: System) -> None:
    worker = shared.worker()
    await worker.register("alpha")
    kept, project_id = await created(shared.http, "kept"), await created(shared.http)
    run_id = await shared.start("alpha", project_id=project_id)
    other_id = await shared.start("alpha", project_id=kept)
    step = await worker.step(run_id, "alpha")
    detail = is_refused(await shared.http.delete(f"/v1/projects/{project_id}"), 409, "project-in-use")
    assert run_id in detail and other_id not in detail
    await step.complete("done")
    removed = await shared.http.delete(f"/v1/projects/{project_id}")  # at once: the read model of runs is waited for
    assert removed.status_code == 200 and removed.json()["version"] == 2, removed.text
    again = await shared.http.delete(f"/v1/projects/{project_id}")
    assert (again.status_code, again.json()["version"]) == (200, 2)
    at = {"Tidelog-Position": removed.headers["tidelog-position"]}
    listed = [one["project_id"] for one in (await shared.http.get("/v1/projects", headers=at)).json()["data"]]
    assert kept in listed and project_id not in listed
    refused = await shared.http.post("/v1/runs", json={"agent": "alpha", "project_id": project_id})
    assert "was removed" in is_refused(refused, 404, "unknown-project")
    assert refused.json()["errors"][0]["pointer"] == "/project_id"
    run = (await shared.http.get(f"/v1/runs/{run_id}", headers=at)).json()
    assert (run["status"], run["project_id"], run["result"]) == ("completed", project_id, "done")
    runs = (await shared.http.get("/v1/runs", params={"project_id": project_id}, headers=at)).json()["data"]
    assert [one["run_id"] for one in runs] == [run_id]


async def test_many_open_runs_are_not_all_named(shared: System) -> None:
    await shared.worker("many").register("beta")
    project_id = await created(shared.http)
    for _ in range(7):
        await shared.start("beta", project_id=project_id)
    detail = is_refused(await shared.http.delete(f"/v1/projects/{project_id}"), 409, "project-in-use")
    assert detail.count(", ") == 4 and " and others; " in detail


async def test_what_is_no_project_of_the_tenant_is_not_there(shared: System) -> None:
    tenant_id, key = await shared.tenant("other")
    foreign = await created(shared.http)
    is_refused(await shared.http.delete("/v1/projects/no-id"), 422, "invalid-request")
    is_refused(await shared.http.delete(f"/v1/projects/{default_project_id(DEFAULT_TENANT_ID)}"), 409, "invalid-state")
    run_id = await shared.start(agent="alpha")
    async with shared.client(key) as stranger:
        told = set()
        for project_id in (foreign, str(new_id()), run_id, str(default_project_id(DEFAULT_TENANT_ID))):
            answer = await stranger.delete(f"/v1/projects/{project_id}")
            told.add(is_refused(answer, 404, "not-found").replace(project_id, "…"))
        assert len(told) == 1, "a foreign project cannot be told from one that is not there"
        is_refused(await stranger.delete(f"/v1/projects/{default_project_id(tenant_id)}"), 409, "invalid-state")
    is_refused(await shared.http.delete(f"/v1/projects/{run_id}"), 404, "not-found")
    await shared.settled()
    assert foreign in [one["project_id"] for one in (await shared.http.get("/v1/projects")).json()["data"]]


async def test_a_run_that_begins_while_its_project_is_removed_goes_on(shared: System) -> None:
    """It is answered before the removal is in the log. After that no start is."""
    worker, container, begun = shared.worker("racing"), shared.container, list[str]()
    await worker.register("gamma")
    project_id = await created(shared.http)

    class Raced(OpenRunsOfProject):
        async def first(self, tenant_id: UUID, project_id: UUID, limit: int) -> list[UUID]:
            found = await super().first(tenant_id, project_id, limit)
            begun.append(await shared.start("gamma", project_id=str(project_id)))
            return found

    raced = Raced(container.feed, container.positions, container.reads.runs, PATIENCE_S)
    removed = await remove_project(container.commands, request_of(), UUID(project_id), raced)
    [run_id] = begun
    assert (await shared.events(run_id))[0].position < removed.position
    refused = await shared.http.post("/v1/runs", json={"agent": "gamma", "project_id": project_id})
    is_refused(refused, 404, "unknown-project")
    await (await worker.step(run_id, "gamma")).complete("done")
    run = await shared.ended(run_id)
    assert (run["status"], run["project_id"], run["result"]) == ("completed", project_id, "done")


async def test_the_client_removes_projects(shared: System) -> None:
    worker = shared.worker("sdk")
    await worker.register("delta")
    async with Client(await shared.url(), shared.key) as client:
        project = await client.create_project("sdk")
        assert project.project_id is not None
        started = await client.start_run(agent="delta", project_id=project.project_id)
        with pytest.raises(ConflictError) as caught:
            await client.remove_project(project.project_id)
        assert caught.value.code == "project-in-use"
        await client.cancel_run(started.run_id)
        await end_of(client, started.run_id)
        await client.remove_project(project.project_id)
        assert project.project_id not in [one.project_id for one in await client.projects()]
        with pytest.raises(NotFoundError):
            await client.remove_project(new_id())


async def test_the_read_model_is_what_the_log_says(shared: System) -> None:
    """A check builds the table of projects anew: from creations and removals."""
    project_id = await created(shared.http)
    await shared.http.delete(f"/v1/projects/{project_id}")
    await shared.settled()
    assert (await shared.http.post("/v1/projections/projects/verify", json={})).status_code == 202

    async def equal() -> bool:
        return (await shared.http.get("/v1/projections/projects")).json()["check"]["status"] == "equal"

    await eventually(equal, "the check to find no difference")
