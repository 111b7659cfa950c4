"""The solver prints nothing, on neither stream: standard output may be a plan in JSON."""

import subprocess
import sys

_SOLVE = """
import highspy
from services.planner.solver import quiet
highs = quiet()
highs.addVar(1.0, 2.0)
highs.run()
assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
"""


def test_the_first_solver_of_a_process_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _SOLVE], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
