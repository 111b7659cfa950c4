"""How much work one forward pass is: how many tokens go through each part of a model."""

from typing import NamedTuple


class Workload(NamedTuple):
    """`batch` sequences of `sequence` tokens; a vision model's are its patches and class tokens.

    An encoder-decoder reads and writes `sequence` tokens each.
    """

    batch: int
    sequence: int

    @property
    def tokens(self) -> int:
        """Tokens of all sequences together."""
        return self.batch * self.sequence
