"""`tidelog replay --dry-run`: agents' present code against the recorded journals of a run, without any effect."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from api.cli import output
from api.cli.ids import GivenId
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient
    from tidelog.agent import Agent
    from tidelog.discovery import Discovery
    from tidelog.testing.records import Record
    from tidelog.testing.replay import Replayed

WIDTH = 160


async def dry_run(
    run: str,
    step: str | None,
    folders: Sequence[Path] | None,
    run_steps: bool,
    data_dir: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Raises CommandFailed if the code diverges, and if there is nothing to replay."""
    from tidelog.testing.replay import replay_agents

    given = GivenId.parse(run)
    agents = agents_of(folders)
    async with server_of(data_dir, url, as_json) as server:
        run_id = await given.complete(server)
        records = await recorded(server, run_id)
    wanted = [record for record in records if step is None or step in (record.step, record.step.rpartition(".")[0])]
    if not wanted:
        known = ", ".join(dict.fromkeys(record.step for record in records)) or "none"
        of = f"no step '{step}' that an agent has begun" if step is not None else "no step that an agent has begun"
        raise output.CommandFailed(output.one_line(f"run {run_id} has {of}; there are: {known}"))
    replayed, left = await replay_agents(agents, wanted, run_steps=run_steps)
    if not replayed:
        names = ", ".join(sorted({record.agent for record in left}))
        raise output.CommandFailed(output.one_line(f"no agent of --agents has a part in it: {names}"))
    if as_json:
        output.document({"run": run_id, "replayed": [one.document() for one in replayed], "left_out": [one.step for one in left]})
    else:
        show(replayed, left)
    must_be_alike(replayed)


def agents_of(folders: Sequence[Path] | None) -> "list[type[Agent]]":
    """The agents in the folders. Raises CommandFailed."""
    return [agent.cls for agent in found_in(folders).agents.values()]


def found_in(folders: Sequence[Path] | None) -> "Discovery":
    """The agents and tools in the folders. Raises CommandFailed."""
    from api.settings import load_settings
    from tidelog.discovery import discover

    settings = load_settings(agents=tuple(folders) if folders else None)
    if not settings.agents:
        raise output.CommandFailed("give --agents FOLDER", output.WRONG_USAGE)
    for folder in settings.agents:
        if not folder.is_dir():
            raise output.CommandFailed(output.one_line(f"--agents: there is no folder {folder}"), output.WRONG_USAGE)
    found = discover(settings.agents)
    for problem in found.problems:
        output.note(output.one_line(f"warning: {problem}"))
    return found


async def recorded(server: "ServerClient", run_id: str) -> "list[Record]":
    from tidelog.testing.records import records_of

    def events(id: UUID) -> AsyncIterator[Mapping[str, Any]]:
        return server.pages(f"/v1/runs/{id}/events")

    return await records_of(UUID(run_id), events)


def show(replayed: "Sequence[Replayed]", left: "Sequence[Record]" = ()) -> None:
    for one in replayed:
        ends = {"completed": "completed", "failed": "failed", "diverged": "cannot go on", "beyond": "goes on beyond the record"}
        output.say(output.one_line(f"{one.step} ({one.agent}): {ends[one.end]}, {_count(len(one.divergences))}"))
        for each in one.divergences:
            of = f" '{each.key}'" if each.key is not None else ""
            output.say(output.one_line(f"  {each.what}{of}"))
            for sign, value in (("-", each.recorded), ("+", each.now)):
                if value is not None:
                    output.say(output.one_line(f"    {sign} {output.shortened(json.dumps(value, ensure_ascii=False), WIDTH)}"))
    if left:
        output.note(output.one_line(f"left out, without code in --agents: {', '.join(dict.fromkeys(one.step for one in left))}"))


def _count(number: int) -> str:
    return "as recorded" if not number else f"{number} divergence{'' if number == 1 else 's'}"


def must_be_alike(replayed: "Sequence[Replayed]") -> None:
    diverged = [one for one in replayed if one.divergences]
    if diverged:
        first = diverged[0].divergences[0]
        raise output.CommandFailed(output.one_line(f"{len(diverged)} of {len(replayed)} diverge, first {first}"))
