"""`python -m services.planner`."""

from services.planner.service import build
from services.runtime.actor import main

main(build)
