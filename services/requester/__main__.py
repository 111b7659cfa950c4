"""`python -m services.requester`."""

from services.requester.service import build
from services.runtime.actor import main

main(build)
