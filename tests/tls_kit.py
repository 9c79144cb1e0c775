"""Certificates and keys for the tests, made anew for each run."""

import base64
import binascii
import json
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Authority:
    """A certificate authority, a server certificate for 127.0.0.1 (not localhost) and a client certificate: files in a folder."""

    def __init__(self, folder: Path, *, client: str = "tidelog") -> None:
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        server = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
        self.server_cert, self.server_key = self._write(server, folder, "server")
        whoever = authority.issue_cert(f"{client}@tidelog.test", common_name=client, key_type=trustme.KeyType.ECDSA)
        self.client_cert, self.client_key = self._write(whoever, folder, "client")

    @staticmethod
    def _write(certificate: trustme.LeafCert, folder: Path, name: str) -> tuple[Path, Path]:
        certificate_file, key_file = folder / f"{name}.pem", folder / f"{name}-key.pem"
        key_file.touch(mode=0o600)
        certificate.private_key_pem.write_to_path(key_file)
        certificate.cert_chain_pems[0].write_to_path(certificate_file)
        for more in certificate.cert_chain_pems[1:]:
            more.write_to_path(certificate_file, append=True)
        return certificate_file, key_file


class Nkey:
    """A key of the NATS ecosystem: `kind` is O (operator), A (account) or U (user)."""

    def __init__(self, kind: str = "U") -> None:
        self._key = Ed25519PrivateKey.generate()
        self._prefix = {"O": 14, "A": 0, "U": 20}[kind] << 3

    @property
    def seed(self) -> str:
        return _encoded(bytes([18 << 3 | self._prefix >> 5, (self._prefix & 31) << 3]) + self._key.private_bytes_raw())

    @property
    def public(self) -> str:
        return _encoded(bytes([self._prefix]) + self._key.public_key().public_bytes_raw())

    def jwt(self, subject: "Nkey", name: str, claims: dict[str, object]) -> str:
        """A JWT about a subject, signed by this key, in the form that NATS servers in operator mode accept."""
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        payload = {"jti": name, "iat": 1_700_000_000, "iss": self.public, "name": name, "sub": subject.public, "nats": claims}
        signed = ".".join(_url64(json.dumps(part).encode()) for part in (header, payload))
        return f"{signed}.{_url64(self._key.sign(signed.encode()))}"


def creds(jwt: str, key: Nkey) -> str:
    """The text of a `.creds` file."""
    parts = (("NATS USER JWT", jwt), ("USER NKEY SEED", key.seed))
    return "\n\n".join(f"-----BEGIN {what}-----\n{text}\n------END {what}------" for what, text in parts) + "\n"


def _encoded(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).rstrip(b"=").decode()


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
