import typer

app = typer.Typer()


@app.command()
def agents() -> None:
    """."""
