"""What the tests of the studies share: sweeps over a small model."""

from tests.helpers import TINY_LLAMA as TINY

BASE = {"model": TINY, "array": "bus-tree-64", "workflow": "megatron", "context": 16, "num_pes": 4}


def sweep_of(grid, **base):
    """A sweep of the small model."""
    return {"base": {**BASE, **base}, "grid": grid}
