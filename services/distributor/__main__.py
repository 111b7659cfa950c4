"""`python -m services.distributor`."""

from services.distributor.service import build
from services.runtime.actor import main

main(build)
