"""Libraries that only some commands need; they are imported when such a command runs."""

from backends.libraries import LibraryError, at_fault, failure, needing, require, require_to_start, version

__all__ = ["LibraryError", "at_fault", "failure", "needing", "require", "require_to_start", "version"]
