import typer

app = typer.Typer()


@app.command()
def events() -> None:
    """."""
