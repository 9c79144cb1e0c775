"""The part of `Client` for workflows: plans under a name, in versions that never change."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pydantic import Field
from uuid_utils.compat import uuid7

from tidelog.audit import reason_header
from tidelog.bodies import object_of, plan_of
from tidelog.models import Model
from tidelog.requests import Requests, parse
from tidelog.transport import json_of


class WorkflowDeprecation(Model):
    since: datetime | None = None
    reason: str | None = None


class WorkflowInfo(Model):
    """A workflow in a list."""

    name: str
    version: int | None = None
    """The current version. None: there is only a draft."""
    description: str = ""
    command: Any = None
    deprecated: WorkflowDeprecation | None = None
    """Of the whole workflow."""
    has_draft: bool = False
    published_at: datetime | None = None
    stream_version: int = 0
    """For `expected_version` of a change."""
    unreadable: bool = False


class WorkflowDraft(Model):
    definition: Any = None
    drafted_at: datetime | None = None
    drafted_by: str | None = None


class Workflow(WorkflowInfo):
    definition: Any = None
    """What the current version says."""
    draft: WorkflowDraft | None = None


class WorkflowVersionInfo(Model):
    """A version in a list."""

    name: str
    version: int
    note: str | None = None
    reverted_from: int | None = None
    """The older version that says the same."""
    published_at: datetime | None = None
    published_by: str | None = None
    deprecated: WorkflowDeprecation | None = None
    """Of this version."""
    unreadable: bool = False


class WorkflowVersion(WorkflowVersionInfo):
    definition: Any = None


class WorkflowChange(Model):
    """The answer to a change of a workflow."""

    name: str
    workflow_version: int | None = None
    """The current version."""
    version: int
    """Of the workflow's stream, for `expected_version` of the next change."""
    position: int = 0


class Difference(Model):
    pointer: str
    """JSON Pointer to the place."""
    kind: str
    """`added`, `removed`, `changed`, or `order` for steps that stand in another order."""
    step: str | None = None
    """The key of the step in which the place is."""
    before: Any = None
    after: Any = None


class WorkflowDiff(Model):
    name: str
    from_: str = Field(alias="from")
    to: str
    differences: tuple[Difference, ...] = ()


