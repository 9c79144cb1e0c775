"""The rights of workers of 0.1.0 on the embedded NATS. Later workers have none."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.js.api import ConsumerConfig

from adapters.embedded import EmbeddedServices
from adapters.embedded.access import running_nats_url
from tests.integration.system_kit import eventually
from tests.pace import ANSWER_S


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the account of the servers can reach."""
    path = Path(tempfile.mkdtemp(prefix="tidelog-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


async def test_an_old_worker_can_keep_its_work_and_take_none(folder: Path) -> None:
    services = EmbeddedServices(folder / "state", durable=False)
    await services.start()
    try:
        await services.serve_log("1f-5")
        pid = services.describe()["nats"]["pid"]
        await services.serve_log("1f-5")
        assert services.describe()["nats"]["pid"] == pid, "no news, no restart"
        await worker_rights(services, "TIDELOG_WORK_1f-5")
        await services.stop()
        await services.start()
        await worker_rights(services, "TIDELOG_WORK_1f-5")
    finally:
        await services.stop()


def url_of_workers(services: EmbeddedServices) -> str:
    """As a worker of 0.1.0 got the URL from its server."""
    secrets = json.loads((services.home / "secrets.json").read_text())
    return f"nats://worker:{secrets['nats_worker']}@127.0.0.1:{services.describe()['nats']['port']}"


async def worker_rights(services: EmbeddedServices, own: str) -> None:
    operator = running_nats_url(services.describe())
    assert operator is not None
    server = await nats.connect(operator, connect_timeout=10)
    stream = server.jetstream(timeout=ANSWER_S)
    for name in (own, "TIDELOG_WORK_1f-6", "TIDELOG_1f-5_1"):
        await stream.add_stream(name=name, subjects=[f"{name}.>"])
        await stream.add_consumer(name, ConsumerConfig(durable_name="pool"))
        await stream.publish(f"{name}.x", b"job")

    denied: list[str] = []

    async def on_error(error: Exception) -> None:
        denied.append(str(error).lower())

    worker = await nats.connect(url_of_workers(services), error_cb=on_error, connect_timeout=5)
    (job,) = await (await stream.pull_subscribe_bind("pool", stream=own)).fetch(1, timeout=ANSWER_S)
    await worker.publish(job.reply, b"+WPI")  # an old worker keeps the work that it had
    await worker.publish(job.reply, b"+ACK")
    await worker.flush()

    async def acknowledged() -> bool:
        return (await stream.consumer_info(own, "pool")).num_ack_pending == 0

    await eventually(acknowledged)
    assert denied == []

    seen = await server.subscribe(">")
    await server.flush()
    forbidden = (
        f"{own}.x",
        "log.x",
        f"$JS.API.STREAM.DELETE.{own}",
        f"$JS.API.CONSUMER.MSG.NEXT.{own}.pool",
        f"$JS.API.CONSUMER.INFO.{own}.pool",
        "$JS.API.CONSUMER.MSG.NEXT.TIDELOG_WORK_1f-6.pool",
        "$JS.API.CONSUMER.MSG.NEXT.TIDELOG_1f-5_1.pool",
        "$JS.API.CONSUMER.INFO.TIDELOG_1f-5_1.pool",
        "$JS.ACK.TIDELOG_WORK_1f-6.pool.1.1.1.1.0",
    )
    for subject in forbidden:
        await worker.publish(subject, b"")
    await worker.subscribe("_INBOX_worker.>")
    await worker.flush()

    async def all_refused() -> bool:
        return len([text for text in denied if "permissions violation" in text]) == len(forbidden) + 1

    await eventually(all_refused, f"a refusal of each; refused: {denied}")
    with pytest.raises(nats.errors.TimeoutError):
        await seen.next_msg(timeout=0.05)
    assert (await stream.stream_info("TIDELOG_WORK_1f-6")).state.messages == 1
    for name in (own, "TIDELOG_WORK_1f-6", "TIDELOG_1f-5_1"):
        await stream.delete_stream(name)
    await worker.close()
    await server.close()
