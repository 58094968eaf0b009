"""How long `verbal ui` takes from its start until a browser has the page and knows who it is.

    python bench/ui_start.py [--times 5] [--store PATH] [-- OPTIONS OF verbal ui]

Prints JSON: seconds from the start of the process to the first 200 of `/` and of `/api/me` (median and worst), and
to the line with the address. Each time is a process of its own with a store of its own; the first pays for a cold disk.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from verbal.apps.web.people import COOKIE


def once(store: Path, options: list[str]) -> dict[str, float]:
    """Seconds of one start."""
    command = [sys.executable, "-m", "verbal.cli", "ui", "--port", "0", "--store", str(store), *options]
    began = time.perf_counter()
    # Unbuffered, as a terminal would see it.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        told = time.perf_counter() - began
        found = re.search(r"http://([^/]+)/\?token=(\S+)", line)
        if found is None:
            raise SystemExit(f"no address in {line!r}")
        connection = http.client.HTTPConnection(found[1], timeout=30)
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        page = time.perf_counter() - began
        if answer.status != 200:
            raise SystemExit(f"the page answers {answer.status}: make page")
        connection.request("GET", f"/?token={found[2]}")
        answer = connection.getresponse()
        answer.read()
        cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        connection.request("GET", "/api/me", headers={"Cookie": cookie})
        answer = connection.getresponse()
        answer.read()
        me = time.perf_counter() - began
        if answer.status != 200 or not cookie.startswith(COOKIE):
            raise SystemExit(f"/api/me answers {answer.status}")
        connection.close()
        return {"address": told, "page": page, "me": me}
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def measure(times: int, options: list[str]) -> dict[str, Any]:
    """Median and worst of some starts."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [once(Path(folder) / f"{n}.db", options) for n in range(times)]
    found: dict[str, Any] = {"times": times}
    for key in rows[0]:
        values = [row[key] for row in rows]
        found[key] = {"median": round(statistics.median(values), 3), "worst": round(max(values), 3)}
    return {**found, "ui_start_s": found["me"]["median"]}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("options", nargs="*", help="of verbal ui, after --")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.times, asked.options), indent=1))


if __name__ == "__main__":
    main()
