"""`python -m services.downloader`."""

from services.downloader.service import build
from services.runtime.actor import main

main(build)
