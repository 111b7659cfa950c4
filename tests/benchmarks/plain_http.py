"""A machine of bench_relay.py that serves or downloads one file by plain HTTP, verifying nothing.

The same steps on standard input and output as the benchmark's other nodes: `ready`, a line to go
on, when it was done, a line to end.
"""

import argparse
import functools
import http.server
import json
import shutil
import sys
import threading
import time
import urllib.request
from pathlib import Path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a directory and writes no log."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its parent's name
        """Nothing."""


def main() -> None:
    """Serve `--source`, or download its file from `--upstream` into `--out`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--upstream", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.source is not None:
        handler = functools.partial(Quiet, directory=str(given.source))
        server = http.server.ThreadingHTTPServer((given.host, 8080), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.readline()
    if given.source is None:
        url = f"http://{given.upstream}:8080/model.safetensors"
        with urllib.request.urlopen(url, timeout=60) as answer, given.out.open("wb") as file:
            shutil.copyfileobj(answer, file, 1 << 20)
    print(json.dumps({"at": time.time()}), flush=True)
    sys.stdin.readline()
    print(json.dumps({"sent": 0}), flush=True)


if __name__ == "__main__":
    main()
