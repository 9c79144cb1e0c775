"""`tidelog projects`: the projects that runs belong to."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import options, output
from api.cli.reaching import server_of

app = typer.Typer(help="Projects that runs belong to.", no_args_is_help=True)


@app.command("list")
def list_projects(data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """List projects, oldest first.

    Example:

      tidelog projects list
    """
    output.run(_list(data_dir, url, as_json))


async def _list(data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        found = [project async for project in server.pages("/v1/projects")]
    if as_json:
        output.document(found)
        return
    table = output.table("Project", "Name", "Created", "Metadata")
    for project in found:
        created = project["created_at"][:19].replace("T", " ")
        metadata = output.gist(project["metadata"]) if project["metadata"] else ""
        table.add_row(project["project_id"], output.escape(project["name"]), created, output.escape(metadata))
    output.console().print(table)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project's name.")],
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON|@FILE", help="A JSON object that is kept with the project.")
    ] = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Create a project. Its id goes to `runs start --project`.

    Example:

      tidelog projects create reviews --metadata '{"team": "platform"}'
    """
    output.run(_create(name, metadata, on_behalf_of, data_dir, url, as_json))


@app.command()
def remove(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="The project's id, as `projects list` shows it.")],
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove a project whose runs have all ended. The runs stay readable, and no further run can be started in the project.

    Example:

      tidelog projects remove 0198c0de-0000-7000-8000-000000000001
    """
    output.run(_remove(project, reason, on_behalf_of, data_dir, url, as_json))


async def _remove(
    project: str, reason: str | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    from uuid import UUID

    project_id = output.uuid_of(project, "a project", "projects list")
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        await server.client.remove_project(UUID(project_id), reason)
    if as_json:
        output.document({"project_id": project_id})
    else:
        output.say(f"Removed project {project_id}")


async def _create(
    name: str, metadata: str | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    body: dict[str, Any] = {"name": name} | (
        {"metadata": options.object_of("--metadata", metadata)} if metadata is not None else {}
    )
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        created: dict[str, Any] = await server.post("/v1/projects", body)
    if as_json:
        output.document(created)
    else:
        output.say(f"Created project {created['project_id']}")
