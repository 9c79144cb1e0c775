"""A run with the parts of a step and a child, as the log has them, and the reading of them."""

import httpx2

from domain import projects, runs
from domain.failures import Failure
from domain.plans import Each
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.system_kit import System, append, new_id


async def use_parts(shared: System, http: httpx2.AsyncClient) -> None:
    """Reads the parts of a step, and a child run, as the log has them."""
    run_id, child, project_id = new_id(), new_id(), projects.default_project_id(DEFAULT_TENANT_ID)
    plan = runs.Plan(steps=(runs.Step(key="map", agent="nobody", each=Each(over="input", on_failure="continue")),))
    parts = [runs.PartScheduled(step="map", part=n, agent_run_id=new_id(), agent="nobody", input=n) for n in (0, 1)]
    done, failed = (part.agent_run_id for part in parts)
    assert done is not None and failed is not None
    error = Failure(type="E", message="broken")
    await append(
        shared, run_id, run_id, 0, runs.RunStarted(project_id=project_id, plan=plan, input=[0, 1]),
        runs.StepStarted(step="map", form="each", items=(0, 1)), *parts,
        runs.PartCompleted(step="map", part=0, execution_id=done, result="done"),
        runs.PartFailed(step="map", part=1, execution_id=failed, error=error, tolerated=True),
    )  # fmt: skip
    above = runs.Parent(run_id=run_id, step="map")
    position = await append(shared, child, child, 0, runs.RunStarted(project_id=project_id, plan=plan, parent=above))
    waits = {"Tidelog-Position": str(position)}
    listed = (await http.get(f"/v1/runs/{run_id}/steps/map/parts", headers=waits)).json()["data"]
    assert [(part["status"], part["input"], part["result"]) for part in listed] == [("completed", 0, "done"), ("failed", 1, None)]
    assert len((await http.get(f"/v1/runs/{run_id}/steps/map/parts", params={"limit": 1})).json()["data"]) == 1
    [found] = (await http.get(f"/v1/runs/{run_id}/children", headers=waits)).json()["data"]
    assert found["run_id"] == str(child) and found["parent"] == {"run_id": str(run_id)}
    for value, held in (("parts/0/input", 0), ("parts/0/result", "done"), ("parts/1/error", error.model_dump(mode="json"))):
        answer = await http.get(f"/v1/runs/{run_id}/steps/map/{value}", headers=waits)
        assert (answer.status_code, answer.json()) == (200, held)
    assert (await http.get(f"/v1/runs/{run_id}", headers=waits)).json()["steps"][0]["parts"]["started"] == 2
