"""A replay in a process of its own: `{"store": ..., "run": ...}` on standard input, what came of it on standard output.

The place of the store comes by the pipe, for it may hold a password.
"""

from __future__ import annotations

import json
import sys

from verbal.errors import VerbalError
from verbal.evidence import run_replay


def main() -> None:
    """Does what standard input asks for."""
    asked = json.loads(sys.stdin.read())
    try:
        found = run_replay(asked["store"], asked["run"], None, quiet=True)
    except VerbalError as error:
        found = {"error": error.what, "todo": error.todo}
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()

__all__ = ["main"]
