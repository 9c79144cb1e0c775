"""The units of deploy/ are valid, run commands that exist, and stay closed."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pages import ROOT, blocks

UNITS = sorted((ROOT / "deploy").glob("*.service"))
CLOSED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "ProtectProc": "invisible", "PrivateTmp": "yes",
    "PrivateDevices": "yes", "CapabilityBoundingSet": "", "RestrictSUIDSGID": "yes", "UMask": "0077",
}  # fmt: skip
MOST_EXPOSED = 20
"""Tenths of the exposure that systemd-analyze computes, of 100."""


class Unit(dict[str, dict[str, list[str]]]):
    """Section → key → values. A key may be given more than once."""

    @classmethod
    def read(cls, path: Path) -> "Unit":
        class Every(dict[str, object]):
            def __setitem__(self, key: str, value: object) -> None:
                if isinstance(value, list) and key in self:
                    self[key].extend(value)  # type: ignore[attr-defined]
                else:
                    super().__setitem__(key, value)

        parser = configparser.RawConfigParser(strict=False, dict_type=Every, delimiters=("=",), comment_prefixes=("#",))
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(path.read_text("utf-8"))
        return cls({name: {key: str(value).split("\n") for key, value in parser.items(name)} for name in parser.sections()})


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_unit_is_closed_and_is_not_root(path: Path) -> None:
    service = Unit.read(path)["Service"]
    assert {key: service[key][-1] for key in CLOSED} == CLOSED
    assert service["User"] == [path.stem] and service["Group"] == [path.stem]
    assert service["StateDirectory"] == [path.stem] and service["KillMode"] == ["mixed"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        return  # the test above has read the file
    copy = tmp_path / path.name
    text, replaced = re.subn(r"^ExecStart=/opt/tidelog/bin/tidelog", "ExecStart=/bin/true", path.read_text(), flags=re.MULTILINE)
    assert replaced == 1
    copy.write_text(text)
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    security = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", copy]
    exposed = subprocess.run(security, capture_output=True, text=True, check=False)
    assert exposed.returncode == 0, exposed.stdout[-300:] + exposed.stderr


def test_units_and_their_page_agree() -> None:
    """The page makes the accounts, files and programs that the units name."""
    page = "\n".join(block.text for block in blocks("docs/how-to/run-as-a-service.md"))
    for path in UNITS:
        service = Unit.read(path)["Service"]
        assert f"useradd --system --home-dir /var/lib/{path.stem} " in page and service["User"][0] in page
        assert f"deploy/{path.name}" in page
        for file in service["EnvironmentFile"]:
            assert file.removeprefix("-") in page
        assert service["ExecStart"][0].startswith("/opt/tidelog/bin/tidelog ")
    assert "python3 -m venv /opt/tidelog" in page
