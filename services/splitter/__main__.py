"""`python -m services.splitter`."""

from services.runtime.actor import main
from services.splitter.service import build

main(build)
