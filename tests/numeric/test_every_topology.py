"""The same numbers and the same counts on every interconnect: what moves does not depend on the way it takes."""

import numpy as np
import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.numeric.executor import execute_placed
from tests.helpers import diagonal
from tests.network.networks import SECTIONS, array_of, sizes_of
from tests.numeric.cases import counts, timed_traffic
from tests.numeric.test_every_workflow import TOLERANCE, loaded


@pytest.mark.parametrize(("kind", "workflow", "num_pes"), diagonal(sorted(SECTIONS), list(WORKFLOWS), [2, 5, 8, 16]))
def test_logits_and_traffic(kind, workflow, num_pes):
    if num_pes not in sizes_of(kind):
        num_pes = 4
    check(array_of(kind, num_pes), workflow)


def check(array, workflow):
    """Prefill and decode against the logits of the transformers library; traffic as the engine counts it."""
    case, model, weights = loaded("llama-gqa")
    length = case.tokens.shape[1]
    for step, expected in (
        (Prefill(3, prompt_len=length, logits="all"), case.logits[:3]),
        (Decode(3, context_len=length - 1), case.decode_logits[:3]),
    ):
        placed = place(model, array, step, WORKFLOWS[workflow])
        done = execute_placed(placed, model, weights, case.tokens[:3])
        assert np.abs(done.logits - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())
        assert counts(done.traffic) == counts(timed_traffic(placed))
