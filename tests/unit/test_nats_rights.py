"""The rights on NATS name what the client of NATS uses."""

from uuid import UUID

from adapters.embedded import nats_rights
from adapters.embedded.nats_rights import Subscriber, accounts, passwords_in, server_permissions, subscribers_in, worker_permissions
from adapters.nats import names

LOG = "1f-5"
TENANT = UUID("0198c0de-0000-7000-8000-00000000000a")
OTHER = UUID("0198c0de-0000-7000-8000-00000000000b")


def test_rights_and_client_use_the_same_names() -> None:
    one, rights = Subscriber(str(TENANT), LOG, "secret"), server_permissions(LOG)
    assert (one.name, one.events) == (names.subscriber(TENANT), f"{names.event_subjects(LOG, TENANT)}.>")
    assert [subject for subject, _ in one.requests] == [
        f"$JS.API.CONSUMER.MSG.NEXT.{names.events_stream(LOG)}.{one.name}",
        f"$JS.ACK.{names.events_stream(LOG)}.{one.name}.>",
    ]
    assert nats_rights.INBOX == names.INBOX
    subjects = {f"{names.log_subjects(LOG)}.*", f"{names.event_subjects(LOG)}.*.*", f"{names.work_subjects(LOG)}.>"}
    assert subjects | {names.position_calls(LOG), f"$JS.ACK.{names.work_stream(LOG)}.>"} <= set(rights["publish"]["allow"])
    assert worker_permissions(LOG)["publish"]["allow"] == [f"$JS.ACK.{names.work_stream(LOG)}.>"]


def test_each_account_imports_only_what_is_exported_to_it() -> None:
    made = accounts(
        LOG, {"tidelog": "a", "operator": "b", "worker": "c"}, [Subscriber(str(one), LOG, "d") for one in (TENANT, OTHER)]
    )
    server = made.pop("TIDELOG")
    assert [user["user"] for user in server["users"]] == ["tidelog", "operator"]
    exports = {export.get("service", export.get("stream")): export["accounts"] for export in server["exports"]}
    for name, account in made.items():
        imported = [(entry.get("service") or entry.get("stream"))["subject"] for entry in account["imports"]]
        assert {subject for subject, whose in exports.items() if whose == [name]} == set(imported)
        assert "jetstream" not in account and "exports" not in account and len(account["users"]) == 1
        assert set(account["users"][0]["permissions"]["publish"]["allow"]) <= set(imported)
        if name.startswith("tenant-"):
            assert all(name.removeprefix("tenant-") in subject for subject in imported)
    assert made.keys() == {f"tenant-{TENANT}", f"tenant-{OTHER}", "TIDELOG_WORKERS_0_1"}
    assert all(len(whose) == 1 for whose in exports.values())


def test_a_server_that_knows_no_log_is_kept_to_its_account_only() -> None:
    unknown = accounts(None, {"tidelog": "a"}, [])
    assert unknown.keys() == {"TIDELOG"} and "permissions" not in unknown["TIDELOG"]["users"][0]


def test_what_is_written_is_read_back_and_nonsense_is_left_out() -> None:
    tenants = [Subscriber(str(one), LOG, "d") for one in (TENANT, OTHER)]
    made = {"accounts": accounts(LOG, {"tidelog": "a", "operator": "b"}, tenants)}
    assert subscribers_in(made) == tenants
    assert passwords_in(made) == {"tidelog": "a", "operator": "b"}
    made["accounts"][tenants[0].name]["imports"][0]["stream"]["subject"] = "tidelog.*.x"
    made["accounts"]["tenant-../../x"] = made["accounts"][tenants[1].name]
    made["accounts"]["tenant-x"] = None
    assert subscribers_in(made) == tenants[1:]
    for nonsense in (
        {},
        {"accounts": None},
        {"accounts": []},
        {"accounts": {"TIDELOG": {"users": 3}}},
        {"accounts": {"TIDELOG": None}},
    ):
        assert (subscribers_in(nonsense), passwords_in(nonsense)) == ([], {})
