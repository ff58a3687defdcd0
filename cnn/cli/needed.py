"""Imports what no command works without."""

from cnn.support.libraries import require_to_start

require_to_start("typer.main", "rich.console")
