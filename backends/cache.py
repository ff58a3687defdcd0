"""The user's folder for what can be made again."""

from pathlib import Path

from backends.libraries import needing, require


def user_folder() -> Path:
    """The folder, which need not exist yet; FileNotFoundError if the user has none."""
    purpose = "to find the user's cache folder"
    with needing("platformdirs", purpose):
        folder = Path(require("platformdirs", purpose).user_cache_dir("xpcnn"))
    if not folder.is_absolute():  # "~", for which the system knows no folder
        raise FileNotFoundError("this user has no home folder")
    return folder
