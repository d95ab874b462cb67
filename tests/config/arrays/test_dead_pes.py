"""`dead_pes` in files and overrides: what is read, what is written, and what is refused in which words."""

import json

import pytest
from click.testing import CliRunner

from pe_sim.cli import cli
from pe_sim.config.arrays.array import name_pes
from pe_sim.config.arrays.load import array_to_dict, describe_array, load_array
from pe_sim.errors import InputError


def loaded(dead, **changes):
    return load_array("bus-tree-256", overrides={"num_pes": 8, **changes, "dead_pes": dead})


def test_they_are_kept_in_order():
    assert loaded([5, 0]).dead_pes == (0, 5)
    assert loaded([5, 0]).num_living == 6
    assert loaded([]).dead_pes == ()
    assert load_array("bus-tree-256").dead_pes == ()


def test_there_and_back():
    array = loaded([5, 0])
    assert array_to_dict(array)["dead_pes"] == [0, 5]
    assert load_array(array_to_dict(array)) == array
    assert "dead_pes" not in array_to_dict(loaded([]))


@pytest.mark.parametrize("preset", ["mesh-256", "hier-bus-256", "fat-tree-256", "aim-gddr6-16"])
def test_every_kind_of_array_has_them(preset):
    assert load_array(preset, overrides={"dead_pes": [3]}).dead_pes == (3,)


def test_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    raw = array_to_dict(load_array("bus-tree-256", overrides={"num_pes": 8}))
    path.write_text(json.dumps({**raw, "dead_pes": [1, 9]}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_array(path)
    assert str(caught.value) == (
        f"{path}: dead_pes: there is no PE 9: num_pes is 8\n  given:    [1, 9]\n  expected: numbers from 0 to 7"
    )


def test_everything_else_stays_as_it_is():
    """Latencies, levels and area are those of all PEs."""
    whole, damaged = array_to_dict(loaded([])), array_to_dict(loaded([2]))
    assert damaged.pop("dead_pes") == [2]
    assert damaged == whole


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "not a list of PEs\n  given:    3\n  expected: their numbers in brackets, for instance [3, 17]\n"
            "  hint:     write [3]"),
        ("3", "not a list of PEs\n  given:    '3'\n  expected: their numbers in brackets, for instance [3, 17]"),
        ([-1], "-1 is no number of a PE\n  given:    [-1]\n  expected: whole numbers from 0 on"),
        ([True], "True is no number of a PE\n  given:    [True]\n  expected: whole numbers from 0 on\n"
                 "  hint:     true and false are no numbers"),
        ([1.0], "1.0 is no number of a PE\n  given:    [1.0]\n  expected: whole numbers from 0 on\n"
                "  hint:     write it without point and exponent: 1"),
        ([8], "there is no PE 8: num_pes is 8\n  given:    [8]\n  expected: numbers from 0 to 7"),
        ([3, 1, 3], "PE 3 is named twice\n  given:    [3, 1, 3]\n  expected: each dead PE once"),
        (list(range(8)), "no PE would be left\n  given:    [0, 1, 2, 3, 4, 5, 6, 7]\n"
                         "  expected: at most 7 of the 8 PEs"),
    ],
)  # fmt: skip
def test_what_is_refused(given, message):
    with pytest.raises(InputError) as caught:
        loaded(given)
    assert str(caught.value) == f"--set dead_pes: {message}"


def test_the_only_pe_is_alive():
    with pytest.raises(InputError, match=r"expected: \[\], for there is but one PE"):
        loaded([0], num_pes=1)


def test_fewer_pes_than_the_file_has_dead_ones():
    raw = array_to_dict(load_array("bus-tree-256", overrides={"dead_pes": [3, 200]}))
    with pytest.raises(InputError) as caught:
        load_array(raw, overrides={"num_pes": 8})
    assert str(caught.value) == (
        "array: dead_pes: there is no PE 200: num_pes is 8\n  given:    [3, 200]\n  expected: numbers from 0 to 7"
    )
    changes = {"num_pes": 8, "network.tree.latency_cycles": "auto", "dead_pes": []}
    assert load_array(raw, overrides=changes).num_living == 8


def test_words_for_people():
    assert describe_array(loaded([2, 4])).endswith(", dead: 2 of 8 PEs: 2, 4")
    assert "dead" not in describe_array(loaded([]))
    assert "dead: 2 of 8 PEs: 2, 4" in loaded([2, 4])._repr_html_()
    assert name_pes(range(8)) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert name_pes(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


def test_on_the_command_line():
    arguments = ["gemm", "--array", "bus-tree-64", "--set", "dead_pes=[0, 64]", "-m", "1", "-k", "16", "-n", "16"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "--set dead_pes: there is no PE 64: num_pes is 64" in result.output
