"""The client for programs: one call takes a model's name and returns every step of its job.

    from services.requester.client import NodeClient
    result = NodeClient(nats_url="nats://127.0.0.1:4222").execute_complete_workflow("org/name")

`python -m services.requester.client org/name` does the same and prints the result as JSON.
"""

import argparse
import os
import sys
from typing import Any

import anyio
import msgspec

from config import load, logging
from config.settings import Logging, Settings
from messages.base import Fact
from messages.failures import Passing, Permanent
from messages.ids import JobId, NodeId
from messages.jobs import JobCancelled, JobCompleted, JobFailed, ModelRequest
from messages.plans import SplitPlan, SplitPlanned
from messages.subjects import API_REQUEST
from messages.wire import decode
from services.requester.result import workflow_result
from services.runtime.bus import Bus, open_bus
from services.runtime.factlog import job_filter

_DEADLINE_S = 3600.0


class NodeClient:
    """A user's node: asks for a model and waits until its parts are where they belong.

    The services hold the Hub token and the metadata repository in their own settings; a token never
    travels. `hf_token` is kept out of every message, and `metadata_repo` is compared with where the
    metadata went, so that a difference is seen. `node_id` names the origin the model goes to, and
    whose part `steps["split"]` tells; None lets williw choose.
    """

    def __init__(
        self,
        nats_url: str | None = None,
        hf_token: str | None = None,
        metadata_repo: str | None = None,
        node_id: str | None = None,
    ) -> None:
        self._settings = _settings(nats_url, hf_token)
        self._metadata_repo = metadata_repo
        self._node_id = None if node_id is None else NodeId(node_id)

    def execute_complete_workflow(
        self,
        model_name: str,
        batch_size: int = 1,
        sequence_length: int = 512,
        timeout_s: float = _DEADLINE_S,
    ) -> dict[str, Any]:
        """The result with its `steps`; see `execute_complete_workflow_async`."""
        return anyio.run(
            self.execute_complete_workflow_async,
            model_name,
            batch_size,
            sequence_length,
            timeout_s,
            backend="asyncio",
        )

    async def execute_complete_workflow_async(
        self,
        model_name: str,
        batch_size: int = 1,
        sequence_length: int = 512,
        timeout_s: float = _DEADLINE_S,
    ) -> dict[str, Any]:
        """`{"success", "model_name", "node_id", "steps", "error"?}` once the job has ended.

        `success` false carries `error`; nothing is raised for a job that fails, a bus that is
        unreachable, or a request that is refused.
        """
        facts: list[Fact] = []
        plan: SplitPlan | None = None
        try:
            request = _request(model_name, batch_size, sequence_length, timeout_s, self._node_id)
            async with open_bus(self._settings, "client", apart=True) as bus:
                accepted = await bus.ask(API_REQUEST, request)
                with anyio.move_on_after(timeout_s + 10):
                    plan = await _until_ended(bus, accepted.job_id, facts)
        except (Permanent, Passing) as error:
            return self._failed(model_name, str(error))
        result = workflow_result(facts, plan, model_name=model_name, node_id=self._node_id)
        return self._with_warning(result)

    def _failed(self, model_name: str, error: str) -> dict[str, Any]:
        return {
            "success": False,
            "model_name": model_name,
            "node_id": self._node_id,
            "steps": {},
            "error": error,
        }

    def _with_warning(self, result: dict[str, Any]) -> dict[str, Any]:
        went = result["steps"].get("upload", {}).get("repo")
        if self._metadata_repo and went and went != self._metadata_repo:
            result["warning"] = f"metadata went to {went}, as the uploader's settings say"
        return result


def _request(
    model_name: str,
    batch_size: int,
    sequence_length: int,
    timeout_s: float,
    node_id: NodeId | None,
) -> ModelRequest:
    """The checked request; Undecodable for a name or number that no service would accept."""
    unchecked = {
        "model_name": model_name,
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "timeout_s": timeout_s,
        "node_id": node_id,
    }
    return decode(msgspec.json.encode(unchecked), ModelRequest)


async def _until_ended(bus: Bus, job_id: JobId, facts: list[Fact]) -> SplitPlan | None:
    """Gather the job's facts into `facts` until it ends; returns its newest plan."""
    plan: SplitPlan | None = None
    async for said in bus.facts.follow(job_filter(job_id)):
        facts.append(said.fact)
        if isinstance(said.fact, SplitPlanned):
            plan = await bus.documents.load(said.fact.plan, SplitPlan)
        if isinstance(said.fact, JobCompleted | JobFailed | JobCancelled):
            break
    return plan


def _settings(nats_url: str | None, hf_token: str | None) -> Settings:
    if hf_token:
        # Only huggingface_hub in this process may use it; it is put where that library looks.
        os.environ.setdefault("HF_TOKEN", hf_token)
    return load.load(overrides={"bus": {"url": nats_url}} if nats_url else {})


def main() -> None:
    """The seed's script: a model's name in, the result as JSON out, exit code 1 when it failed."""
    parser = argparse.ArgumentParser(
        description="Bring a model to the nodes and print every step as JSON.",
        epilog="example: python -m services.requester.client org/name --sequence-length 512",
    )
    parser.add_argument("model_name")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--sequence-length", type=int, default=512)
    arguments = parser.parse_args()
    client = NodeClient(
        hf_token=os.environ.get("HF_TOKEN"),
        metadata_repo=os.environ.get("METADATA_REPO"),
        node_id=os.environ.get("NODE_ID"),
    )
    logging.setup(Logging(), service="client")
    result = client.execute_complete_workflow(
        arguments.model_name, arguments.batch_size, arguments.sequence_length
    )
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result)).decode() + "\n")
    sys.exit(0 if result["success"] else 1)


if __name__ == "__main__":
    main()
