"""`pe-sim topology`: the table, the JSON and the picture."""

import json
import struct
from pathlib import Path

import pytest

from pe_sim.config.files.loading import preset_names
from tests.cli.conftest import files


def test_the_table(call):
    result = call("topology", "mesh-256", "--set", "num_pes=64")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "mesh-256: mesh, 64 PEs at 1 GHz\n"
        "  switches    0 (switches and joints; a router belongs to its PE)\n"
        "  channels    226\n"
        "  diameter    14 hops\n"
        "  bisection   512 B/cycle = 512 GB/s one way (closed form)\n"
        "  wire        271.2 mm, 138,854 bit mm\n"
        "  floor plan  PEs on a grid of 8 x 8, row by row, the root left of the array on the height of its PE;\n"
        "              wires along rows and columns; a pitch of 1.2 mm, 10 mm a cycle\n"
        "#     level  channels      width   latency  overhead  length      wire\n"
        "#                      (B/cycle)  (cycles)  (cycles)    (mm)  (bit mm)\n"
        "       link       224         64         1         1   268.8   137,626\n"
        "  root link         2         64         1         1     2.4     1,229\n"
    )


@pytest.mark.parametrize("name", [name for name in preset_names("arrays") if "4096" not in name])
def test_every_preset_is_shown_and_drawn(call, name):
    before = files()
    result = call("topology", name, "--png", "out.png", "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert files() - before == {Path("out.png"), Path("out.json")}
    data = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert data["schema"] == "pe-sim.topology/1"
    assert data["array"]["name"] == name
    assert data["num_channels"] == sum(level["channels"] for level in data["levels"])
    picture = Path("out.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > height > 300


def test_json_on_standard_output(call):
    result = call("topology", "ring-256", "--json", "-")
    data = json.loads(result.stdout)
    assert (data["kind"], data["num_pes"], data["diameter_hops"]) == ("ring", 256, 128)
    assert data["floorplan"] in " ".join(result.stderr.split())
    assert call("topology", "ring-256", "--json", "-").stdout == result.stdout


@pytest.mark.parametrize(
    ("preset", "num_pes"),
    [("mesh", 1), ("torus", 1), ("line", 1), ("ring", 1), ("hypercube", 1), ("butterfly", 1), ("crossbar", 1),
     ("h-tree", 1), ("fat-tree", 1), ("hier-bus", 1), ("bus-tree", 1), ("hier-bus", 50), ("fat-tree", 100),
     ("butterfly", 4), ("torus", 7), ("crossbar", 49), ("line", 33), ("mesh", 50)],
)  # fmt: skip
def test_odd_sizes_are_drawn(call, preset, num_pes):
    result = call("topology", f"{preset}-256", "--set", f"num_pes={num_pes}", "--png", "out.png")
    assert result.exit_code == 0, result.output
    assert Path("out.png").stat().st_size > 5000


def test_the_same_picture_every_time(call):
    for name in ("one.png", "two.png"):
        assert call("topology", "mesh-256", "--set", "num_pes=16", "--png", name).exit_code == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_a_graph_of_ones_own(call):
    nodes = [
        {"id": "root"},
        *({"id": f"pe{pe}"} for pe in range(5)),
        {"id": "wire", "kind": "bus", "bytes_per_cycle": 8},
    ]
    edges = [{"source": "root", "target": "pe0"}, *({"source": f"pe{pe}", "target": "wire"} for pe in range(5))]
    Path("mine.json").write_text(json.dumps({"nodes": nodes, "edges": edges}), encoding="utf-8")
    network = "network={kind: graph, file: mine.json, link: {bytes_per_cycle: 16}}"
    result = call("topology", "bus-tree-64", "--set", "num_pes=5", "--set", network, "--png", "out.png")
    assert result.exit_code == 0, result.output
    assert "diameter    1 hop\n" in result.stdout


def test_refusals(refused):
    assert "did you mean 'mesh-256'?" in refused("topology", "mash-256")
    assert "a power of 2" in refused("topology", "hypercube-256", "--set", "num_pes=100", "--png", "x.png")
    assert "--png: the folder of this file does not exist" in refused("topology", "mesh-256", "--png", "no/x.png")
    assert "--png" in refused("topology", "mesh-256", "--png", "-")
    assert "the same file" in refused("topology", "mesh-256", "--png", "x", "--json", "x")
    assert "no model" in refused("topology", "mesh-256", "--set", "model.num_layers=1")
