"""Rules of the slices that have a few lines each: tenants, projects, agents, tools, shared values, messages."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from domain import agents, context, messages, projects, tenants, tools
from domain.errors import AlreadyExists, InvalidState, NotFound, RepeatedDifferently
from tests.kit import fold, given

ONE, TWO, THREE = UUID(int=1), UUID(int=2), UUID(int=3)
SHA, OTHER_SHA = "a" * 64, "b" * 64


# --- tenants --------------------------------------------------------------------------------------------------------------

CREATED = tenants.TenantCreated(name="acme")
ISSUED = tenants.ApiKeyIssued(key_id=TWO, label="ci", sha256=SHA)


def issue(**changed: Any) -> tenants.IssueApiKey:
    return tenants.IssueApiKey(**{"tenant_id": ONE, "key_id": TWO, "label": "ci", "sha256": SHA} | changed)


def test_a_tenant_is_created_once_under_one_name() -> None:
    given(tenants.DECIDER).when(tenants.CreateTenant(tenant_id=ONE, name="acme")).then(CREATED)
    given(tenants.DECIDER, CREATED).when(tenants.CreateTenant(tenant_id=ONE, name="acme")).then()
    given(tenants.DECIDER, CREATED).when(tenants.CreateTenant(tenant_id=ONE, name="other")).refused(AlreadyExists)


def test_a_key_is_issued_to_a_tenant_that_is_there() -> None:
    given(tenants.DECIDER).when(issue()).refused(NotFound)
    given(tenants.DECIDER, CREATED).when(issue()).then(ISSUED)


def test_an_issued_key_stays_what_it_is() -> None:
    given(tenants.DECIDER, CREATED, ISSUED).when(issue()).then()
    given(tenants.DECIDER, CREATED, ISSUED).when(issue(label="another label")).then()
    given(tenants.DECIDER, CREATED, ISSUED).when(issue(sha256=OTHER_SHA)).refused(InvalidState)
    given(tenants.DECIDER, CREATED, ISSUED).when(issue(key_id=THREE)).refused(InvalidState, "under another id")
    given(tenants.DECIDER, CREATED, ISSUED).when(issue(key_id=THREE, sha256=OTHER_SHA)).then(
        tenants.ApiKeyIssued(key_id=THREE, label="ci", sha256=OTHER_SHA)
    )


def test_a_key_is_revoked_once() -> None:
    revoke, revoked = tenants.RevokeApiKey(tenant_id=ONE, key_id=TWO), tenants.ApiKeyRevoked(key_id=TWO)
    other = tenants.ApiKeyIssued(key_id=THREE, label="laptop", sha256=OTHER_SHA)
    given(tenants.DECIDER, CREATED, ISSUED, other).when(revoke).then(revoked)
    given(tenants.DECIDER, CREATED, ISSUED, other, revoked).when(revoke).then()
    given(tenants.DECIDER, CREATED).when(revoke).then()
    given(tenants.DECIDER, CREATED, ISSUED, other, revoked).when(issue()).refused(InvalidState, "issued before")


def test_revoking_one_key_leaves_the_others() -> None:
    other = tenants.ApiKeyIssued(key_id=THREE, label="laptop", sha256=OTHER_SHA)
    state = fold(tenants.DECIDER, [CREATED, ISSUED, other, tenants.ApiKeyRevoked(key_id=TWO)])
    assert (state.name, dict(state.keys)) == ("acme", {THREE: tenants.ApiKey(OTHER_SHA, "laptop")})


@pytest.mark.parametrize("sha256", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_a_hash_is_64_digits(sha256: str) -> None:
    with pytest.raises(ValidationError):
        issue(sha256=sha256)


# --- projects -------------------------------------------------------------------------------------------------------------


def project(**changed: Any) -> projects.CreateProject:
    return projects.CreateProject(**{"project_id": ONE, "name": "p", "metadata": {"team": "x"}} | changed)


def test_a_project_is_created_once_as_it_is() -> None:
    created = projects.ProjectCreated(name="p", metadata={"team": "x"})
    given(projects.DECIDER).when(project()).then(created)
    given(projects.DECIDER, created).when(project()).then()
    given(projects.DECIDER, created).when(project(name=" p ")).then()
    for other in ({"name": "q"}, {"metadata": {}}, {"metadata": {"team": "y"}}):
        given(projects.DECIDER, created).when(project(**other)).refused(AlreadyExists)


def test_a_removed_project_is_removed_once_and_nothing_begins_in_it() -> None:
    created, removed = projects.ProjectCreated(name="p", metadata={"team": "x"}), projects.ProjectRemoved(name="p")
    remove, use = projects.RemoveProject(project_id=ONE), projects.UseProject(project_id=ONE)
    given(projects.DECIDER).when(remove).refused(NotFound)
    given(projects.DECIDER).when(use).refused(projects.UnknownProject)
    given(projects.DECIDER, created).when(use).then()
    given(projects.DECIDER, created).when(remove).then(removed)
    given(projects.DECIDER, created, removed).when(remove).then()
    given(projects.DECIDER, created, removed).when(use).refused(projects.UnknownProject)
    given(projects.DECIDER, created, removed).when(project()).then()


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "a\0b"])
def test_what_is_no_name_of_a_project(name: str) -> None:
    with pytest.raises(ValidationError):
        project(name=name)
    assert project(name="x" * 200).name == "x" * 200


def test_each_tenant_has_a_default_project_of_its_own() -> None:
    assert projects.default_project_id(ONE) == projects.default_project_id(ONE) != projects.default_project_id(TWO)


# --- agents and tools -----------------------------------------------------------------------------------------------------


def test_a_run_starts_with_an_agent_as_it_was_looked_at() -> None:
    one, other = (
        agents.AgentRegistered(name="a", version=version, description="", capabilities=()) for version in ("1", "2")
    )  # fmt: skip

    def use(changes: int) -> agents.UseAgent:
        return agents.UseAgent(agent_id=ONE, name="a", changes=changes)

    given(agents.DECIDER, one, other).when(use(2)).then()
    given(agents.DECIDER, one, other).when(use(1)).refused(agents.AgentChanged, "the agent 'a' has changed meanwhile")


def agent(**changed: Any) -> agents.RegisterAgent:
    return agents.RegisterAgent(**{"agent_id": ONE, "name": "critic", "capabilities": ("read",)} | changed)


def tool(**changed: Any) -> tools.RegisterTool:
    return tools.RegisterTool(**{"tool_id": ONE, "name": "add", "parameters": {"type": "object"}} | changed)


def test_an_agent_is_registered_anew_only_when_something_is_different() -> None:
    [registered] = given(agents.DECIDER).when(agent()).events()
    assert isinstance(registered, agents.AgentRegistered)
    assert (registered.name, registered.version, registered.capabilities) == ("critic", "1", ("read",))
    given(agents.DECIDER, registered).when(agent()).then()
    for other in ({"version": "2"}, {"description": "d"}, {"capabilities": ()}, {"input_schema": {}}, {"output_schema": {}}):
        [again] = given(agents.DECIDER, registered).when(agent(**other)).events()
        assert fold(agents.DECIDER, [registered, again]).current == again != registered


def test_a_tool_is_registered_anew_only_when_something_is_different() -> None:
    [registered] = given(tools.DECIDER).when(tool()).events()
    assert isinstance(registered, tools.ToolRegistered)
    assert (registered.idempotent, registered.timeout_s, registered.max_attempts) == (False, 60.0, 3)
    given(tools.DECIDER, registered).when(tool()).then()
    for other in ({"idempotent": True}, {"timeout_s": 1}, {"max_attempts": 1}, {"parameters": {}}, {"version": "2"}):
        [again] = given(tools.DECIDER, registered).when(tool(**other)).events()
        assert fold(tools.DECIDER, [registered, again]).current == again


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ({"timeout_s": 0}, {"timeout_s": 0.001}),
        ({"timeout_s": 86_401}, {"timeout_s": 86_400}),
        ({"max_attempts": 0}, {"max_attempts": 1}),
        ({"max_attempts": 21}, {"max_attempts": 20}),
        ({"name": "x" * 101}, {"name": "x" * 100}),
        ({"version": "x" * 501}, {"version": "x" * 500}),
        ({"description": "x" * 100_001}, {"description": "x" * 100_000}),
        ({"description": "\0"}, {"description": "\n"}),
        ({"capabilities": ("A",)}, {"capabilities": ("a.b-c_d",)}),
        ({"unknown": 1}, {}),
    ],
)
def test_bounds_of_a_tool(bad: dict[str, Any], good: dict[str, Any]) -> None:
    tool(**good)
    with pytest.raises(ValidationError):
        tool(**bad)


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "A", "a b", "a*", "ä", "a\n", "a/b"])
def test_what_is_no_name_of_an_agent_or_tool(name: str) -> None:
    for make in (agent, tool):
        with pytest.raises(ValidationError):
            make(name=name)


def test_ids_of_agents_and_tools_follow_from_tenant_and_name() -> None:
    ids = [of(tenant, name) for of in (agents.agent_id_of, tools.tool_id_of) for tenant in (ONE, TWO) for name in ("a", "b")]
    assert len(set(ids)) == 8 and agents.agent_id_of(ONE, "a") == ids[0]


# --- shared values --------------------------------------------------------------------------------------------------------


def put(name: str = "n", value: Any = 1, expect: int | None = None) -> context.SetContextValue:
    return context.SetContextValue(context_id=ONE, run_id=TWO, agent_run_id=THREE, name=name, value=value, expect=expect)


def value_set(version: int, name: str = "n", value: Any = 1) -> context.ContextValueSet:
    return context.ContextValueSet(run_id=TWO, agent_run_id=THREE, name=name, value=value, value_version=version)


def test_each_value_has_versions_of_its_own() -> None:
    given(context.DECIDER).when(put()).then(value_set(1))
    given(context.DECIDER, value_set(1)).when(put(value=2)).then(value_set(2, value=2))
    given(context.DECIDER, value_set(1), value_set(2)).when(put("m")).then(value_set(1, "m"))
    state = fold(context.DECIDER, [value_set(1), value_set(2, value="x"), value_set(1, "m", None)])
    assert {name: (entry.value, entry.version) for name, entry in state.entries.items()} == {"n": ("x", 2), "m": (None, 1)}
    assert [state.version_of(name) for name in ("n", "m", "o")] == [2, 1, 0]


AT_VERSIONS = [(0, 0, True), (0, 1, False), (2, 2, True), (2, 1, False), (2, 3, False), (2, 0, False)]


@pytest.mark.parametrize(("before", "expect", "taken"), AT_VERSIONS)
def test_a_value_is_set_at_the_expected_version_only(before: int, expect: int, taken: bool) -> None:
    given_ = given(context.DECIDER, *(value_set(n) for n in range(1, before + 1))).when(put(expect=expect))
    if taken:
        given_.then(value_set(before + 1))
    else:
        given_.refused(InvalidState, f"at version {before}, not {expect}")


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0"])
def test_what_is_no_name_of_a_value(name: str) -> None:
    with pytest.raises(ValidationError):
        put(name)
    put("x" * 200)


# --- messages -------------------------------------------------------------------------------------------------------------


def send(**changed: Any) -> messages.SendMessage:
    values = {"message_id": ONE, "run_id": TWO, "sender": "a", "sender_id": ONE, "recipient": "b", "recipient_id": THREE}
    return messages.SendMessage(**values | {"body": {"n": 1}} | changed)


def test_a_message_is_sent_once() -> None:
    [sent] = given(messages.DECIDER).when(send()).events()
    assert isinstance(sent, messages.MessageSent)
    assert (sent.run_id, sent.sender, sent.sender_id, sent.recipient, sent.recipient_id) == (TWO, "a", ONE, "b", THREE)
    assert sent.body == {"n": 1}
    given(messages.DECIDER, sent).when(send()).then()
    given(messages.DECIDER, sent).when(send(recipient="b-2")).then()  # the recipient is named by its id, not by its name
    for other in ({"body": {"n": True}}, {"body": None}, {"recipient_id": TWO}):
        given(messages.DECIDER, sent).when(send(**other)).refused(RepeatedDifferently, "to 'b'", pointer="/key")
