"""Sweeps as files: what points they stand for, and what is refused before anything runs."""

import itertools
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.errors import InputError
from pe_sim.studies.grid import expand_range, load_sweep
from pe_sim.studies.resolve import Resolver, check_sweep
from pe_sim.studies.store import described
from tests.studies.samples import BASE, sweep_of

BUS = "network.bus.bytes_per_cycle"


def refused(raw, folder=None):
    with pytest.raises(InputError) as caught:
        checked(raw, folder)
    return str(caught.value)


def checked(raw, folder):
    check_sweep(load_sweep(raw), Resolver(folder))


def points(sweep):
    return [sweep.settings(number) for number in range(len(sweep))]


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"from": 64, "to": 256, "step": 64}, [64, 128, 192, 256]),
        ({"from": 64, "to": 255, "step": 64}, [64, 128, 192]),
        ({"from": 3, "to": 0, "step": -1}, [3, 2, 1, 0]),
        ({"from": 5, "to": 5, "step": 1}, [5]),
        ({"from": 16, "to": 256, "times": 2}, [16, 32, 64, 128, 256]),
        ({"from": 1, "to": 1000, "times": 10}, [1, 10, 100, 1000]),
        ({"from": 8, "to": 1, "times": 0.5}, [8.0, 4.0, 2.0, 1.0]),
        ({"from": 1, "to": 9, "num": 5}, [1, 3, 5, 7, 9]),
        ({"from": 0, "to": 1, "num": 3}, [0, 0.5, 1]),
        ({"from": 0.1, "to": 0.3, "step": 0.1}, [0.1, 0.2, 0.1 + 2 * 0.1]),
    ],
)
def test_ranges(given, values):
    found = expand_range(given, "file", "grid.x")
    assert found == pytest.approx(values)
    assert len(found) == len(values)
    if all(isinstance(value, int) for value in values):
        assert [type(value) for value in found] == [int] * len(values)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"from": 1, "to": 8, "stepp": 1}, "grid.x.stepp: unknown key of a range"),
        ({"from": 1, "to": 8}, "not a range"),
        ({"from": 1, "step": 1}, "not a range"),
        ({"from": 1, "to": 8, "step": 1, "num": 3}, "not a range"),
        ({"from": 1, "to": 8, "step": 0}, "does not lead from 1 to 8"),
        ({"from": 1, "to": 8, "step": -1}, "does not lead from 1 to 8"),
        ({"from": 1, "to": 8, "times": 1}, "does not lead from 1 to 8"),
        ({"from": 0, "to": 8, "times": 2}, "does not lead from 0 to 8"),
        ({"from": 1, "to": 8, "num": 1}, "a whole number above 1"),
        ({"from": 1, "to": 8, "num": 2.5}, "a whole number above 1"),
        ({"from": 1, "to": "8", "step": 1}, "grid.x.to: not a number"),
        ({"from": True, "to": 8, "step": 1}, "grid.x.from: not a number"),
        ({"from": 1, "to": math.inf, "step": 1}, "a finite number"),
        ({"from": 0, "to": 1, "step": 1e-12}, "too many for one range"),
    ],
)
def test_what_is_no_range(given, words):
    with pytest.raises(InputError, match=r"^file: grid\.x") as caught:
        expand_range(given, "file", "grid.x")
    assert words in str(caught.value)


@given(st.integers(-1000, 1000), st.integers(1, 50), st.integers(1, 60))
def test_steps_are_those_of_python(start, step, count):
    stop = start + (count - 1) * step
    assert expand_range({"from": start, "to": stop, "step": step}, "", "") == list(range(start, stop + 1, step))


@given(st.integers(1, 50), st.integers(2, 5), st.integers(1, 12))
def test_powers_are_exact(start, times, count):
    values = [start * times**power for power in range(count)]
    assert expand_range({"from": start, "to": values[-1], "times": times}, "", "") == values


def test_a_grid_is_the_product_and_the_last_path_is_the_fastest():
    sweep = load_sweep({"base": BASE, "grid": {"num_pes": [4, 8], "context": [10, 20, 30]}})
    pairs = [(each["num_pes"], each["context"]) for each in points(sweep)]
    assert pairs == list(itertools.product([4, 8], [10, 20, 30]))
    assert all(each["model"] == BASE["model"] for each in points(sweep))


def test_every_point_of_the_list_meets_every_one_of_the_grid():
    sweep = load_sweep({"base": BASE, "points": [{"num_pes": 8}, {BUS: 32}], "grid": {"context": [1, 2]}})
    assert [{path: each.get(path) for path in ("num_pes", BUS, "context")} for each in points(sweep)] == [
        {"num_pes": 8, BUS: None, "context": 1},
        {"num_pes": 8, BUS: None, "context": 2},
        {"num_pes": 4, BUS: 32, "context": 1},
        {"num_pes": 4, BUS: 32, "context": 2},
    ]


@given(
    st.dictionaries(
        st.sampled_from(["a", "b.c", "batch"]), st.lists(st.integers(), min_size=1, max_size=4), max_size=3
    ),
    st.lists(st.dictionaries(st.sampled_from(["d", "model", "e"]), st.text(), max_size=2), max_size=3),
)
def test_columns_and_orders_hold_what_the_points_hold(grid, listed):
    if not grid and not listed:
        return
    sweep = load_sweep({"base": {"d": "base", "f": 1}, "grid": grid, "points": listed})
    everything = points(sweep)
    assert len(sweep) == math.prod(map(len, grid.values())) * max(len(listed), 1)
    for path in sweep.paths:
        assert sweep.column(path, 0, len(sweep)) == [each.get(path) for each in everything]
        assert sweep.column(path, 1, len(sweep)) == [each.get(path) for each in everything][1:]
        assert {str(each.get(path)) for each in everything} == {str(value) for value in sweep.values(path)}
    assert sorted(sweep.in_good_order().tolist()) == list(range(len(sweep)))


