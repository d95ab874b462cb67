"""`pe-sim compare` with several arrays: at equal PEs, silicon and wire."""

import json
from pathlib import Path

import pytest

import pe_sim as ps
from pe_sim.network.area import area_of
from pe_sim.network.metrics import wire_bits_mm

TWO = ("--array", "bus-tree-64", "--array", "mesh-256", "--context", "64", "--workflows", "megatron")


def answer(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def arrays_of(call, tiny, *args):
    comparison = json.loads(answer(call("compare", tiny, *TWO, *args, "--json", "-")))
    return [ps.load_array(report["array"]) for report in comparison["reports"]]


def test_every_workflow_on_every_array(call, tiny):
    table = answer(call("compare", tiny, *TWO[:-1], "megatron,workflow-2", "--reference", "none"))
    for label in ("megatron on bus-tree-64", "workflow-2 on mesh-256"):
        assert label in table
    head = table.splitlines()[2]
    assert head.split()[-2:] == ["PEs", "mm2"]
    assert "energy/token" in head
    first = next(line for line in table.splitlines() if "megatron on bus-tree-64" in line)
    assert first.split()[-2:] == ["64", "1,422"]


def test_one_array_needs_no_columns_for_it(call, tiny):
    table = answer(call("compare", tiny, *TWO[:2], *TWO[4:], "--reference", "none"))
    assert "megatron on" not in table
    assert table.splitlines()[2].split()[-1] == "bytes"
    report = ps.simulate(tiny, "bus-tree-64", ps.Decode(1, 64), "megatron")
    assert f"{report.energy['per_token_joules'] * 1e6:,.2f} uJ" in table


def test_without_equal_they_are_as_they_are(call, tiny):
    assert arrays_of(call, tiny) == [ps.load_array("bus-tree-64"), ps.load_array("mesh-256")]


def test_the_json_says_which_report_is_which(call, tiny):
    told = json.loads(answer(call("compare", tiny, *TWO, "--json", "-")))
    assert told["labels"] == ["megatron on bus-tree-64", "megatron on mesh-256"]
    cycles = [report["latency"]["cycles"] for report in told["reports"]]
    assert told["best"] == told["labels"][cycles.index(min(cycles))]


def test_equal_pes(call, tiny):
    first, other = arrays_of(call, tiny, "--equal", "pes")
    assert first.num_pes == other.num_pes == 64
    assert other == ps.load_array("mesh-256", {"num_pes": 64})


def test_equal_area(call, tiny):
    first, other = arrays_of(call, tiny, "--equal", "area", "--set", "pe.matrix.outputs=8")
    budget = area_of(first).total_mm2
    assert other == ps.at_area("mesh-256", budget, {"pe.matrix.outputs": 8})
    assert area_of(other).total_mm2 <= budget < 1.05 * area_of(other).total_mm2


def test_what_is_not_made_equal_is_marked_and_not_ranked(call, tiny):
    """A hypercube has 64 PEs or 128, and its silicon is then 0.51 times or more than that of the first."""
    args = ("--array", "bus-tree-256", "--array", "hypercube-256", "--equal", "area", "--workflows", "megatron")
    faster = ("--set", "clock_ghz=1", "--reference", "none")
    text = answer(call("compare", tiny, *args, *faster, "--html", "page.html", "--json", "told.json"))
    told = json.loads(Path("told.json").read_text(encoding="utf-8"))
    cube, tree = "megatron on hypercube-256", "megatron on bus-tree-256"
    assert told["best"] == tree
    assert list(told["unequal"]) == [cube]
    areas = [report["area"]["total_mm2"] for report in told["reports"]]
    assert told["unequal"][cube] == (
        f"NOT OF EQUAL AREA: {areas[1]:,.0f} of {areas[0]:,.0f} mm2, {areas[1] / areas[0]:.0%}"
    )
    assert areas[1] < 0.6 * areas[0]
    assert f"{cube}: {told['unequal'][cube]}" in text
    row = next(line for line in text.splitlines() if f"{cube} (NOT EQUAL)" in line)
    assert row.split(cube)[1].split()[6] == "-"  # x best
    assert f"{cube} (NOT EQUAL)" in Path("page.html").read_text(encoding="utf-8")
    served = answer(call("compare", tiny, *args, "--situation", "batch-short", "--reference", "none"))
    assert f"{cube} (NOT EQUAL)" in served.split("Step 1")[0]
    assert f"* {tree}" in served.split("Step 1")[0]


def test_areas_of_different_processes(call, tiny, refused):
    plain = ps.config.arrays.load.array_to_dict(ps.load_array("bus-tree-64"))
    for key in ("process", "energy", "area"):
        del plain[key]
    plain["network"]["tree"]["latency_cycles"] = "auto"  # areas ask for other numbers of PEs
    Path("old.yaml").write_text(json.dumps({**plain, "name": "old"}), encoding="utf-8")
    args = ("compare", tiny, "--array", "bus-tree-64", "--array", "old.yaml", "--workflows", "megatron")
    message = refused(*args, "--equal", "area")
    assert "areas of different processes are not compared" in message
    assert "bus-tree-64 7nm, old 45nm (assumed)" in message
    assert "--mixed-process compares them as they are" in message
    for more in ((), ("--equal", "area", "--mixed-process")):
        text = answer(call(*args, *more, "--html", "page.html"))
        table = text.partition("Why")[0].splitlines()
        assert table[2].split()[-1] == "process"
        assert [line.split()[-1] for line in table if "megatron on" in line] == ["7nm", "(assumed)"]
        assert "energy and area are of different processes: bus-tree-64 7nm, old 45nm (assumed)" in text
        page = Path("page.html").read_text(encoding="utf-8")
        assert "45nm (assumed)" in page
        assert "energy and area are of different processes" in page
    assert "of different processes" not in answer(call(*args[:4], "--array", "mesh-256", *args[6:]))


def test_what_was_assumed_is_told_wherever_energy_is_shown(call, tiny):
    plain = ps.config.arrays.load.array_to_dict(ps.load_array("bus-tree-64"))
    for key in ("process", "energy", "area"):
        del plain[key]
    del plain["pe"]["memory"]["device"]
    Path("old.yaml").write_text(json.dumps({**plain, "name": "old"}), encoding="utf-8")
    words = "45nm logic (assumed), dram_bank in the PEs (assumed), lpddr at the root"
    Path("system.yaml").write_text("schema_version: 1\narrays: [{array: old.yaml}]\n", encoding="utf-8")
    files = ("--json", "told.json", "--html", "page.html")
    text = " ".join(answer(call("run", tiny, "--array", "old.yaml", *files)).split())
    assert f"energy and area of old are those of {words}; to say otherwise: process, pe.memory.device" in text
    assert "Energy (first order, 45nm (assumed), static" in text
    assert "Area (first order, 45nm (assumed))" in text
    told = json.loads(Path("told.json").read_text(encoding="utf-8"))
    basis = {
        "process": "45nm",
        "pe_memory": "dram_bank",
        "root_memory": "lpddr",
        "assumed": ["process", "pe.memory.device"],
    }
    assert told["energy"]["basis"] == told["area"]["basis"] == basis
    assert words in Path("page.html").read_text(encoding="utf-8")
    assert words in " ".join(answer(call("search", tiny, "--array", "old.yaml", "--objective", "energy")).split())
    assert words in answer(call("compare", tiny, "--array", "old.yaml", "--workflows", "megatron"))
    several = answer(call("run", tiny, "--arrays", "system.yaml", "--json", "several.json"))
    assert words in " ".join(several.split())
    told = json.loads(Path("several.json").read_text(encoding="utf-8"))
    assert told["energy"]["basis"] == [{"array": "old", **basis}]
    grid = {"base": {"model": tiny, "array": "old.yaml", "workflow": "megatron"}, "grid": {"context": [8]}}
    assert ps.sweep(grid, "out", jobs=1).to_frame()["cost_basis"].to_list() == [words]


def test_equal_wire(call, tiny):
    first, other = arrays_of(call, tiny, "--equal", "wire")
    assert other.num_pes == 256
    assert wire_bits_mm(other) <= wire_bits_mm(first)
    assert other.graph_network.shape.link.bytes_per_cycle < 64


def test_equal_wire_says_how_equal(call, tiny):
    first = wire_bits_mm(ps.load_array("bus-tree-64"))
    told = call("compare", tiny, *TWO, "--equal", "wire").stderr
    assert told.startswith("mesh-256: widths x ")
    assert f"of {first:,.0f} bit mm (" in told


def test_a_situation_over_several_arrays(call, tiny):
    text = answer(call("compare", tiny, *TWO[:4], "--workflows", "megatron", "--situation", "batch-short"))
    assert "on several arrays, batch-short" in text
    assert "megatron on mesh-256" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--equal", "area"), "--equal: there is nothing to make equal to a single array"),
        (("--array", "mesh-256", "--array", "mesh-256"), "--array: this array is named twice\n  given:    'mesh-256'"),
        (
            ("--array", "mesh-256", "--array", "bus-tree-64", "--equal", "area", "--set", "num_pes=4"),
            "--set num_pes: the area decides the number of PEs",
        ),
        (("--array", "wafer-line-512", "--array", "bus-tree-64", "--equal", "area"), "no array like bus-tree-64 is so"),
        (("--array", "mesh-256", "--array", "mesh-257"), "did you mean"),
        (
            ("--array", "bus-tree-64", "--array", "hypercube-256", "--equal", "pes", "--set", "num_pes=6"),
            "a power of 2",
        ),
        (
            ("--array", "wafer-line-512", "--array", "mesh-256", "--equal", "wire"),
            "--equal wire, as much as wafer-line-512 has: mesh-256 takes more wire than that even with channels of 1",
        ),
    ],
)
def test_refusals(refused, tiny, args, message):
    assert message in refused("compare", tiny, *args)


def test_what_can_be_made_equal(call, tiny):
    result = call("compare", tiny, *TWO[:4], "--equal", "size")
    assert result.exit_code == 2
    assert "'size' is not one of 'pes', 'area', 'wire'" in result.stderr
