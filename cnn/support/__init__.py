"""Shared helpers: checked arguments, errors, files, text, terminals, random numbers."""
