"""One conformance test over all dialects of plans: known by their keys, read to what they say, strict otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pe_sim.config.plans.load import PLAN_DIALECTS, detect_plan_dialect, load_plan
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.plans.schema import plan_to_dict
from pe_sim.errors import InputError

FOREIGN = Path(__file__).parents[2] / "data" / "foreign"
MERAK = {"dp": 1, "tp": 2, "pp": 2, "partition_method": "uniform", "train_schedule": "1f1b", "num_layers": 32}
GENERATED = {"num_layers": 32, "num_gpus": 8, "dp": 2, "cp": 1, "tp": 2, "pp": 2, "recompute_layers": []}
SAMPLES: Mapping[str, Mapping[str, Any]] = {
    "Hetu ds_parallel_config": json.loads((FOREIGN / "hetu" / "dp1_tp2_pp2.json").read_text()),
    "Hetu generator arguments": GENERATED,
    "Galvatron strategy": json.loads(next((FOREIGN / "galvatron" / "strategy").glob("*.json")).read_text()),
    "MerakArguments": MERAK,
    "pe-sim plan": {"schema_version": 1, "tp": 2, "pp": 2},
}


def test_every_dialect_has_a_sample() -> None:
    """A new dialect brings one."""
    assert [dialect.name for dialect in PLAN_DIALECTS.values()] == list(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_of_its_dialect_alone(name: str) -> None:
    """The first that recognises a file reads it; of the samples none is taken by another."""
    assert detect_plan_dialect(SAMPLES[name]).name == name
    recognised = [dialect.name for dialect in PLAN_DIALECTS.values() if dialect.recognises(SAMPLES[name])]
    spells_degrees = name in ("Hetu generator arguments", "MerakArguments")  # as our own form does, which comes last
    assert recognised == [name, "pe-sim plan"] if spells_degrees else [name]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_plan_survives_our_own_form(name: str) -> None:
    """What a dialect says can be written as our own file and read back."""
    plan = load_plan(SAMPLES[name], num_arrays=8)
    again = load_plan(plan_to_dict(plan))
    assert again == replace(plan, source=again.source, name=again.name)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_unknown_key_is_refused_by_name(name: str) -> None:
    """No key is passed over in silence."""
    with pytest.raises(InputError, match="tensor_paralel"):
        load_plan({**SAMPLES[name], "tensor_paralel": 2}, num_arrays=8)


@pytest.mark.parametrize("name", SAMPLES)
def test_reading_does_not_change_what_is_read(name: str) -> None:
    """The mapping is the caller's."""
    given = json.loads(json.dumps(SAMPLES[name]))
    assert isinstance(load_plan(given, num_arrays=8), ParallelPlan)
    assert given == SAMPLES[name]
