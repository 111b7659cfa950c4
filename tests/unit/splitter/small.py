"""A small model to cut, and plans for it."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from messages.ids import NodeId, PlanId
from messages.plans import MegaphonePlan, NodeShare, SplitPlan

NAMES = tuple(f"model.layers.{k}.w.weight" for k in range(8))


def write_model(directory: Path, rows: int = 200) -> Path:
    """A model of eight layers, NAMES, each a tensor of `rows` × 300 floats."""
    (directory / "1_Pooling").mkdir(parents=True)
    rng = np.random.default_rng(1)
    tensors = {name: rng.standard_normal((rows, 300)).astype(np.float32) for name in NAMES}
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text("{}")
    (directory / "README.md").write_text("not for nodes")
    (directory / "1_Pooling" / "config.json").write_text('{"pooling": true}')
    return directory


def plan_of(*parts: tuple[str, ...], plan_id: str = "p1") -> SplitPlan:
    """A plan that gives n0, n1, … these tensors."""
    shares = {
        NodeId(f"n{k}"): NodeShare(layer_names=names, total_compute=0, compute_utilization=0)
        for k, names in enumerate(parts)
    }
    return SplitPlan(
        plan_id=PlanId(plan_id),
        model_name="org/m",
        model_url="",
        selected_nodes=(),
        split_plan=shares,
        megaphone_plan=MegaphonePlan(start_node=NodeId("n0"), chain=()),
    )
