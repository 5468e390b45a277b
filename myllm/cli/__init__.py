"""The command line: typer commands over a running server, the model folder and the engine."""
