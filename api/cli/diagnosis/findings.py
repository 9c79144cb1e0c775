"""The findings of `tidelog doctor`."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

THROWN_AWAY = "fsync is off, and the database says that it may be lost: answered appends are not on disk"
ROLES_OFF = "not in force: tenants are kept apart by the server alone, and the database would not refuse its mistake"
TO_ROLES = "see docs/how-to/use-your-own-servers.md#roles, then `tidelog migrate` and start the server anew"
TO_DURABILITY = "set fsync = on in postgresql.conf and reload PostgreSQL"

Status = Literal["ok", "note", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    subject: str
    status: Status
    detail: str
    mend: str = ""


@dataclass
class Diagnosis:
    findings: list[Finding] = field(default_factory=list)
    server: dict[str, Any] | None = None
    health: dict[str, Any] | None = None
    binaries: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str | None] = field(default_factory=dict)

    @property
    def warnings(self) -> int:
        return sum(finding.status == "warning" for finding in self.findings)

    @property
    def healthy(self) -> bool:
        return all(finding.status != "wrong" for finding in self.findings)

    def document(self) -> dict[str, Any]:
        return {"healthy": self.healthy, **asdict(self)}

    def add(self, subject: str, status: Status, detail: str, mend: str = "") -> None:
        self.findings.append(Finding(subject, status, detail, mend))
