"""Arrays that differ in nothing but the interconnect, scaled to one amount of wire or left as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pe_sim as ps
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.files.loading import load_mapping, resolve
from pe_sim.errors import InputError
from pe_sim.network.metrics import scale_to_wire, wire_bits_mm
from pe_sim.network.topology.kinds import build_topology

BUS_TREE, DOWNLINK = "bus-tree", "bus-tree, downlink"


@dataclass(frozen=True, slots=True)
class Design:
    """An interconnect to compare.

    Args:
        name: in the tables.
        preset: the array whose interconnect it is.
        family: what it is a kind of; its colour in the picture.
        overrides: what is different from the preset.
    """

    name: str
    preset: str
    family: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wired:
    """A design at a number of PEs with its widths.

    Args:
        unscaled_bits_mm: wire with the widths of the preset.
        factor: what the widths were multiplied by, before rounding down to whole bytes.
        budget_bits_mm: what was there to spend; None: the widths were left alone.
        reached_bits_mm: what it came to.
        narrowest, widest: bytes per cycle of its channels.
    """

    design: Design
    array: ArrayConfig
    unscaled_bits_mm: float
    factor: float
    budget_bits_mm: float | None
    reached_bits_mm: float
    narrowest: int
    widest: int

    @property
    def pes(self) -> int:
        """N."""
        return self.array.num_pes

    @property
    def label(self) -> str:
        """For progress."""
        return f"{self.pes} PEs, {self.design.name}"

    @property
    def width(self) -> str:
        """Bytes per cycle of its channels."""
        return str(self.narrowest) if self.narrowest == self.widest else f"{self.narrowest} to {self.widest}"


def _designs() -> dict[str, Design]:
    families = {
        "buses": (BUS_TREE, "hier-bus"),
        "trees of switches": ("h-tree", "fat-tree"),
        "links to neighbours": ("line", "ring", "mesh", "torus"),
        "links to far away": ("hypercube", "butterfly", "crossbar"),
    }
    found = {name: Design(name, f"{name}-256", family) for family, names in families.items() for name in names}
    down = Design(DOWNLINK, "bus-tree-256", "buses", {"network.tree.downlink": True})
    return {BUS_TREE: found.pop(BUS_TREE), "bus-tree-downlink": down, **found}


DESIGNS = _designs()


def base_mapping(pes: int) -> dict[str, Any]:
    """The array whose PEs all designs have: the preset of so many PEs, else bus-tree-256 with that number."""
    try:
        return load_mapping(resolve("arrays", f"{BUS_TREE}-{pes}"))
    except InputError:
        return {**load_mapping(resolve("arrays", f"{BUS_TREE}-256")), "num_pes": pes, "name": f"{BUS_TREE}-{pes}"}


def base_array(pes: int) -> ArrayConfig:
    """The same, loaded; its wire is the budget."""
    return ps.load_array(base_mapping(pes))


def wired(design: Design, pes: int, budget_bits_mm: float | None) -> Wired:
    """A design at a number of PEs, its widths scaled to a budget of wire if there is one.

    Raises:
        InputError: the interconnect cannot have so many PEs.
    """
    network = load_mapping(resolve("arrays", design.preset))["network"]
    named = {**base_mapping(pes), "name": f"{design.name}-{pes}", "network": network, "overlap": 1}
    array = ps.load_array(named, overrides=design.overrides)
    unscaled = wire_bits_mm(array)
    factor, reached = 1.0, unscaled
    if budget_bits_mm is not None:
        scaling = scale_to_wire(array, budget_bits_mm)
        array, factor, reached = scaling.array, scaling.factor, scaling.reached_bits_mm
    widths = build_topology(array).channels.bytes_per_cycle
    narrow, wide = int(widths.min()), int(widths.max())
    return Wired(design, array, unscaled, factor, budget_bits_mm, reached, narrow, wide)
