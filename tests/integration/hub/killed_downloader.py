"""A process that downloads `sys.argv[1]` into `sys.argv[2]`, for a test to kill."""

import sys

import anyio

from config.settings import Downloader as DownloaderSettings
from config.settings import NodeSection, Settings
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest, ModelRequested
from services.downloader.service import Downloader


async def main() -> None:
    """Download one model."""
    settings = Settings(
        node=NodeSection(node_id="origin-1", home=sys.argv[2]),
        downloader=DownloaderSettings(keep_free_bytes=0),
    )
    request = ModelRequest(model_name=sys.argv[1])
    said = ModelRequested(origin=NodeId("origin-1"), job_id=JobId("job-1"), request=request)
    (fact,) = await Downloader(settings).download(said)
    print(fact.model_path)


anyio.run(main)
