"""The file that envelopes follow from: what is in it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.report.analysis.envelope import PACKAGED, Compared, packaged, read_compared
from pe_sim.schedule.collectives import KINDS
from tests.report.analysis.test_envelope import KNOWN, RAW, known_with


def test_the_packaged_file_names_what_there_is() -> None:
    found = packaged()
    assert found == read_compared(PACKAGED)
    assert set(found.collective.kinds) <= set(KINDS)
    assert set(found.step.workflows) <= set(WORKFLOWS)
    assert set(found.step.phases) <= {"decode", "prefill"}
    assert set(found.step.families) <= {"llama", "gpt2", "bert"}
    assert set(found.machine.memories) <= {"flat", "dram_bank"}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "compared.json"
    path.write_text(KNOWN.to_json(), encoding="utf-8")
    assert read_compared(path) == KNOWN
    assert json.loads(path.read_text(encoding="utf-8")) == RAW


SECTIONS = ("machine", "collective", "gemm", "step")


@pytest.mark.parametrize("section", [None, *SECTIONS])
def test_an_unknown_or_a_missing_key_is_refused(section: str | None) -> None:
    for key in (*(RAW[section] if section else RAW), None):
        raw = json.loads(json.dumps(RAW))
        part = raw[section] if section else raw
        if key:
            del part[key]
        else:
            part["unknown"] = 1
        with pytest.raises(ValidationError, match="Extra inputs" if key is None else "Field required"):
            Compared.model_validate_json(json.dumps(raw))


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("step", {"num_pes": []}),
        ("step", {"num_pes": ["4"]}),
        ("step", {"num_pes": [4.5]}),
        ("step", {"overlaps": [True]}),
        ("step", {"workflows": [1]}),
        ("step", {"worst_percent": -0.1}),
        ("collective", {"worst_percent": "0"}),
        ("gemm", {"worst_percent_edge_tiles": 101}),
        ("gemm", {"worst_percent_edge_tiles": None}),
    ],
)
def test_wrong_values_are_refused(section: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        known_with(section, **changes)


def test_another_schema_is_refused() -> None:
    with pytest.raises(ValidationError):
        Compared.model_validate_json(json.dumps({**RAW, "schema_version": 2}))
