"""What the doctor says of the processes of a server, and of work that none of them does."""

from api.cli.diagnosis.findings import Diagnosis
from api.cli.diagnosis.members import examine_members


def test_the_doctor_says_what_nobody_does() -> None:
    here = {"place": "here:7", "joined_at": "", "alive": True, "units": ["projection:runs", "relay", "timers", "sweeper", "upkeep"]}
    gone = {"place": "there:7", "joined_at": "", "alive": False, "units": ["sagas:0"]}
    found = Diagnosis()
    consumers, streams = {"runs": {}, "agents": {}, "sagas:0": {}, "trigger-matcher": {}}, {"relay": {}, "fanout": {}}
    examine_members(found, {"members": [here, gone], "consumers": consumers, "streams": streams})
    assert [(finding.subject, finding.status) for finding in found.findings] == [
        ("member", "ok"),
        ("member", "note"),
        ("members", "wrong"),
    ]
    told = "bulk-actions, fanout, 1 projections, 1 partitions of the sagas, schedules, triggers"
    assert found.findings[-1].detail == f"nobody does: {told}"
