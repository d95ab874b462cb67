"""Hypothesis draws a model, a step, a system, a plan and a workflow; the proof holds for all of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.systems.cases import prove
from tests.systems.draws import cases


@settings(max_examples=8)
@given(cases(), st.integers(0, 9))
def test_every_plan_computes_its_model_and_moves_what_was_timed(case, seed):
    proof = prove(case.model, case.system, case.plan, case.step, case.workflow, seed=seed)
    assert proof.holds, proof


@pytest.mark.slow
@settings(max_examples=500)
@given(cases(), st.integers(0, 9))
def test_every_plan_many_times(case, seed):
    proof = prove(case.model, case.system, case.plan, case.step, case.workflow, seed=seed)
    assert proof.holds, proof
