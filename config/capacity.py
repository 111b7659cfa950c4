"""Compute by name, only for machines where nothing was measured: a table of GPUs, and the rule."""

GPU_GFLOPS: tuple[tuple[str, float], ...] = (
    ("RTX 4090", 80_000.0),
    ("RTX 4080", 50_000.0),
    ("RTX 3090", 36_000.0),
    ("RTX 3080", 30_000.0),
    ("RTX 3070", 20_000.0),
    ("A100", 312_000.0),
    ("V100", 125_000.0),
    ("T4", 8_000.0),
    ("K80", 5_600.0),
)
"""GFLOPS by a part of the device's name, as its driver reports it; the first that fits counts."""

OTHER_GPU_GFLOPS = 5_000.0
CORE_GFLOPS = 10.0


def compute_gflops(gpu_name: str | None, cores: int, utilisation: float) -> float:
    """The GFLOPS that are free: the table's figure, or 10 a core, × (1 − `utilisation`).

    `utilisation` is a share from 0 to 1 of whichever computes. A name matches by its words, so
    that "NVIDIA GeForce RTX 3080" is found and "T400" is no T4.
    """
    free = 1.0 - min(1.0, max(0.0, utilisation))
    if gpu_name:
        words = f" {gpu_name.upper().replace('-', ' ').replace('_', ' ')} "
        for name, gflops in GPU_GFLOPS:
            if f" {name} " in words:
                return gflops * free
        return OTHER_GPU_GFLOPS * free
    return CORE_GFLOPS * max(1, cores) * free
