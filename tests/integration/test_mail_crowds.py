"""Many steps of a run write to one step at the same moment."""

import asyncio

from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System


async def test_all_messages_arrive_and_no_sender_has_to_try_again(system: System, worker: PlayedWorker) -> None:
    await worker.register("writer", "reader")
    steps = [{"key": f"w{n}", "agent": "writer"} for n in range(60)]
    run_id = await system.start(plan={"kind": "graph", "steps": [*steps, {"key": "r", "agent": "reader"}]})
    writers = [await worker.next("writer") for _ in steps]
    answers = await asyncio.gather(*(writer.post("send", key="m", to="r", body=n) for n, writer in enumerate(writers)))
    assert {answer.status_code for answer in answers} == {200}
    reader = await worker.next("reader")
    page, mails = reader.body, list(reader.body["mailbox"])
    while page["more"]:
        page = await reader.journal(page["version"])
        mails += page["mailbox"]
    assert sorted(mail["body"] for mail in mails) == list(range(60))
    assert (await system.topics(run_id)).count("agent_run.mail_delivered") == 60
