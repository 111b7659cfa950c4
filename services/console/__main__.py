"""`williw` and `python -m services.console`."""

import sys

from services.console import app


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(app.run(sys.argv[1:]))


if __name__ == "__main__":
    main()
