"""`pe-sim calibrate`: what it writes, says and refuses."""

import csv
import json
from pathlib import Path

import pytest

import pe_sim as ps
from tests.cli.conftest import files

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "foreign" / "galvatron" / "profiles"
ALL = sorted(SAMPLES.glob("*.json"))
TIMES = SAMPLES / "sp_time_1nodes_8gpus_per_node.json"


@pytest.fixture
def small():
    """A profile of four times."""
    raw = {f"allreduce_size_{n}_{size}MB_time": 0.05 + 0.01 * n * size for n in (2, 4) for size in (1, 16)}
    Path("small.json").write_text(json.dumps(raw), encoding="utf-8")
    return "small.json"


def test_the_tables(call):
    result = call("calibrate", *ALL)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "all-reduce         8       11        86.12           -   201.27   0.9747       -21.1% at 16 MiB" in lines
    assert "all-reduce       all       33        65.09        1.64   204.84   0.9865   +22.8% at 1 MiB of 8" in lines
    assert "all-reduce         8    16 MiB        294.10      231.99     -21.1%        231.35     -21.3%" in lines
    assert "--set links.link.bytes_per_cycle=201       201.27     -0.14%" in lines
    assert "Links of a system, overlap 1 to 3: 178.82 GB/s" in lines
    assert max(map(len, lines)) <= 100
    assert result.stderr == ""


def test_files(call):
    before = files()
    args = ("--png", "f.png", "--csv", "f.csv", "--json", "f.json", "--out", "f.yaml", "--array", "bus-tree-64")
    result = call("calibrate", *ALL, *args)
    assert result.exit_code == 0, result.output
    assert files() - before == {Path("f.png"), Path("f.csv"), Path("f.json"), Path("f.yaml")}
    assert Path("f.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads(Path("f.json").read_text(encoding="utf-8"))
    with open("f.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 74
    assert float(rows[0]["fitted"]) == told["fits"][0]["points"][0]["fitted"]
    assert (rows[0]["bytes"], rows[-1]["bytes"]) == ("1048576", "")
    array = ps.load_array("f.yaml")
    assert array.name == "bus-tree-64-calibrated"
    assert array.bus_tree.bus.bytes_per_cycle == 204  # at overlap 1, as the preset has it
    again = call("calibrate", *ALL, "--png", "g.png", "--json", "g.json", "--array", "bus-tree-64")
    assert again.exit_code == 0
    assert Path("g.json").read_bytes() == Path("f.json").read_bytes()
    assert Path("g.png").read_bytes() == Path("f.png").read_bytes()


def test_json_alone_on_standard_output(call, small):
    result = call("calibrate", small, "--clock-ghz", "2", "--json", "-")
    told = json.loads(result.stdout)
    assert (told["schema"], told["clock_ghz"], told["profiles"]) == ("pe-sim.calibration/1", 2.0, ["small.json"])
    assert "Residuals" in result.stderr


def test_the_settings_are_taken_as_they_are(call, small):
    told = json.loads(call("calibrate", small, "--json", "-").stdout)
    (settings,) = [machine["settings"] for machine in told["machines"] if machine["target"] == "array"]
    words = [word for one in settings for word in ("--set", f"{one['path']}={json.dumps(one['value'])}")]
    result = call("collective", "reduce", "--array", "bus-tree-64", "--bytes", "16M", *words, "--json", "-")
    assert result.exit_code == 0, result.output
    fitted = next(point["fitted"] for fit in told["fits"] for point in fit["points"] if point["devices"] == 4)
    assert json.loads(result.stdout)["cycles"] > 0.4 * fitted * 1e9


def test_an_array_that_is_there_stays_when_it_cannot_be_replaced(call, small):
    Path("mine.yaml").write_text("mine", encoding="utf-8")
    result = call("calibrate", small, "--array", "mesh-256", "--out", "mine.yaml")
    assert result.exit_code == 2
    assert Path("mine.yaml").read_text(encoding="utf-8") == "mine"


def test_messages(refused, small):
    assert refused("calibrate") == (
        "PROFILE: no profile is given\n"
        "  expected: one or more JSON files of Galvatron's profilers\n"
        "  hint:     see pe-sim calibrate --help\n"
    )
    assert refused("calibrate", small, "--clock-ghz", "1", "--array", "bus-tree-64") == (
        "--clock-ghz: an array has its own clock\n  given:    1.0\n  hint:     give --clock-ghz or --array\n"
    )
    assert refused("calibrate", small, "--clock-ghz", "fast") == (
        "--clock-ghz: not a clock\n  given:    'fast'\n  expected: GHz above 0, at most 1000\n"
    )
    assert refused("calibrate", small, "--out", "a.yaml") == (
        "--out: there is no array to write\n  given:    'a.yaml'\n  hint:     add --array, for instance bus-tree-256\n"
    )
    assert refused("calibrate", "none.json") == "none.json: no such file\n"
    assert refused("calibrate", small, "--array", "mesh-256") == (
        "network.kind: mesh-256 has no bus and no tree to calibrate\n"
        "  given:    'mesh'\n"
        "  expected: bus_tree\n"
        "  hint:     leave the array out, and set network.link.* to what is printed for links\n"
    )


@pytest.mark.parametrize("clock", ["0", "-1", "nan", "inf", "1001", ""])
def test_clocks_that_are_none(refused, small, clock):
    assert "--clock-ghz: not a clock" in refused("calibrate", small, "--clock-ghz", clock)


def test_contents_that_are_refused(refused, small):
    Path("odd.json").write_text('{"allreduce_sice_2_1MB_time": 1}', encoding="utf-8")
    assert refused("calibrate", "odd.json") == (
        "odd.json: allreduce_sice_2_1MB_time: unknown key of a Galvatron profile\n"
        "  given:    1\n"
        "  hint:     did you mean 'allreduce_size_8_1MB_time'?\n"
    )
    Path("other.json").write_text('{"allreduce_size_2_1MB_time": 0.5}', encoding="utf-8")
    assert refused("calibrate", small, "other.json") == (
        "other.json: allreduce_size_2_1MB_time: two profiles contradict each other\n"
        "  given:    0.5\n"
        "  expected: 0.07, as small.json has it\n"
        "  hint:     give one of the two files, or files of one machine\n"
    )
    Path("coefficient.json").write_text('{"overlap_coe": 1.1}', encoding="utf-8")
    assert "no all-reduce was measured" in refused(
        "calibrate", "coefficient.json", "--array", "bus-tree-64", "--out", "a.yaml"
    )
    assert "no collective was measured" in refused("calibrate", "coefficient.json", "--png", "a.png")
    assert "the same file as" in refused("calibrate", small, "--png", "x", "--csv", "x")
    assert "--csv: the folder of this file does not exist" in refused("calibrate", small, "--csv", "no/x.csv")
    Path("model.json").write_text('{"hidden_size": 3}', encoding="utf-8")
    assert "unknown key of a Galvatron profile" in refused("calibrate", "model.json")


def test_help_teaches(call):
    text = call("calibrate", "--help").stdout
    assert "pe-sim calibrate hardware_configs/*.json --array bus-tree-256 --out measured.yaml" in text
    assert "allreduce_size_8_1MB_time" in text
