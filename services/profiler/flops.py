"""Floating-point operations in closed form: pure arithmetic, as torch's FlopCounterMode counts.

A product of an m×k and a k×n matrix is 2·m·k·n; additions of a bias, norms, activations, softmax
and look-ups count nothing. docs/metadata.md lists each formula with its source.
"""

from services.profiler.workload import Workload

GIGA = 1e9


def linear(elements: int, tokens: int) -> int:
    """A linear layer of `elements` weights applied to `tokens` vectors: 2·elements·tokens."""
    return 2 * elements * tokens


def experts(elements: int, stack: int, top_k: int, tokens: int) -> float:
    """`elements` weights of one of `stack` routed experts of which each token visits `top_k`.

    Routing is taken as even, so that the sum over a layer's experts is exact whatever the router
    does: 2·elements·tokens·top_k / stack.
    """
    return 2 * elements * tokens * min(top_k, stack) / stack


def attention(query_width: int, value_width: int, work: Workload, context: int) -> int:
    """Attention's own products QKᵀ and PV: 2·B·S·context·(query width + value width).

    Widths are heads × head dimension. Masks save nothing: causal and sliding attention is counted
    in full, as FlopCounterMode counts scaled_dot_product_attention.
    """
    return 2 * work.tokens * context * (query_width + value_width)


def attention_decode(query_width: int, value_width: int, context: int) -> int:
    """The same products for one new token that sees `context` tokens."""
    return 2 * context * (query_width + value_width)
