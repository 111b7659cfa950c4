"""An explanation for eyes: a table in plain text, and blocks over nodes as SVG."""

from html import escape

from messages.plans import Assignment, SplitPlan
from messages.wishes import Objective
from services.planner.explain import Explanation, WhatIf
from services.planner.goal import goal_of

_WIDTH, _ROW, _LEFT, _TOP = 960, 28, 180, 56
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#eeca3b")
_HEAD = ("node", "replica", "blocks", "GFLOP", "memory", "offered", "seconds", "binds", "why")


def text(explanation: Explanation) -> str:
    """The explanation as lines of text, the stages as a table."""
    rows: list[tuple[str, ...]] = [
        (
            s.node_id,
            str(s.replica),
            f"{s.start_block}-{s.end_block - 1}" if s.end_block else "scattered",
            f"{s.compute_required:.4g}",
            _bytes(s.memory_bytes),
            _bytes(s.offered_bytes),
            f"{s.stage_s:.4g}",
            s.binds,
            s.why,
        )
        for s in explanation.stages
    ]
    lines = [explanation.summary, "", *_table(_HEAD, rows)]
    if explanation.left_out:
        lines += ["", "not used:"]
        lines += [f"  {r.node_id}: {'; '.join(r.reasons)}" for r in explanation.left_out]
    if explanation.backups:
        lines += ["", "standing by: " + ", ".join(b.node_id for b in explanation.backups)]
    if explanation.next_best:
        lines += ["", "next best: " + _line(explanation.next_best, explanation.objective)]
    lines += [_line(more, explanation.objective) for more in explanation.one_more]
    if explanation.asked:
        lines += ["", "as asked: " + _line(explanation.asked, explanation.objective)]
    return "\n".join(lines)


def svg(plan: SplitPlan) -> str:
    """A row for each node, its blocks along the line, as wide as they are many; valid SVG 1.1."""
    count = max((a.end_block for a in plan.assignments), default=0)
    scale = (_WIDTH - _LEFT - 20) / max(1, count)
    height = _TOP + _ROW * len(plan.assignments) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
        "<style>text { font: 13px sans-serif; fill: #222 }</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="22">{escape(_title(plan))}</text>',
        f'<text x="12" y="42">{escape(plan.proof)}; gap {plan.gap * 100:.3g} %</text>',
    ]
    for row, a in enumerate(plan.assignments):
        parts += _row(plan, a, _TOP + row * _ROW, scale, count)
    legend = f"block 0 to {count - 1}; the darker, the nearer to the bottleneck"
    parts += [f'<text x="{_LEFT}" y="{height - 10}">{legend}</text>', "</svg>"]
    return "\n".join(parts)


def _title(plan: SplitPlan) -> str:
    chains = "1 chain" if plan.replicas == 1 else f"{plan.replicas} replicas"
    return (
        f"{plan.model_name}: {plan.strategy}, {chains}, {goal_of(plan)}, "
        f"{plan.throughput_per_s:.4g} passes a second"
    )


def _row(plan: SplitPlan, a: Assignment, top: float, scale: float, count: int) -> list[str]:
    """A node's name and its bar; tensors placed one by one have a bar as long as their load."""
    share = a.stage_s / plan.bottleneck_s if plan.bottleneck_s else 0.0
    start, end = (a.start_block, a.end_block) if a.end_block else (0, share * count)
    place = f'x="{_LEFT + start * scale:.1f}" y="{top + 3}"'
    size = f'width="{max(2.0, (end - start) * scale):.1f}" height="{_ROW - 8}"'
    colour = (
        f'fill="{_COLOURS[a.replica % len(_COLOURS)]}" fill-opacity="{0.35 + 0.65 * share:.2f}"'
    )
    told = f"{a.node_id}: blocks {a.start_block} to {a.end_block - 1}, {a.stage_s:.4g} s"
    return [
        f'<text x="12" y="{top + 18}">{escape(a.node_id)}</text>',
        f"<rect {place} {size} {colour}>",
        f"<title>{escape(told)}, {_bytes(a.memory_bytes)}</title></rect>",
    ]


def _line(what: WhatIf, objective: Objective) -> str:
    if what.refused:
        return f"{what.change}: no plan: {what.refused}"
    if objective == "latency":
        sooner = "" if what.faster is None else f", {what.faster:.3g} x as soon"
        return f"{what.change}: latency {what.latency_s:.4g} s{sooner}"
    gain = "" if what.faster is None else f", {what.faster:.3g} x the throughput"
    return f"{what.change}: bottleneck {what.bottleneck_s:.4g} s{gain}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[c]) for row in (head, *rows)) for c in range(len(head))]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
