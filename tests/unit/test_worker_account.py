"""Which account the worker gets if root starts the server, and why an account cannot be used."""

import dataclasses
import os
import pwd
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from adapters.embedded.accounts import Account, allows
from api.settings import load_settings
from api.supervisor import worker_account
from api.supervisor.config import SupervisorConfig
from api.supervisor.errors import WrongSettings


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_account, "running_as_root", lambda: True)


def config_of(folder: Path, **values: object) -> SupervisorConfig:
    return dataclasses.replace(SupervisorConfig.of(load_settings(data_dir=folder, agents=(folder,))), **values)  # type: ignore[arg-type]


def test_the_worker_has_no_other_account_if_an_ordinary_user_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_account, "running_as_root", lambda: False)
    assert worker_account.choose(config_of(tmp_path, worker_run_as="no-such-account"), []) is None


def test_root_can_be_kept_without_a_warning(tmp_path: Path) -> None:
    with capture_logs() as lines:
        assert worker_account.choose(config_of(tmp_path, worker_run_as="root"), []) is None
    assert lines == []


def test_files_that_no_other_account_can_use_leave_the_worker_with_root_and_a_warning_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with capture_logs() as lines:
        assert worker_account.choose(config_of(tmp_path), [tmp_path], spare_root=tmp_path / "spare") is None
    (line,) = lines
    assert line["event"] == "worker_runs_as_root" and line["log_level"] == "warning"
    assert "is closed to it" in line["reason"] and "TIDELOG_WORKER_RUN_AS" in line["hint"]
    assert not (tmp_path / "spare").exists()


def test_a_folder_that_cannot_be_made_is_a_warning_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose file system is read-only."""
    monkeypatch.setattr(worker_account, "_closed", lambda config, account: None)
    (tmp_path / "file").touch()
    with capture_logs() as lines:
        assert worker_account.choose(config_of(tmp_path), [tmp_path], spare_root=tmp_path / "file" / "spare") is None
    assert "cannot be made" in lines[0]["reason"]
    with pytest.raises(WrongSettings, match="cannot be made"):
        worker_account.choose(config_of(tmp_path, worker_run_as="nobody"), [], spare_root=tmp_path / "file" / "spare")


def test_an_account_of_the_setting_that_cannot_be_used_is_an_error_and_never_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for name, why in (("no-such-account", "there is no account"), ("nobody", "is closed to it")):
        with pytest.raises(WrongSettings, match=rf"TIDELOG_WORKER_RUN_AS: .*{why}"):
            worker_account.choose(config_of(tmp_path, worker_run_as=name), [tmp_path])


def test_an_account_that_owns_files_of_the_server_is_refused(tmp_path: Path) -> None:
    own = pwd.getpwuid(os.geteuid()).pw_name
    monkeyed = config_of(tmp_path, worker_run_as=own)
    if own != "root":  # root is taken as the wish to stay root
        with pytest.raises(WrongSettings, match="owns files of the server"):
            worker_account.choose(monkeyed, [tmp_path])
    account, fault = worker_account._account(config_of(tmp_path, worker_run_as="nobody"), {pwd.getpwnam("nobody").pw_uid})
    assert account.name == "nobody" and fault is not None and "owns files of the server" in fault


def test_order_of_accounts_owner_of_the_workspace_then_the_named_one_then_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, worker = Account("alice", 2001, 2001), Account(worker_account.ACCOUNT, 2002, 2002)
    monkeypatch.setattr(worker_account, "owner_account", lambda path: alice)
    monkeypatch.setattr(worker_account, "_named", lambda name: worker if name == worker_account.ACCOUNT else None)
    with_workspace, without = config_of(tmp_path, workspace=str(tmp_path)), config_of(tmp_path)
    assert worker_account._account(with_workspace, {0})[0] == alice
    assert worker_account._account(with_workspace, {0, alice.uid})[0] == worker
    assert worker_account._account(without, {0})[0] == worker
    number = worker_account._account(without, {0, worker.uid})[0]
    assert number.uid in range(61184, 65520) and number.uid == number.gid
    assert worker_account._account(without, {0, worker.uid})[0] == number  # the same at each start
    assert worker_account._account(without, {0, worker.uid, number.uid})[0].uid != number.uid


def test_mode_bits_of_owner_group_and_others(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o640)
    status = file.stat()
    for account, readable in (
        (Account("owner", status.st_uid, 4000), True),
        (Account("group", 4000, status.st_gid), True),
        (Account("other", 4000, 4000), False),
    ):
        assert allows(file, account, os.R_OK) is readable, account
    assert not allows(file, Account("group", 4000, status.st_gid), os.R_OK | os.W_OK)
