"""Where the app keeps what may be deleted at any time: the demo database, profiles, made suites, gold results."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The folder of the project in the user's cache folder (XDG_CACHE_HOME); it need not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "verbal"
