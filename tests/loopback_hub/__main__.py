"""A Hub for trials by hand: `python -m tests.loopback_hub org/name=DIR...`, until Ctrl-C."""

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.loopback_hub.server import LoopbackHub


def main() -> None:
    """Serve the directories named on the command line."""
    parser = argparse.ArgumentParser(prog="loopback_hub", description=__doc__)
    parser.add_argument("repos", nargs="*", metavar="ORG/NAME=DIR")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bytes-per-s", type=float, default=0.0)
    chosen = parser.parse_args()
    with LoopbackHub(port=chosen.port) as hub:
        hub.bytes_per_s = chosen.bytes_per_s
        for repo in chosen.repos:
            name, _, directory = repo.partition("=")
            print(name, hub.add(name, Path(directory)), file=sys.stderr)
        print(f"HF_ENDPOINT={hub.url} HF_TOKEN={hub.write_token}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
