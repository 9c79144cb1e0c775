"""The part of `Client` for projects, API keys and the audit trail."""

from collections.abc import AsyncGenerator, Collection, Mapping
from datetime import datetime
from typing import Any, Literal, Unpack
from uuid import UUID

from uuid_utils.compat import uuid7

from tidelog.audit import AuditFilters, first, pieces, query_of, reason_header
from tidelog.bodies import object_of
from tidelog.keys import MadeKey, make_key, new_key_id
from tidelog.models import ApiKey, AuditEntry, IssuedKey, Project
from tidelog.requests import Requests, parse
from tidelog.transport import json_of


class Administration(Requests):
    """Projects, API keys and the audit trail. Use it as a part of `Client`."""

    async def projects(self) -> list[Project]:
        return [project async for project in self._all(Project, "/v1/projects")]

    async def create_project(
        self, name: str, metadata: Mapping[str, Any] | None = None, *, on_behalf_of: str | None = None
    ) -> Project:
        body: dict[str, Any] = {"name": name}
        if metadata is not None:
            body["metadata"] = object_of(metadata, "the metadata")
        headers = {"Idempotency-Key": str(uuid7()), **self._for(on_behalf_of)}
        answer = json_of(await self._request("POST", "/v1/projects", body=body, headers=headers))
        return parse(Project, body | answer if isinstance(answer, dict) else answer)

    async def remove_project(self, project_id: UUID, reason: str | None = None) -> None:
        """Remove a project: no run can be started in it any more, and its runs stay readable. Again: nothing happens.

        `reason`: for the audit trail.

        Raises:
            ConflictError: runs of the project are open (`project-in-use`), or it is the default project (`invalid-state`).
            NotFoundError: there is no such project.
        """
        headers = {**self._for(None), **reason_header(reason)}
        await self._request("DELETE", f"/v1/projects/{project_id}", headers=headers)

    # --- API keys ---

    async def keys(self) -> list[ApiKey]:
        """API keys of the tenant, newest first, also those that are not valid any more."""
        return [key async for key in self._all(ApiKey, "/v1/keys", {"limit": "1000"})]

    async def key(self, key_id: UUID | None = None) -> ApiKey:
        """An API key. None: the key of this client, whatever its role."""
        return parse(ApiKey, await self._get(f"/v1/keys/{key_id or 'self'}", {}))

    async def issue_key(
        self, label: str, *, role: str, expires_at: datetime | None = None, projects: Collection[UUID] | None = None
    ) -> IssuedKey:
        """Issue an API key. `role`: owner, admin, operator, developer, auditor or worker. `expires_at`: a time with a zone.
        `projects`: ids of the only projects that the key is for; None for the whole tenant.

        The key is made here, and the server gets its SHA-256: keep `.key`, nobody else has it.
        """
        made = make_key(new_key_id(), role)
        body: dict[str, Any] = {"label": label, "role": role, **_expiry(expires_at)}
        if projects is not None:
            body["projects"] = [str(project_id) for project_id in projects]
        return await self._issued("/v1/keys", body, made)

    async def rotate_key(self, key_id: UUID, *, overlap_s: float = 86_400, expires_at: datetime | None = None) -> IssuedKey:
        """Issue a key that takes the place of another, which stays valid for `overlap_s` more seconds (0: it is revoked).

        The new key has the same label, role and projects, and the same expiry unless `expires_at` says another.
        """
        made = make_key(new_key_id(), (await self.key(key_id)).role)
        body = {"overlap_s": overlap_s, **_expiry(expires_at)}
        return await self._issued(f"/v1/keys/{key_id}/rotate", body, made)

    async def revoke_key(self, key_id: UUID, reason: str | None = None) -> None:
        """End an API key, within a second and for good, with its event streams and worker sessions."""
        body = {} if reason is None else {"reason": reason}
        headers = {"Idempotency-Key": str(uuid7()), **self._for(None)}
        await self._request("POST", f"/v1/keys/{key_id}/revoke", body=body, headers=headers)

    async def _issued(self, path: str, body: Mapping[str, Any], made: MadeKey) -> IssuedKey:
        headers = {"Idempotency-Key": str(uuid7()), **self._for(None)}
        await self._request("POST", path, body={**body, "key_id": str(made.key_id), "sha256": made.sha256}, headers=headers)
        return IssuedKey(key_id=made.key_id, key=made.text)

    # --- the audit trail ---

    async def audit(self, *, limit: int = 100, **filters: Unpack[AuditFilters]) -> list[AuditEntry]:
        """The newest entries of the audit trail that match all filters (`AuditFilters`), at most `limit`."""
        return await first(self._all(AuditEntry, "/v1/audit", query_of(filters) | {"limit": str(min(limit, 1000))}), limit)

    def export_audit(
        self, format: Literal["jsonl", "csv"] = "jsonl", *, reason: str | None = None, **filters: Unpack[AuditFilters]
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of all entries that match all filters, newest first. The export itself is recorded, with the `reason`.

        Raises in the middle where the export is not complete: keep nothing of it then.
        """
        position = {"Tidelog-Position": str(self._position)} if self._position else {}
        headers = {**position, **reason_header(reason), **self._for(None)}
        return pieces(self._transport, query_of(filters) | {"format": format}, headers)


def _expiry(expires_at: datetime | None) -> dict[str, str]:
    if expires_at is not None and expires_at.tzinfo is None:
        raise ValueError("expires_at has no time zone")
    return {} if expires_at is None else {"expires_at": expires_at.isoformat()}
