"""`python -m services.profiler`."""

from services.profiler.service import build
from services.runtime.actor import main

main(build)
