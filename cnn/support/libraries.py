"""Libraries that only some commands need, imported when one of those runs."""

from backends.libraries import LibraryError, at_fault, failure, needing, require, require_to_start, version

__all__ = ["LibraryError", "at_fault", "failure", "needing", "require", "require_to_start", "version"]
