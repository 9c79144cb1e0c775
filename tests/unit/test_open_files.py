"""Each connection is an open file: a process raises its limit as far as its account may, and accepts no more connections."""

import asyncio
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.cli.diagnosis import diagnose
from api.http.conventions.door import Limits
from api.open_files import SPARE_FILES, most_open_files
from api.settings import Settings

RAISED = """
import json, resource
from api.open_files import raise_open_files
print(json.dumps([raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE), raise_open_files()]))
"""


def test_the_limit_is_raised_as_far_as_the_account_may() -> None:
    def lowered() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 900))

    done = subprocess.run([sys.executable, "-c", RAISED], capture_output=True, check=True, preexec_fn=lowered)
    assert json.loads(done.stdout) == [900, 900, 900, 900]


@pytest.mark.parametrize(("files", "connections"), [(1_000_000, 500), (700, 444), (10, SPARE_FILES)])
def test_connections_leave_files_to_the_rest_of_the_process(files: int, connections: int) -> None:
    assert Limits.of(Settings(max_connections=500), files).connections == connections


@pytest.mark.parametrize(("connections", "status"), [(1, "ok"), (1_000_000, "warning")])
def test_the_doctor_says_whether_there_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connections: int, status: str
) -> None:
    monkeypatch.setenv("TIDELOG_MAX_CONNECTIONS", str(connections))
    monkeypatch.setattr("api.cli.diagnosis.installation.most_open_files", lambda: min(most_open_files(), 10_000))
    diagnosis: Any = asyncio.run(diagnose(tmp_path, None))
    [finding] = [finding for finding in diagnosis.findings if finding.subject == "open files"]
    assert finding.status == status and ("TIDELOG_MAX_CONNECTIONS" in finding.mend) == (status == "warning")