class WorkflowClient(Requests):
    """Workflows. Use it as a part of `Client`.

    `expected_version`: the version of the workflow's stream that the change is for, else `ConflictError` with the code
    `precondition-failed`; 0 for a workflow that must be new. `reason`: for the audit trail.
    """

    async def workflows(self, *, prefix: str = "", deprecated: bool | None = None) -> list[WorkflowInfo]:
        """Workflows by name: those whose names begin with `prefix`, and only the deprecated ones or only the others."""
        wanted = {"prefix": prefix} if prefix else {}
        if deprecated is not None:
            wanted["deprecated"] = "true" if deprecated else "false"
        return [one async for one in self._all(WorkflowInfo, "/v1/workflows", wanted | {"limit": "1000"})]

    async def workflow(self, name: str) -> Workflow:
        """Raises NotFoundError."""
        return parse(Workflow, await self._get(_path(name), {}))

    async def workflow_versions(self, name: str) -> list[WorkflowVersionInfo]:
        """The versions of a workflow, the newest first."""
        return [one async for one in self._all(WorkflowVersionInfo, _path(name, "/versions"), {"limit": "1000"})]

    async def workflow_version(self, name: str, version: int) -> WorkflowVersion:
        return parse(WorkflowVersion, await self._get(_path(name, f"/versions/{version}"), {}))

    async def workflow_diff(self, name: str, from_: int | str | None = None, to: int | str | None = None) -> WorkflowDiff:
        """What differs between two versions, or a version and the `draft`. Without `to`: the draft, or else the current version;
        without `from_`: the version before `to`."""
        given = {"from": from_, "to": to}
        return parse(WorkflowDiff, await self._get(_path(name, "/diff"), {k: str(v) for k, v in given.items() if v is not None}))

    async def publish_workflow(
        self,
        name: str,
        definition: Mapping[str, Any],
        *,
        note: str | None = None,
        expected_version: int | None = None,
        reason: str | None = None,
    ) -> WorkflowChange:
        """Create a workflow, or publish a new version of it. What the current version says already changes nothing.

        `definition`: `plan`, and perhaps `description`, `parameters` (JSON Schema of the input), `priority`, `compensate`,
        `metadata`, `deadline_s`, `command`.

        Raises:
            InvalidRequestError: `errors` has all faults of the definition, each with the JSON Pointer of its place.
        """
        body = {"name": name, **_definition(definition), **({} if note is None else {"note": note})}
        return await self._changed("POST", "/v1/workflows", body, expected_version, reason)

    async def draft_workflow(
        self, name: str, definition: Mapping[str, Any], *, expected_version: int | None = None, reason: str | None = None
    ) -> WorkflowChange:
        """Write the draft, in the place of the one before. No run starts with a draft."""
        return await self._changed("PUT", _path(name, "/draft"), _definition(definition), expected_version, reason)

    async def discard_draft(self, name: str, *, expected_version: int | None = None, reason: str | None = None) -> WorkflowChange:
        """Again: nothing happens."""
        return await self._changed("DELETE", _path(name, "/draft"), None, expected_version, reason)

    async def publish_draft(
        self, name: str, *, note: str | None = None, expected_version: int | None = None, reason: str | None = None
    ) -> WorkflowChange:
        """The draft becomes a version, the current one from then on."""
        return await self._changed("POST", _path(name, "/publish"), _said(note=note), expected_version, reason)

    async def revert_workflow(
        self, name: str, version: int, *, note: str | None = None, expected_version: int | None = None, reason: str | None = None
    ) -> WorkflowChange:
        """Publish what an older version says as a new version."""
        body = _said(version=version, note=note)
        return await self._changed("POST", _path(name, "/revert"), body, expected_version, reason)

    async def deprecate_workflow(
        self, name: str, *, version: int | None = None, reason: str | None = None, expected_version: int | None = None
    ) -> WorkflowChange:
        """No new run starts with the workflow, or with one version of it. `reason`: shown to whoever tries."""
        body = _said(version=version, reason=reason)
        return await self._changed("POST", _path(name, "/deprecate"), body, expected_version, None)

    async def reinstate_workflow(
        self, name: str, *, version: int | None = None, expected_version: int | None = None, reason: str | None = None
    ) -> WorkflowChange:
        """The workflow, or one version of it, is not deprecated any more."""
        return await self._changed("POST", _path(name, "/reinstate"), _said(version=version), expected_version, reason)

    async def _changed(
        self, method: str, path: str, body: Mapping[str, Any] | None, expected_version: int | None, reason: str | None
    ) -> WorkflowChange:
        headers: dict[str, Any] = {**self._for(None), **reason_header(reason)}
        if expected_version is not None:
            headers["If-Match"] = f'"v{expected_version}"'
        if body is None:
            return parse(WorkflowChange, json_of(await self._request(method, path, headers=headers)))
        headers["Idempotency-Key"] = str(uuid7())
        return parse(WorkflowChange, json_of(await self._request(method, path, body=dict(body), headers=headers)))


def named_version(workflow: str) -> dict[str, Any]:
    """`name` or `name@3` as the start of a run takes it. Raises ValueError."""
    name, at, version = workflow.partition("@")
    if not at:
        return {"name": name}
    if not (version.isdecimal() and version.isascii()):
        raise ValueError(f"{workflow!r:.80}: a version of a workflow is a number, as in {name[:60]}@3")
    return {"name": name, "version": int(version)}


def _said(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _definition(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The depth of a step's input is counted in the input itself."""
    rest = object_of({name: value for name, value in definition.items() if name != "plan"}, "the definition")
    return {**rest, "plan": plan_of(definition["plan"])} if "plan" in definition else rest


def _path(name: str, rest: str = "") -> str:
    return f"/v1/workflows/{quote(name, safe='')}{rest}"
