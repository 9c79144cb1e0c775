"""What is asked of the routes of schedules, for tests of all routes."""

import httpx2

from tests.integration.system_kit import System


async def use_schedules(shared: System, http: httpx2.AsyncClient) -> None:
    when = {"cron": "30 2 * * *", "time_zone": "Europe/Berlin"}
    made = {"name": "daily", "when": when, "start": {"agent": "other", "input_from": "due_at"}, "overlap": "allow"}
    assert (await http.post("/v1/schedules", json=made)).status_code == 201
    assert len((await http.post("/v1/schedules:preview", json={"when": when, "count": 3})).json()["times"]) == 3
    assert (await http.post("/v1/schedules/daily/pause", json={"reason": "r"})).status_code == 200
    assert (await http.post("/v1/schedules/daily/resume", json={})).status_code == 200
    again = {"Idempotency-Key": "now"}
    first, repeated = [await http.post("/v1/schedules/daily/run-now", json={}, headers=again) for _ in range(2)]
    assert first.status_code == repeated.status_code == 201 and first.json() == repeated.json()
    changed = await http.patch("/v1/schedules/daily", json={"description": "d"}, headers={"If-Match": '"v4"'})
    assert changed.status_code == 200, changed.text
    at = {"Tidelog-Position": changed.headers["tidelog-position"]}
    found = (await http.get("/v1/schedules/daily", headers=at)).json()
    assert (found["description"], found["last"]["what"], len(found["next_times"])) == ("d", "fired", 10)
    assert [one["name"] for one in (await http.get("/v1/schedules", headers=at)).json()["data"]] == ["daily"]
    assert (await http.delete("/v1/schedules/daily")).status_code == 200
