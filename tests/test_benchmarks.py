"""The benchmarks' numbers are written as they should be, and a small curve goes all the way to the page.

Nothing here looks at how long anything took: `make bench` does.
"""

from subprocess import CalledProcessError

import pytest

from benchmarks.curve import Curve, Series, significant
from benchmarks.growth import Section, step_curve
from benchmarks.measure import clear_caches, median_seconds, process_mib
from benchmarks.page import write_page
from benchmarks.step import Situation
from benchmarks.sweeps import SWEEP_ARRAY, SWEEPS
from benchmarks.table import Row, describe_machine, format_table
from pe_sim.api import Decode, load_array, load_workflow
from pe_sim.mapping.mapper import place
from tests.helpers import small_array, tiny_llama

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0012345, "0.00123"), (1.0, "1.00"), (9.996, "10.0"), (99.96, "100"), (1234.5, "1,230"), (0, "0")],
)
def test_three_digits(value, text):
    assert significant(value) == text


def test_table_says_what_is_missed():
    rows = [
        Row("within", 0.25, "s", 0.5),
        Row("too slow", 1.0, "s", 0.5),
        Row("enough", 400.0, "/s", 300.0, at_least=True),
        Row("too few", 150.0, "/s", 300.0, at_least=True),
        Row("nothing promised", 12345.0, "MiB"),
    ]
    assert format_table(rows) == (
        "| what             |   measured |   target | measured / target |\n"
        "| ---------------- | ---------: | -------: | ----------------: |\n"
        "| within           |    0.250 s |  ≤ 0.5 s |              0.50 |\n"
        "| too slow         |     1.00 s |  ≤ 0.5 s |     2.00 (missed) |\n"
        "| enough           |     400 /s | ≥ 300 /s |              1.33 |\n"
        "| too few          |     150 /s | ≥ 300 /s |     0.50 (missed) |\n"
        "| nothing promised | 12,300 MiB |          |                   |\n"
    )


def curve_of(*series):
    return Curve("Sizes", "the size", "bytes", (1, 2, 4, 8), series)


def test_exponents_of_powers():
    linear = Series("linear", (0.001, 0.002, 0.004, 0.008))
    bent = Series("bent", (0.001, 0.001, 0.004, 0.016))
    curve = curve_of(linear, Series("constant", (0.5,) * 4), bent)
    assert curve.exponent(linear) == pytest.approx(1)
    assert curve.exponent(bent, last=2) == pytest.approx(2)
    assert curve.sentence() == (
        "Sizes, 1 to 8. Hardly any growth: constant (0.00). In proportion: linear (1.00)."
        " More than in proportion: bent (1.40, at the end 2.00)."
    )


def test_what_cannot_be_fitted_is_left_out():
    few = Series("few", (0.001, 0.002, None, None))
    mixed = Series("mixed", (0.001, 0.1, 0.2, 0.4), (False, True, True, True))
    curve = curve_of(few, mixed)
    assert (curve.exponent(few), curve.exponent(mixed)) == (None, None)
    assert curve.sentence() == "Sizes, 1 to 8."


def test_table_of_a_curve():
    slow = Series("slow", (0.1, 0.2, 0.4, None))
    fast = Series("fast", (0.001, 0.001, 0.002, 0.4), (False, False, False, True))
    assert curve_of(slow, fast).table(ratio=("slow", "fast")) == (
        "| size (bytes) | slow, ms | fast, ms | slow / fast |\n"
        "| ------------ | -------: | -------: | ----------: |\n"
        "| 1            |      100 |     1.00 |         100 |\n"
        "| 2            |      200 |     1.00 |         200 |\n"
        "| 4            |      400 |     2.00 |         200 |\n"
        "| 8            |          |     400* |             |\n"
        "| exponent     |     1.00 |          |             |\n"
        "| at the end   |     1.00 |          |             |\n"
    )


def test_median_stops_at_its_limit():
    calls, before = [], []
    _, last = median_seconds(lambda: calls.append(1) or len(calls), 9, before=lambda: before.append(1), limit=0.0)
    assert (last, len(before)) == (1, 1)
    assert median_seconds(lambda: calls.append(1) or len(calls), 3)[1] == 4


def test_cleared_caches_keep_no_placed_graph():
    situation = Situation(tiny_llama(), small_array(4), Decode(1, 8), load_workflow("megatron"))
    given = (situation.model, situation.array, situation.step, situation.workflow)
    before = place(*given)
    clear_caches()
    after = place(*given)
    assert not {id(block) for block in before.blocks} & {id(block) for block in after.blocks}


@pytest.mark.parametrize("name", SWEEPS)
def test_points_of_a_sweep_differ(name):
    changes, values = SWEEPS[name]
    first, second = (load_array(SWEEP_ARRAY, dict(changes(value))) for value in values[:2])
    assert len(values) >= 100
    assert first != second


def test_a_small_curve_end_to_end(tmp_path):
    def situation(num_pes):
        return Situation(tiny_llama(), small_array(num_pes), Decode(2, 8), load_workflow("megatron"))

    curve = step_curve("PEs", "the number of PEs", "", (2, 4, 8), situation, event_up_to=4, repeats=1)
    assert [series.name for series in curve.series] == ["place", "lower", "fast engine", "`simulate`", "event engine"]
    assert [seconds is not None for seconds in curve.series[-1].seconds] == [True, True, False]
    bursts = Series("fast engine", (0.1, 0.2, 0.3), (False, True, True))
    section = Section(
        "small", "A heading", "What it is.", "Why so.", (curve, Curve("B", "the x", "", (1, 2, 4), (bursts,))), None
    )
    page = tmp_path / "page.md"
    write_page(page, describe_machine(), [Row("a row", 1.0, "s")], [section])
    text = page.read_text(encoding="utf-8")
    assert (tmp_path / "performance" / "small.png").read_bytes().startswith(PNG)
    for part in ("numpy", "| a row |", "### A heading", "](performance/small.png)", "Why so.", curve.table(None)):
        assert part in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "-"))) <= 120


@pytest.mark.slow
def test_the_peak_memory_of_a_process_is_that_of_its_step():
    run = ("run", "llama-3.2-1b", "--array", "bus-tree-256", "--allow-overflow", "--set")
    assert process_mib((*run, "num_pes=256")) + 50 < process_mib((*run, f"num_pes={2**17}"))
    with pytest.raises(CalledProcessError):
        process_mib(("run", "no-such-model"))
