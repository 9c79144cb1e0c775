"""`tidelog workflows`: plans under a name, in versions that never change."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output, workflow_files
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from tidelog.client import Client
    from tidelog.workflows import WorkflowChange

app = typer.Typer(help="Workflows: plans under a name, in versions that never change.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.")]
Versioned = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="The workflow's name, and perhaps a version.")]
File = Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - for stdin.")]
Named = Annotated[str | None, typer.Option("--name", metavar="NAME", help="The workflow's name, where the file does not say it.")]
Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="What the version changes.")]
Of = Annotated[int | None, typer.Option("--version", metavar="N", min=1, help="One version, instead of the whole workflow.")]


@app.callback()
def workflows() -> None:
    """Workflows."""


@app.command("list")
@options.with_fields
def list_workflows(
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="What their names begin with.")] = "",
    deprecated: Annotated[
        bool | None, typer.Option("--deprecated/--in-use", help="Only the deprecated ones, or only the others.")
    ] = None,
    where: options.Where = options.HERE,
) -> None:
    """List the workflows by name.

    Examples:

      tidelog workflows list

      tidelog workflows list --prefix review. --in-use
    """
    output.run(_list(prefix, deprecated, where))


async def _list(prefix: str, deprecated: bool | None, where: options.Where) -> None:
    async with server_of(*where) as server:
        found = await server.client.workflows(prefix=prefix, deprecated=deprecated)
    if where.as_json:
        output.document([one.model_dump(mode="json") for one in found])
        return
    if not found:
        output.say("No workflows. Write one, and give it a name with tidelog workflows create FILE")
        return
    table = output.table("Workflow", "Version", "Draft", "Published", "What it does")
    for one in found:
        what = output.escape(output.shortened(one.description.split("\n\n")[0], 120))
        published = "" if one.published_at is None else f"{one.published_at:%Y-%m-%d %H:%M}"
        table.add_row(
            f"[bold]{output.escape(one.name)}[/bold]", "-" if one.version is None else str(one.version),
            "yes" if one.has_draft else "", published, f"[yellow]deprecated[/yellow] {what}" if one.deprecated else what,
        )  # fmt: skip
    output.console().print(table)


@app.command()
@options.with_fields
def show(workflow: Versioned, where: options.Where = options.HERE) -> None:
    """Show a workflow: what it says, as a file would say it, and what is known of it.

    Examples:

      tidelog workflows show digest

      tidelog workflows show digest@2
    """
    output.run(_show(workflow, where))


async def _show(workflow: str, where: options.Where) -> None:
    name, number = _split(workflow)
    async with server_of(*where) as server:
        found = await server.client.workflow(name)
        version = found.version if number is None else number
        one = None if version is None else await server.client.workflow_version(name, version)
    if where.as_json:
        output.document(found.model_dump(mode="json") if number is None or one is None else one.model_dump(mode="json"))
        return
    output.console().print(f"[bold]Workflow {output.escape(found.name)}[/bold]")
    head = {"version": "only a draft" if found.version is None else f"{version} of {found.version}"}
    if one is not None:
        head |= {
            "published": f"{one.published_at:%Y-%m-%d %H:%M:%S %Z}" if one.published_at else "",
            "by": one.published_by or "",
            "note": one.note or "",
            "as version": str(one.reverted_from or ""),
            "deprecated": _deprecation("this version", one.deprecated) or _deprecation("the workflow", found.deprecated),
        }
    if found.draft is not None:
        head["draft"] = f"of {found.draft.drafted_at:%Y-%m-%d %H:%M:%S %Z}" if found.draft.drafted_at else "yes"
    for label, value in head.items():
        if value:
            output.console().print(f"  [dim]{label:<12}[/dim]{output.escape(value)}")
    definition = one.definition if one is not None else found.draft and found.draft.definition
    if isinstance(definition, dict) and "plan" in definition:
        output.say("\n" + workflow_files.text_of(found.name, definition).rstrip("\n"))


def _deprecation(what: str, hint: Any) -> str:
    if hint is None:
        return ""
    return f"{what}, since {hint.since:%Y-%m-%d}" + (f": {hint.reason}" if hint.reason else "")


@app.command()
@options.with_fields
def versions(name: Name, where: options.Where = options.HERE) -> None:
    """List the versions of a workflow, the newest first.

    Example:

      tidelog workflows versions digest
    """
    output.run(_versions(name, where))


async def _versions(name: str, where: options.Where) -> None:
    async with server_of(*where) as server:
        found = await server.client.workflow_versions(name)
    if where.as_json:
        output.document([one.model_dump(mode="json") for one in found])
        return
    table = output.table("Version", "Published", "By", "Note")
    for one in found:
        notes = [one.note or "", f"as version {one.reverted_from}" if one.reverted_from else ""]
        note = output.escape(", ".join(part for part in notes if part))
        published = f"{one.published_at:%Y-%m-%d %H:%M:%S}" if one.published_at else ""
        hint = f"[yellow]deprecated[/yellow] {output.escape(one.deprecated.reason or '')} " if one.deprecated else ""
        table.add_row(str(one.version), published, output.escape(one.published_by or ""), hint + note)
    output.console().print(table)


@app.command()
@options.with_fields
def create(
    file: File, name: Named = None, note: Note = None, reason: options.Reason = None, where: options.Where = options.HERE
) -> None:
    """Create a workflow. Faults are told with their lines in the file.

    Examples:

      tidelog workflows create digest.yaml

      tidelog workflows create - --name digest < digest.json
    """
    output.run(_write(file, name, note, reason, where, is_new=True))


@app.command()
@options.with_fields
def update(
    file: File, name: Named = None, note: Note = None, reason: options.Reason = None, where: options.Where = options.HERE
) -> None:
    """Publish a new version of a workflow that is there. If the file says what the current version says, nothing happens.

    Example:

      tidelog workflows update digest.yaml --note "a second reader"
    """
    output.run(_write(file, name, note, reason, where, is_new=False))


async def _write(path: str, given: str | None, note: str | None, reason: str | None, where: options.Where, *, is_new: bool) -> None:
    file = workflow_files.read(path)
    name = workflow_files.name_of(file, given)
    async with server_of(*where) as server:
        expected, before = 0, None
        if not is_new:
            known = await server.client.workflow(name)
            expected, before = known.stream_version, known.version
        change = await _published(server.client, file, name, note, expected, reason, is_new=is_new)
    _tell(change, where, _published_text(change, before))


async def _published(
    client: "Client", file: workflow_files.WorkflowFile, name: str, note: str | None, expected: int | None, reason: str | None,
    *, is_new: bool = False,
) -> "WorkflowChange":  # fmt: skip
    from tidelog.errors import ConflictError

    try:
        with workflow_files.faults_of(file):
            return await client.publish_workflow(name, file.definition(), note=note, expected_version=expected, reason=reason)
    except ConflictError as error:
        if error.code != "precondition-failed":
            raise
        told = f"there is a workflow '{name}' already: change it with tidelog workflows update"
        if not is_new:
            told = f"the workflow '{name}' was changed meanwhile: look at it, and try again"
        raise output.CommandFailed(output.one_line(told)) from None


def _published_text(change: "WorkflowChange", before: int | None) -> str:
    if change.workflow_version == before:
        return f"Workflow {change.name} says that already: version {before}"
    return f"Published version {change.workflow_version} of the workflow {change.name}"


@app.command("import")
@options.with_fields
def import_files(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="YAML or JSON, each with the name of its workflow.")],
    note: Note = None,
    reason: options.Reason = None,
    where: options.Where = options.HERE,
) -> None:
    """Create the workflows of files, or publish new versions of them. What is the same already is left as it is.

    Example:

      tidelog workflows import workflows/*.yaml --note "from git"
    """
    output.run(_import(files, note, reason, where))


async def _import(paths: list[str], note: str | None, reason: str | None, where: options.Where) -> None:
    from tidelog.errors import NotFoundError

    files = [workflow_files.read(path) for path in paths]  # all are read before one is written
    names = [workflow_files.name_of(file, None) for file in files]
    found = []
    async with server_of(*where) as server:
        for file, name in zip(files, names, strict=True):
            try:
                before = (await server.client.workflow(name)).version
            except NotFoundError:
                before = None
            change = await _published(server.client, file, name, note, None, reason)
            found.append(change.model_dump(mode="json"))
            if not where.as_json:
                output.say(output.one_line(_published_text(change, before)))
    if where.as_json:
        output.document(found)


@app.command()
@options.with_fields
def export(
    workflow: Versioned,
    draft: Annotated[bool, typer.Option("--draft", help="The draft, instead of a version.")] = False,
    where: options.Where = options.HERE,
) -> None:
    """Write a workflow to standard output as YAML, or as JSON with --json. `create`, `update` and `import` take it again.

    Examples:

      tidelog workflows export digest > digest.yaml

      tidelog workflows export digest@2 --json
    """
    output.run(_export(workflow, draft, where))


async def _export(workflow: str, draft: bool, where: options.Where) -> None:
    name, number = _split(workflow)
    if draft and number is not None:
        raise output.CommandFailed("a draft has no version", output.WRONG_USAGE)
    async with server_of(where.data_dir, where.url, quiet=True) as server:
        if number is not None:
            definition = (await server.client.workflow_version(name, number)).definition
        else:
            found = await server.client.workflow(name)
            definition = found.draft and found.draft.definition if draft else found.definition
    if not isinstance(definition, dict) or "plan" not in definition:
        raise output.CommandFailed(output.one_line(f"workflow '{name}' has no {'draft' if draft else 'published version'}"))
    output.say(workflow_files.text_of(name, definition, as_json=where.as_json).rstrip("\n"))


@app.command()
@options.with_fields
def diff(
    name: Name,
    before: Annotated[str | None, typer.Argument(metavar="FROM", help="A version, or draft; the one before TO.")] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="TO", help="A version, or draft; the draft, or else the current one.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="What a file changes, instead of TO; - for stdin.")
    ] = None,
    where: options.Where = options.HERE,
) -> None:
    """Show what differs between two versions, a version and the draft, or a version and a file.

    Examples:

      tidelog workflows diff digest

      tidelog workflows diff digest 2 5

      tidelog workflows diff digest --file digest.yaml
    """
    if file is not None and after is not None:
        output.fail("--file goes without TO", output.WRONG_USAGE)
    output.run(_diff(name, before, after, file, where))


async def _diff(name: str, before: str | None, after: str | None, path: str | None, where: options.Where) -> None:
    file = None if path is None else workflow_files.read(path)
    async with server_of(*where) as server:
        if file is None:
            found = (await server.client.workflow_diff(name, before, after)).model_dump(mode="json", by_alias=True)
        else:
            found = await _against_file(server.client, name, before, file)
    if where.as_json:
        output.document(found)
        return
    output.say(output.one_line(f"{name}: {found['from']} → {found['to']}"))
    if not found["differences"]:
        output.say("Both say the same.")
    workflow_files.show_differences(found["differences"])


async def _against_file(client: "Client", name: str, before: str | None, file: workflow_files.WorkflowFile) -> dict[str, Any]:
    from application.workflows.differences import differences
    from application.workflows.written import write_workflow

    if before is not None and before != "draft" and not (before.isdecimal() and before.isascii()):
        raise output.CommandFailed("FROM is a version (1, 2, 3 …) or draft", output.WRONG_USAGE)
    if before in (None, "draft"):
        workflow = await client.workflow(name)
        definition = workflow.definition if before is None else workflow.draft and workflow.draft.definition
        shown = before or str(workflow.version)
    else:
        definition, shown = (await client.workflow_version(name, int(before or 0))).definition, str(before)
    if not isinstance(definition, dict) or not isinstance(definition.get("plan"), dict):
        raise output.CommandFailed(output.one_line(f"workflow '{name}' has no {'draft' if before else 'published version'}"))
    said = file.definition()
    whole = write_workflow(None, said) if isinstance(said.get("plan"), dict) else said
    found = differences(write_workflow(None, definition), whole)
    return {"name": name, "from": shown, "to": file.shown, "differences": [one.model_dump(mode="json") for one in found]}


@app.command()
@options.with_fields
def draft(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="YAML or JSON; - for stdin.")] = None,
    name: Named = None,
    discard: Annotated[str | None, typer.Option("--discard", metavar="NAME", help="Discard the draft of this workflow.")] = None,
    reason: options.Reason = None,
    where: options.Where = options.HERE,
) -> None:
    """Write the draft of a workflow, in the place of the one before. No run starts with a draft. Only its form is checked.

    Examples:

      tidelog workflows draft digest.yaml

      tidelog workflows draft --discard digest
    """
    if (file is None) == (discard is None):
        output.fail("give either a FILE or --discard NAME", output.WRONG_USAGE)
    output.run(_draft(file, name, discard, reason, where))


async def _draft(path: str | None, given: str | None, discard: str | None, reason: str | None, where: options.Where) -> None:
    async with server_of(*where) as server:
        if path is None:
            change = await server.client.discard_draft(str(discard), reason=reason)
        else:
            file = workflow_files.read(path)
            with workflow_files.faults_of(file):
                change = await server.client.draft_workflow(workflow_files.name_of(file, given), file.definition(), reason=reason)
    _tell(change, where, f"{'Discarded' if path is None else 'Wrote'} the draft of the workflow {change.name}")


@app.command()
@options.with_fields
def publish(name: Name, note: Note = None, reason: options.Reason = None, where: options.Where = options.HERE) -> None:
    """Publish the draft of a workflow: it becomes a version, the current one from then on.

    Example:

      tidelog workflows publish digest --note "a second reader"
    """
    output.run(_publish(name, note, reason, where))


async def _publish(name: str, note: str | None, reason: str | None, where: options.Where) -> None:
    async with server_of(*where) as server:
        known = await server.client.workflow(name)
        change = await server.client.publish_draft(name, note=note, expected_version=known.stream_version, reason=reason)
    _tell(change, where, _published_text(change, known.version))


@app.command()
@options.with_fields
def revert(
    workflow: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The workflow, and the version to go back to.")],
    note: Note = None,
    reason: options.Reason = None,
    where: options.Where = options.HERE,
) -> None:
    """Publish what an older version says as a new version.

    Example:

      tidelog workflows revert digest@2 --note "version 3 skips reviews"
    """
    output.run(_revert(workflow, note, reason, where))


async def _revert(workflow: str, note: str | None, reason: str | None, where: options.Where) -> None:
    name, number = _split(workflow)
    if number is None:
        raise output.CommandFailed(f"say to which version: {output.one_line(name)}@2", output.WRONG_USAGE)
    async with server_of(*where) as server:
        before = (await server.client.workflow(name)).version
        change = await server.client.revert_workflow(name, number, note=note, reason=reason)
    _tell(change, where, _published_text(change, before))


@app.command()
@options.with_fields
def deprecate(
    name: Name,
    version: Of = None,
    why: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Shown to whoever starts it.")] = None,
    where: options.Where = options.HERE,
) -> None:
    """Let no new run start with a workflow, or with one version of it. Runs that are under way go on.

    Examples:

      tidelog workflows deprecate digest --reason "use report"

      tidelog workflows deprecate digest --version 3 --reason "it skips reviews"
    """
    output.run(_deprecate(name, version, why, where, undo=False))


@app.command()
@options.with_fields
def reinstate(name: Name, version: Of = None, reason: options.Reason = None, where: options.Where = options.HERE) -> None:
    """Take back that a workflow, or one version of it, is deprecated.

    Example:

      tidelog workflows reinstate digest --version 3
    """
    output.run(_deprecate(name, version, reason, where, undo=True))


async def _deprecate(name: str, version: int | None, reason: str | None, where: options.Where, *, undo: bool) -> None:
    async with server_of(*where) as server:
        change = server.client.reinstate_workflow if undo else server.client.deprecate_workflow
        done = await change(name, version=version, reason=reason)
    what = f"The workflow {name}" if version is None else f"Version {version} of the workflow {name}"
    _tell(done, where, f"{what} is {'not deprecated any more' if undo else 'deprecated'}")


def _tell(change: "WorkflowChange", where: options.Where, text: str) -> None:
    if where.as_json:
        output.document(change.model_dump(mode="json"))
    else:
        output.say(output.one_line(text))


def _split(workflow: str) -> tuple[str, int | None]:
    """Name and version. Raises CommandFailed."""
    from tidelog.workflows import named_version

    try:
        said: Mapping[str, Any] = named_version(workflow)
    except ValueError as error:
        raise output.CommandFailed(output.one_line(error), output.WRONG_USAGE) from None
    return said["name"], said.get("version")
