"""Training runs: the configuration, the folder, and the report."""
