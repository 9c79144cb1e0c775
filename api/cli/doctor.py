"""`tidelog doctor`: the installation, the running processes, the faults and their remedies."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from api.cli import options, output

if TYPE_CHECKING:
    from api.cli.diagnosis.findings import Diagnosis

app = typer.Typer()

_MARKS = {"ok": "[green]✓[/green]", "note": "[dim]·[/dim]", "warning": "[yellow]![/yellow]", "wrong": "[bold red]✗[/bold red]"}


@app.command()
def doctor(data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """Look for faults on this machine and on the running server, and say how to fix them. Starts nothing.

    Exit code 1 if there is a fault.

    Examples:

      tidelog doctor

      tidelog doctor --data-dir /srv/tidelog --json
    """
    output.run(_doctor(data_dir, url, as_json))


async def _doctor(data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli.diagnosis import diagnose

    diagnosis = await diagnose(data_dir, url)
    if as_json:
        output.document(diagnosis.document())
    else:
        _show(diagnosis)
    if not diagnosis.healthy:
        raise SystemExit(output.FAILED)


def _show(diagnosis: "Diagnosis") -> None:
    console = output.console()
    for finding in diagnosis.findings:
        console.print(
            f"{_MARKS[finding.status]} [bold]{output.escape(finding.subject):<14}[/bold] {output.escape(finding.detail)}",
            soft_wrap=True,
        )
        if finding.mend:
            console.print(f"  {'':<14} [yellow]→ {output.escape(finding.mend)}[/yellow]", soft_wrap=True)
    wrong = sum(finding.status == "wrong" for finding in diagnosis.findings)
    if wrong:
        console.print(f"\n[bold red]{wrong} wrong[/bold red]")
    elif diagnosis.warnings:
        console.print(f"\n[yellow]Nothing is wrong yet; {diagnosis.warnings} to look at.[/yellow]")
    else:
        console.print("\n[green]Nothing is wrong.[/green]")
