"""The commands, one file per group; the only plane that speaks typer."""
