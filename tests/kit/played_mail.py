"""A small mail server of the tests' own, on a port of this machine: it keeps what it was sent, and answers as told."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

FOR_ALL = {
    "EHLO": "250-played\r\n250-STARTTLS\r\n250 AUTH PLAIN", "AUTH": "235 it is you", "DATA": "354 go on", "QUIT": "221 bye",
    "STARTTLS": "220 ready",
}  # fmt: skip


@dataclass
class MailServer:
    """`answers`: by the beginning of a line, such as `RCPT TO:<eve@`; "" for no answer and the end of the connection. `said`: every
    line. `mails`: what it took. The end of a message is answered as `.`."""

    port: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    starts_tls: ssl.SSLContext | None = None

    def url(self, rest: str = "from=tidelog@example.org&tls=none", *, scheme: str = "smtp", account: str = "") -> str:
        return f"{scheme}://{account}127.0.0.1:{self.port}?{rest}"

    def answer_to(self, line: str) -> str:
        found = [answer for beginning, answer in self.answers.items() if line.startswith(beginning)]
        return found[0] if found else FOR_ALL.get(line.split(" ")[0], "250 ok")


@asynccontextmanager
async def played_mail_server(tls: ssl.SSLContext | None = None, *, at_once: bool = False) -> AsyncIterator[MailServer]:
    """`tls`: it begins after STARTTLS, or `at_once`."""
    played = MailServer(starts_tls=None if at_once else tls)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_serve(played, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls if at_once else None)
    played.port = server.sockets[0].getsockname()[1]
    try:
        yield played
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(played: MailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
        writer.write(f"{played.answers.get('', '220 played')}\r\n".encode())
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            verb, space, rest = line.partition(" ")
            line = f"{verb.upper()}{space}{rest}"
            played.said.append(line)
            if not (answer := played.answer_to(line)):
                break
            writer.write(f"{answer}\r\n".encode())
            if line == "STARTTLS" and played.starts_tls is not None:
                await writer.start_tls(played.starts_tls)
            elif line == "DATA" and answer.startswith("354"):
                text = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                if not (answer := played.answer_to(".")):
                    break
                if answer.startswith("2"):
                    played.mails.append(message_from_bytes(text, EmailMessage, policy=policy.default))
                writer.write(f"{answer}\r\n".encode())
    writer.close()
