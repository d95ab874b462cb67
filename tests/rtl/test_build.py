"""Building and running, tried with a stand-in for the array: `stand_in/pe_array.sv`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import conftest
from tests.rtl import build
from tests.rtl.build import BuildError, available, binary, cached, shortened
from tests.rtl.hardware import Hardware
from tests.rtl.programs.array_program import ArrayProgram, BusGrant, RunResult, TreeStart, WorkSpan
from tests.rtl.run import RunError, quiet_cycles, run
from tests.rtl.synthesis import cells, num_registers

STAND_IN = Path(__file__).parent / "stand_in"
NO_COMPILER = "the RTL is compiled with g++, which was not found (on Debian and Ubuntu: apt install g++)"


def hardware(num_pes: int, **parameters: int) -> Hardware:
    return Hardware(**{field.name: 1 for field in fields(Hardware)} | {"num_pes": num_pes} | parameters)


def run_stand_in(program: ArrayProgram, most_cycles: int = 1000, times: int = 1) -> list[RunResult]:
    return run(hardware(len(program.units) - 1), [program] * times, most_cycles, STAND_IN)


# ------------------------------------------------------------------------------------------------ without a compiler
def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "COMPILER", "no-such-compiler")
    assert available() == NO_COMPILER.replace("g++,", "no-such-compiler,")


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_without_a_compiler_tests_are_skipped_unless_they_are_required(
    required: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PE_SIM_REQUIRE_RTL", required)
    monkeypatch.setattr(conftest, "available", lambda: NO_COMPILER)
    conftest.pytest_runtest_setup(SimpleNamespace(get_closest_marker=lambda name: None))
    with pytest.raises(outcome, match="apt install"):
        conftest.pytest_runtest_setup(SimpleNamespace(get_closest_marker=lambda name: name == "rtl"))


# ------------------------------------------------------------------------------------------------------------ cache
@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def writes(text: str, made: list[str], fails: bool = False) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "half").write_text("")
        time.sleep(0.05)
        made.append(text)
        if fails:
            raise BuildError(text)
        (folder / "half").rename(folder / "whole")

    return make


def test_what_is_asked_for_at_once_is_made_once(cache: Path) -> None:
    made: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: cached("thing", writes("a", made)), range(4)))
    assert made == ["a"]
    (folder,) = folders
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_what_fails_leaves_nothing(cache: Path) -> None:
    made: list[str] = []
    with pytest.raises(BuildError):
        cached("thing", writes("a", made, fails=True))
    assert [path.name for path in cache.iterdir()] == ["locks"]
    assert (cached("thing", writes("b", made)) / "whole").exists()
    assert made == ["a", "b"]


def test_long_messages_are_shortened() -> None:
    lines = [f"line {number}" for number in range(30)]
    assert shortened("\n".join(lines)).splitlines() == [*lines[:20], "... and 10 more lines"]
    assert shortened("all\n") == "all"


# ------------------------------------------------------------------------------------------------------------ builds
@pytest.mark.rtl
def test_a_build_is_kept() -> None:
    first = binary(hardware(3), STAND_IN)
    before = first.stat().st_mtime_ns
    assert binary(hardware(3), STAND_IN) == first
    assert first.stat().st_mtime_ns == before
    assert [path.name for path in first.parent.iterdir()] == ["run"]


@pytest.mark.rtl
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nothing one ();", "Cannot find file containing module: 'nothing'"),
        ("logic [3:0] four; assign four = now;", "expects 4 bits"),  # a warning
    ],
)
def test_what_verilator_says_is_passed_on(line: str, message: str, cache: Path, tmp_path: Path) -> None:
    text = (STAND_IN / "pe_array.sv").read_text()
    (tmp_path / "pe_array.sv").write_text(text.replace("endmodule", f"{line}\nendmodule"))
    with pytest.raises(BuildError, match=r"verilator_bin failed \(1\):\n(.*\n)*.*pe_array.sv:") as raised:
        binary(hardware(3), tmp_path)
    assert message in str(raised.value)


# -------------------------------------------------------------------------------------------------------------- runs
@pytest.mark.rtl
def test_events_are_counted_and_reads_are_cut_to_their_length() -> None:
    program = ArrayProgram.of(3)
    program.units[1].work = [2, 1, 3]
    program.root.work = [4]
    program.root.sends = [0, 0]
    program.units[2].leaves = [0]
    program.root.buffer = [(16, b"hello world")]
    program.reads = [(3, 16, 11), (3, 24, 3)]
    first, *others = run_stand_in(program, times=3)
    assert others == [first, first]
    assert first.cycles == 6
    assert first.reads == (b"hello world", b"rld")
    spans = [WorkSpan(1, 0, 0, 2), WorkSpan(1, 1, 2, 3), WorkSpan(3, 0, 0, 4), WorkSpan(1, 2, 3, 6)]
    assert sorted(first.work, key=lambda span: span.end) == sorted(spans, key=lambda span: span.end)
    assert first.grants == (BusGrant(3, 0, 0), BusGrant(3, 1, 1))
    assert first.starts == (TreeStart(2, 0, 0),)


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("num_pes", [31, 63, 64])  # ports of 31 to 65 bits: integers of 32 and 64 bits, and arrays
def test_every_width_of_the_ports_is_read(num_pes: int) -> None:
    program = ArrayProgram.of(num_pes)
    for number, unit in enumerate(program.units):
        unit.work = [number + 1]
        unit.sends = [0]
    for unit in program.units[:-1]:
        unit.leaves = [0]
    (result,) = run_stand_in(program)
    units = range(num_pes + 1)
    assert sorted(result.work, key=lambda span: span.unit) == [WorkSpan(unit, 0, 0, unit + 1) for unit in units]
    assert result.grants == tuple(BusGrant(unit, 0, 0) for unit in units)
    assert result.starts == tuple(TreeStart(unit, 0, 0) for unit in units[:-1])


@pytest.mark.rtl
def test_many_cases_with_much_data_do_not_block() -> None:
    program = ArrayProgram.of(3)
    program.root.buffer = [(0, bytes(range(256)) * 2)]
    program.reads = [(3, 0, 512)] * 20
    results = run_stand_in(program, times=100)  # about 1 MB each way
    assert {result.reads for result in results} == {(bytes(range(256)) * 2,) * 20}


@pytest.mark.rtl
def test_who_waits_is_said_when_a_program_does_not_end() -> None:
    program = ArrayProgram.of(3)
    program.units[1].work = [2, 255, 1]
    program.units[1].sends = [0]
    program.root.work = [255]
    with pytest.raises(RunError) as raised:
        run_stand_in(program)
    assert str(raised.value) == (
        "program 0 did not come to its end:\n"
        "PE 1: of 3 work commands 2 have begun and 1 have ended; 1 of 1 sends and 0 of 0 leaves have begun\n"
        "the root: of 1 work commands 1 have begun and 0 have ended; 0 of 0 sends and 0 of 0 leaves have begun"
    )


@pytest.mark.rtl
def test_an_assertion_of_the_rtl_stops_the_run() -> None:
    program = ArrayProgram.of(3)
    program.units[2].work = [2, 0]
    with pytest.raises(RunError, match="the RTL stopped") as raised:
        run_stand_in(program)
    assert "a command takes no time" in str(raised.value)
    assert "driver: case 0 stopped in cycle 3" in str(raised.value)


def test_programs_of_another_array_are_refused() -> None:
    with pytest.raises(ValueError, match="4 programs for 4 PEs and the root"):
        run(hardware(4), [ArrayProgram.of(3)])


def test_the_quiet_cycles_outlast_every_latency() -> None:
    # 2 joints of 12, links of 3 + 5, the bus 2 + 1 + 1, and a unit's five latencies of 1
    its = hardware(4, num_levels=2, merge=12, tree_latencies=0x0503, bus_latency=2)
    assert quiet_cycles(its) == 2 * (24 + 8 + 4 + 5) + 64


# --------------------------------------------------------------------------------------------------------- synthesis
@pytest.mark.slow
def test_gates_are_counted(tmp_path: Path) -> None:
    (tmp_path / "top.sv").write_text(
        "module top #(parameter int BITS = 1) (input logic clk, input logic [BITS-1:0] a, b, input logic [3:0] at,\n"
        "    output logic [BITS-1:0] q, m);\n"
        "    both #(.BITS(BITS)) both (.clk, .a, .b, .q);\n"
        "    logic [BITS-1:0] memory [16];\n"
        "    always_ff @(posedge clk) memory[at] <= a;\n"
        "    assign m = memory[~at];\n"
        "endmodule\n"
    )
    (tmp_path / "both.sv").write_text(
        "module both #(parameter int BITS = 1) (input logic clk, input logic [BITS-1:0] a, b,\n"
        "    output logic [BITS-1:0] q);\n"
        "    always_ff @(posedge clk) q <= a & b;\n"
        "endmodule\n"
    )
    (tmp_path / "other.sv").write_text("module other; what Yosys cannot read\n")
    assert json.dumps(cells("top", {"BITS": 7}, tmp_path)) == json.dumps(
        {"AND": 7, "DFF": 7, "NOT": 4, "memory bits": 112}
    )
    with pytest.raises(ValueError, match="there is no module 'tap' in"):
        cells("tap", {}, tmp_path)


@pytest.mark.slow
def test_the_whole_array_can_be_synthesized() -> None:
    """Yosys reads all of it, finds no latch and no wire with several drivers."""
    parameters = {"NUM_PES": 2, "NUM_LEVELS": 1, "TREE_LATENCIES": 1}
    assert num_registers("pe_array", parameters) > 100