VALUES = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.none())


@given(st.lists(st.one_of(VALUES, st.lists(VALUES), st.dictionaries(st.text(), VALUES)), min_size=1, max_size=5))
def test_a_sweep_survives_its_file(tmp_path_factory, values):
    sweep = load_sweep({"name": "x", "base": {"y": values[0]}, "grid": {"x": values}, "points": [{"z": values}]})
    path = tmp_path_factory.mktemp("sweep") / "sweep.yaml"
    path.write_text(described(sweep), encoding="utf-8")
    again = load_sweep(path)
    assert (again.base, again.axes) == (sweep.base, sweep.axes)


def test_the_costly_paths_change_least_often():
    sweep = load_sweep({"base": BASE, "grid": {BUS: [1, 2], "num_pes": [4, 8], "context": [1, 2], "model": ["a", "b"]}})
    ordered = [sweep.settings(number) for number in sweep.in_good_order().tolist()]
    assert [(each["model"], each["context"], each["num_pes"], each[BUS]) for each in ordered] == list(
        itertools.product("ab", [1, 2], [4, 8], [1, 2])
    )


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({}, "there is nothing to sweep"),
        ({"grid": {}}, "there is nothing to sweep"),
        ({"points": []}, "there is nothing to sweep"),
        ({"grid": {"num_pes": []}}, "grid.num_pes: an empty list"),
        ({"grid": {"num_pes": 64}}, "what all points share belongs into `base`"),
        ({"grid": {"num_pes": {64: 1}}}, "not a list of values"),
        ({"gird": {"num_pes": [64]}}, "did you mean 'grid'?"),
        ({"points": {"num_pes": 64}}, "not a list of points"),
        ({"points": [64]}, "points.0: not a point"),
        ({"points": [{"num_pes": {1, 2}}]}, "points.0.num_pes: not a value a file can hold"),
        ({"points": [{"num_pes": 4}], "grid": {"num_pes": [4]}}, "num_pes is set by the grid and by `points`"),
        ({"schema_version": 2, "grid": {"num_pes": [4]}}, "schema_version"),
        ({"grid": {f"a{i}": list(range(1000)) for i in range(3)}}, "1,000,000,000 points are too many"),
    ],
)
def test_no_sweep(raw, words):
    assert words in refused({"base": BASE, **raw})


@pytest.mark.parametrize(
    ("base", "grid", "words"),
    [
        ({}, {"network.bus.byte_per_cycle": [1]}, f"did you mean '{BUS}'?"),
        ({}, {"bytes_per_cycl": [1]}, "grid.bytes_per_cycl: unknown path"),
        ({}, {"array.num_pes": [4]}, "stands without `array.`: num_pes"),
        ({}, {"model.num_layer": [4]}, "did you mean"),
        ({}, {"model.family": ["bert"]}, "follows from the model's family"),
        ({"contxt": 1}, {"num_pes": [4]}, "base.contxt: unknown path"),
        ({"model": "lama-2-7b"}, {"num_pes": [4]}, "base.model: unknown model"),
        ({}, {"array": ["bus-tree-256", "bustree-64"]}, "grid.array: unknown array"),
        ({}, {"workflow": ["megatron", "megatorn"]}, "did you mean 'megatron'?"),
        ({}, {"phase": ["decode", "decoding"]}, "did you mean 'decode'?"),
        ({}, {"engine": ["fats"]}, "did you mean 'fast'?"),
        ({"context": None}, {"situation": ["one-lng"]}, "did you mean 'one-long'?"),
    ],
)
def test_unknown_things(base, grid, words):
    assert words in refused({"base": {**BASE, **base}, "grid": grid})


@pytest.mark.parametrize("missing", ["model", "array", "workflow", "context"])
def test_something_is_missing(missing):
    base = {name: value for name, value in BASE.items() if name != missing}
    assert f"sweep: {missing}: nothing says" in refused({"base": base, "grid": {"num_pes": [4]}})


def test_a_path_that_some_of_the_arrays_have_passes():
    raw = {"base": BASE, "grid": {"array": ["bus-tree-64", "mesh-256"], "network.link.bytes_per_cycle": [8]}}
    check_sweep(load_sweep(raw), Resolver(None))
    raw["grid"]["array"] = ["bus-tree-64"]
    assert "unknown path" in refused(raw)


def test_paths_of_another_kind_of_network_are_known_with_it():
    line = {"kind": "line", "link": {"bytes_per_cycle": 64, "latency_cycles": 1, "overhead_cycles": 0}}
    raw = {"base": {**BASE, "network": line}, "grid": {"network.link.bytes_per_cycle": [8]}}
    check_sweep(load_sweep(raw), Resolver(None))


def test_files_are_looked_up_beside_the_sweep(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: megatron\n", encoding="utf-8")
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_of({"workflow": ["mine.yaml"]})), encoding="utf-8")
    sweep = load_sweep(path)
    resolved = Resolver(sweep.folder).resolve(sweep.settings(0))
    assert resolved.workflow.name == "mine"
    assert "did you mean" not in refused(sweep_of({"workflow": ["mine.yaml"]}))
