"""Imports what no command works without."""

from cnn.libraries import require_to_start

require_to_start("typer.main", "rich.console")
