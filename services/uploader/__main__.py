"""`python -m services.uploader`."""

from services.runtime.actor import main
from services.uploader.service import build

main(build)
