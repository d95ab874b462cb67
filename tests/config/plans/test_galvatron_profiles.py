"""Galvatron's profiles: what each key means, in which units, and how what cannot be used is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.plans.galvatron_profiles import (
    Kind,
    LayerTime,
    Measurement,
    is_galvatron_profile,
    load_galvatron_profiles,
)
from pe_sim.errors import InputError

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "foreign" / "galvatron" / "profiles"
FILES = sorted(SAMPLES.glob("*.json"))


def read(*raws):
    return load_galvatron_profiles(raws)


def message(*raws):
    with pytest.raises(InputError) as error:
        load_galvatron_profiles(raws)
    return str(error.value)


def test_units():
    found = read(
        {
            "allreduce_size_8_2MB_time": 0.5,
            "all2all_size_4_1MB_time": 0.25,
            "allreduce_size_8_consec_1": 150,
            "allreduce_size_4_consec_0": 140.0,
            "pp_size_2": 160.0,
            "overlap_coe": 1.25,
        }
    )
    assert found.measurements == (
        Measurement(Kind.ALL_REDUCE, 8, 2 * 2**20, 0.5e-3),
        Measurement(Kind.ALL_TO_ALL, 4, 2**20, 0.25e-3),
        Measurement(Kind.NEIGHBOURS, 8, None, 150e9),
        Measurement(Kind.STRIDED, 4, None, 140e9),
        Measurement(Kind.POINT_TO_POINT, 2, None, 160e9),
    )
    assert found.overlap_coefficient == 1.25
    assert found.ignored == ()


def test_the_published_profiles():
    found = load_galvatron_profiles(FILES)
    assert [Path(source).name for source in found.sources] == [file.name for file in FILES]
    counts = {kind: sum(one.kind is kind for one in found.measurements) for kind in Kind}
    assert list(counts.values()) == [33, 33, 3, 2, 3]
    assert found.overlap_coefficient == 1.125552573612729
    assert found.measurements[0] == Measurement(Kind.ALL_REDUCE, 2, 2**20, pytest.approx(70.3e-6))
    assert (found.layer_times, found.ignored) == ((), ())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_is_known_by_its_keys(file):
    assert is_galvatron_profile(json.loads(file.read_text(encoding="utf-8")))


def test_others_are_not_known():
    assert not is_galvatron_profile({"hidden_size": 4096, "pp_deg": 2, "pp_size_two": 3, "allreduce_size_8": 1})
    assert not is_galvatron_profile({})


def test_a_layer_is_the_difference_of_two():
    found = read({"layernum[2]_bsz8_seq4096": 397.9, "layernum[4]_bsz8_seq4096": 577.5})
    assert found.layer_times == (LayerTime(8, 4096, (2, 4), pytest.approx(0.0898)),)
    assert found.measurements == ()


def test_a_layer_without_a_length_and_of_three_numbers():
    found = read({"layernum[1]_bsz2": 10.0, "layernum[2]_bsz2": 12.0, "layernum[3]_bsz2": 20.0})
    assert found.layer_times == (LayerTime(2, None, (1, 2, 3), pytest.approx(5e-3)),)


def test_what_is_of_no_use_is_told():
    found = read(
        {
            "layertype_0_bsz1_seq2048": 15.3,
            "layernum[2]_bsz1_seq2048": 44.7,
            "layernum[2,2]_bsz1_seq[512,512]": 40.0,
            "overlap_coe": 1.0,
        }
    )
    keys = ("layertype_0_bsz1_seq2048", "layernum[2]_bsz1_seq2048", "layernum[2,2]_bsz1_seq[512,512]")
    assert found.ignored == keys
    assert found.layer_times == ()


def test_files_are_merged(tmp_path):
    (tmp_path / "a.json").write_text('{"pp_size_2": 1.5, "overlap_coe": 1.1}', encoding="utf-8")
    (tmp_path / "b.yaml").write_text("pp_size_2: 1.5\npp_size_4: 2\n", encoding="utf-8")
    found = load_galvatron_profiles([tmp_path / "a.json", str(tmp_path / "b.yaml")])
    assert [(one.devices, one.value) for one in found.measurements] == [(2, 1.5e9), (4, 2e9)]
    assert load_galvatron_profiles(tmp_path / "a.json").overlap_coefficient == 1.1


def test_contradictions():
    assert message({"pp_size_2": 1.5}, {"pp_size_2": 2}) == (
        "profile 2: pp_size_2: two profiles contradict each other\n"
        "  given:    2.0\n"
        "  expected: 1.5, as profile 1 has it\n"
        "  hint:     give one of the two files, or files of one machine"
    )


def test_unknown_keys():
    assert message({"allreduce_size_8_consek_1": 3.0}) == (
        "profile 1: allreduce_size_8_consek_1: unknown key of a Galvatron profile\n"
        "  given:    3.0\n"
        "  hint:     did you mean 'allreduce_size_8_consec_1'?"
    )
    assert "known: all2all_size_8_1MB_time, " in message({"hidden_size": 3})
    for key in ("allreduce_size_8_consec_2", "pp_size_02", "pp_size_", "all2all_size_8_1mb_time", "layernum[]_bsz1"):
        assert "unknown key" in message({key: 1.0})


def test_values():
    assert message({"pp_size_2": "3"}) == (
        "profile 1: pp_size_2: not a number\n  given:    '3'\n  expected: GB/s, a number from 1e-09 to 1e+09"
    )
    assert message({"allreduce_size_8_1MB_time": -0.1}) == (
        "profile 1: allreduce_size_8_1MB_time: too small\n"
        "  given:    -0.1\n"
        "  expected: milliseconds, a number from 1e-09 to 1e+09"
    )
    assert message({"overlap_coe": 0.9}) == (
        "profile 1: overlap_coe: too small\n"
        "  given:    0.9\n"
        "  expected: a factor from 1 to 1e+09: how many times as long what overlaps takes"
    )
    assert "not a number" in message({"pp_size_2": True})
    assert "not a number" in message({"pp_size_2": None})
    assert "not a number" in message({"pp_size_2": [1.0]})
    assert "too small" in message({"pp_size_2": 0})
    assert "too large" in message({"layernum[2]_bsz1_seq2048": 1e10})
    for value in (float("nan"), float("inf"), -float("inf")):
        assert "not a finite number" in message({"overlap_coe": value})


def test_places():
    assert message({"pp_size_1": 3.0}) == (
        "profile 1: pp_size_1: no number of devices that exchange anything\n  expected: 2 to 1,048,576 devices"
    )
    assert "no number of devices" in message({"allreduce_size_999999999_consec_1": 3.0})
    assert "too large a size" in message({"all2all_size_2_999999999MB_time": 3.0})


def test_layers_that_take_no_time():
    assert message({"layernum[2]_bsz1": 4.0, "layernum[4]_bsz1": 4.0}) == (
        "profile 1: layernum[4]_bsz1: more layers do not take longer than layernum[2]_bsz1 has it\n"
        "  given:    4.0\n"
        "  expected: times that grow with the number of layers"
    )


def test_files_that_are_none(tmp_path):
    assert message() == ("profiles: no profile is given\n  expected: at least one file of Galvatron's profilers")
    assert "profile 1: the profile has no entry" in message({})
    assert "not a profile" in message(3)
    assert "no such file" in message(tmp_path / "none.json")
    (tmp_path / "twice.json").write_text('{"pp_size_2": 1, "pp_size_2": 1}', encoding="utf-8")
    assert "duplicate key 'pp_size_2'" in message(tmp_path / "twice.json")
    (tmp_path / "nan.json").write_text('{"pp_size_2": NaN}', encoding="utf-8")
    assert "pp_size_2: not a finite number" in message(tmp_path / "nan.json")


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["allreduce", "all2all"]), st.integers(2, 2**20), st.integers(1, 2**24)),
        st.floats(1e-6, 1e6),
        min_size=1,
        max_size=8,
    )
)
def test_every_time_comes_back(times):
    raw = {f"{kind}_size_{devices}_{size}MB_time": value for (kind, devices, size), value in times.items()}
    found = read(raw).measurements
    kinds = {"allreduce": Kind.ALL_REDUCE, "all2all": Kind.ALL_TO_ALL}
    expected = {Measurement(kinds[k], n, size * 2**20, value / 1e3) for (k, n, size), value in times.items()}
    assert set(found) == expected
    assert len(found) == len(times)
    order = [(list(Kind).index(one.kind), one.devices, one.num_bytes) for one in found]
    assert order == sorted(order)
