"""The rights of workers on the embedded NATS."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.js.api import ConsumerConfig

from adapters.embedded import EmbeddedServices
from tests.integration.system_kit import eventually


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the account of the servers can reach."""
    path = Path(tempfile.mkdtemp(prefix="tidelog-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


async def test_worker_can_do_its_work_and_nothing_else(folder: Path) -> None:
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


async def worker_rights(services: EmbeddedServices, own: str) -> None:
    server = await nats.connect(services.nats_url, connect_timeout=5)
    stream = server.jetstream(timeout=5)
    for name in (own, "TIDELOG_WORK_1f-6", "TIDELOG_1f-5_1"):
        await stream.add_stream(name=name, subjects=[f"{name}.>"])
        await stream.add_consumer(name, ConsumerConfig(durable_name="pool"))
        await stream.publish(f"{name}.x", b"job")

    denied: list[str] = []

    async def on_error(error: Exception) -> None:
        denied.append(str(error).lower())

    worker = await nats.connect(services.worker_nats_url, inbox_prefix=b"_INBOX_worker", error_cb=on_error, connect_timeout=5)
    jobs = await worker.jetstream(timeout=2).pull_subscribe_bind("pool", stream=own)
    (job,) = await jobs.fetch(1, timeout=5)
    await job.in_progress()
    await job.ack_sync(timeout=5)
    assert (await stream.consumer_info(own, "pool")).num_ack_pending == 0
    assert denied == []

    seen = await server.subscribe(">")
    await server.flush()
    forbidden = (
        f"{own}.x",
        "log.x",
        f"$JS.API.STREAM.DELETE.{own}",
        "$JS.API.CONSUMER.MSG.NEXT.TIDELOG_WORK_1f-6.pool",
        "$JS.API.CONSUMER.MSG.NEXT.TIDELOG_1f-5_1.pool",
        "$JS.API.CONSUMER.INFO.TIDELOG_1f-5_1.pool",
        "$JS.ACK.TIDELOG_WORK_1f-6.pool.1.1.1.1.0",
    )
    for subject in forbidden:
        await worker.publish(subject, b"")
    await worker.subscribe("TIDELOG_1f-5_1.>")
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
