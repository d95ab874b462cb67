"""What can be varied in an array: takes its source, gives its parameters, each scaled in whole numbers.

A parameter is one number of the array's file, or several that only make sense together (the hops of all levels of the
tree). All are scaled by one fraction, and the file takes whole numbers: of numbers with the greatest common divisor g
only multiples of 1/g keep all of them whole. So 64 bytes a cycle become 63 or 65, never 64.64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from pe_sim.config.arrays.array import ArrayConfig, DramBank
from pe_sim.config.arrays.floorplan import auto_bus_latency_cycles, auto_tree_latency_cycles
from pe_sim.config.arrays.load import array_paths, array_to_dict, load_array
from pe_sim.config.networks.network import Network
from pe_sim.config.networks.shapes import AUTO, HierarchicalBusShape, UserGraphShape
from pe_sim.errors import InputError

EVERY_LATENCY: Final = "latency of everything"
DEPTH, PES, WIRES, CLOCK = "matrix depth", "number of PEs", "wire speed", "clock"
COLUMN_TIME: Final = "PE memory column time"  # a rate in the form of a time: no latency of a first access
DERIVED: Final = "auto gives every wire its own latency: see wire speed"
_NETWORK: Final = "network"


class Kind(StrEnum):
    """The kind of a parameter: how time depends on it, and how far it is moved at least."""

    LATENCY = "latency"  # cycles a thing takes: time grows with it; moved by whole cycles
    RATE = "rate"  # work a cycle: time grows with its reciprocal; moved by whole units
    COUNT = "count"  # a rate, but of units that cut work into tiles or shards; doubled and halved
    CLOCK = "clock"  # a rate, any real number; changes no number of cycles, but the length of one


@dataclass(frozen=True, slots=True)
class Source:
    """An array that can be loaded again with other values; `auto` in it stays derived.

    Args:
        given: a preset's name, a path or a file's mapping.
        overrides: values by dotted path that hold throughout.
    """

    given: str | Path | Mapping[str, Any]
    overrides: Mapping[str, object]

    @classmethod
    def of(cls, array: ArrayConfig | str | Path | Mapping[str, Any], overrides: Mapping[str, object] | None) -> Source:
        """The source of an array; in a loaded ArrayConfig, latencies that its floor plan would give become `auto`.

        Raises:
            InputError: as `load_array` raises it.
        """
        if isinstance(array, ArrayConfig):
            return cls(with_autos(array), dict(overrides or {}))
        source = cls(array, dict(overrides or {}))
        loaded = source.load()
        if not loaded.network.is_graph and f"{_NETWORK}.bus" not in array_paths(array, overrides):
            return cls(with_autos(loaded), {})  # a hierarchy of one cluster, which is simulated as one bus and tree
        return source

    def load(self, changes: Mapping[str, object] | None = None) -> ArrayConfig:
        """The array with further values changed.

        Raises:
            InputError: as `load_array` raises it.
        """
        return load_array(self.given, {**self.overrides, **(changes or {})})


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the array's file: numbers, or a mapping in which the numbers under `keys` count."""

    path: str
    value: Any
    keys: tuple[str, ...] = ()

    def numbers(self) -> list[int | float]:
        """All numbers of the value that count."""
        return list(_numbers(self.value, self.keys, not self.keys))

    def scaled(self, scale: Fraction) -> Any:
        """The value with the numbers that count times `scale`; whole ones stay whole."""
        return _scaled(self.value, self.keys, not self.keys, scale)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an array: numbers that are scaled together.

    Args:
        name: its name in tables and options.
        kind: how time depends on it.
        unit: unit of its numbers.
        settings: the values that hold its numbers, at least one of which is above 0.
    """

    name: str
    kind: Kind
    unit: str
    settings: tuple[Setting, ...]

    @property
    def numbers(self) -> list[int | float]:
        """All numbers of all settings that count."""
        return [number for setting in self.settings for number in setting.numbers()]

    def overrides(self, scale: Fraction) -> dict[str, object]:
        """The scaled values by dotted path, as `load_array` takes them."""
        return {setting.path: setting.scaled(scale) for setting in self.settings}

    def described(self, scale: Fraction = Fraction(1)) -> str:
        """The scaled numbers as text: each once, a range if more than three, and no 0 beside others."""
        moved = [Setting(each.path, each.scaled(scale), each.keys) for each in self.settings]
        scaled = [number for setting in moved for number in setting.numbers() if number]
        distinct = list(
            dict.fromkeys(f"{number:,.4g}" if isinstance(number, float) else f"{number:,}" for number in scaled)
        )
        return "/".join(distinct) if len(distinct) <= 3 else f"{min(scaled):g}..{max(scaled):g}"

    def scales(self, change: Fraction) -> tuple[Fraction, Fraction | None]:
        """The scales nearest to 1 + change and 1 / (1 + change), neither of them 1, that keep all numbers whole.

        A count is at least doubled and halved. The second scale is None where no whole number is left below.
        """
        change = max(change, Fraction(1)) if self.kind is Kind.COUNT else change
        up, down = 1 + change, 1 / (1 + change)
        if any(isinstance(number, float) for number in self.numbers):
            return up, down
        whole = math.gcd(*(int(number) for number in self.numbers))
        above, below = max(whole + 1, round(whole * up)), min(whole - 1, round(whole * down))
        return Fraction(above, whole), Fraction(below, whole) if below >= 1 else None


def _numbers(value: Any, keys: tuple[str, ...], meant: bool) -> Iterator[int | float]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, keys, meant or key in keys)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, keys, meant)
    elif meant and isinstance(value, int | float):
        yield value


def _scaled(value: Any, keys: tuple[str, ...], meant: bool, scale: Fraction) -> Any:
    if isinstance(value, Mapping):
        return {key: _scaled(inner, keys, meant or key in keys, scale) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_scaled(inner, keys, meant, scale) for inner in value]
    if not meant or not isinstance(value, int | float):
        return value
    return float(value * scale) if isinstance(value, float) else int(value * scale)


def parameters_of(source: Source, array: ArrayConfig) -> tuple[tuple[Parameter, ...], dict[str, str]]:
    """The parameters of `array`, loaded from `source`, and the reasons why others cannot be scaled, by name."""
    left_out: dict[str, str] = {}
    found = [*_of_network(source, array, left_out), *_of_pes(array), *_of_root(array)]
    waiting = [name for name, reason in left_out.items() if reason == DERIVED]
    if waiting:
        left_out[EVERY_LATENCY] = f"{waiting[0]} is derived wire by wire, and has no one number to scale"
    else:
        found.append(_together(each for each in found if each.kind is Kind.LATENCY and each.name != COLUMN_TIME))
    found += _of_array(source, array)
    for each in found:
        if not any(each.numbers):
            left_out[each.name] = "0 now, and one per cent of nothing is nothing"
    return tuple(each for each in found if any(each.numbers)), left_out


def _together(latencies: Iterable[Parameter]) -> Parameter:
    """One parameter of several latencies; settings of the same path are merged."""
    merged: dict[str, Setting] = {}
    for each in (setting for parameter in latencies for setting in parameter.settings):
        known = merged.get(each.path)
        merged[each.path] = Setting(each.path, each.value, (*(known.keys if known else ()), *each.keys))
    return Parameter(EVERY_LATENCY, Kind.LATENCY, "cycles", tuple(merged.values()))


def _of_pes(array: ArrayConfig) -> Iterator[Parameter]:
    pe, memory = array.pe, array.pe.memory
    if isinstance(memory, DramBank):
        yield _one(COLUMN_TIME, Kind.LATENCY, "cycles", "pe.memory.column_cycles", memory.column_cycles)
        opening = ("activate_cycles", "precharge_cycles", "read_to_precharge_cycles")
        settings = tuple(Setting(f"pe.memory.{name}", getattr(memory, name)) for name in opening)
        yield Parameter("PE memory row opening", Kind.LATENCY, "cycles", settings)
    else:
        yield _one("PE memory bandwidth", Kind.RATE, "B/cycle", "pe.memory.bytes_per_cycle", memory.bytes_per_cycle)
        yield _one("PE memory latency", Kind.LATENCY, "cycles", "pe.memory.latency_cycles", memory.latency_cycles)
    yield _one("matrix outputs", Kind.COUNT, "units", "pe.matrix.outputs", pe.matrix.outputs)
    yield _one(DEPTH, Kind.COUNT, "multipliers", "pe.matrix.depth", pe.matrix.depth)
    yield _one("matrix latency", Kind.LATENCY, "cycles", "pe.matrix.latency_cycles", pe.matrix.latency_cycles)
    yield _one("vector lanes", Kind.COUNT, "lanes", "pe.vector.lanes", pe.vector.lanes)
    yield _one("vector latency", Kind.LATENCY, "cycles", "pe.vector.latency_cycles", pe.vector.latency_cycles)


def _of_root(array: ArrayConfig) -> Iterator[Parameter]:
    vector, memory = array.root.vector, array.root.memory
    yield _one("root vector lanes", Kind.COUNT, "lanes", "root.vector.lanes", vector.lanes)
    yield _one("root vector latency", Kind.LATENCY, "cycles", "root.vector.latency_cycles", vector.latency_cycles)
    yield _one("root memory bandwidth", Kind.RATE, "B/cycle", "root.memory.bytes_per_cycle", memory.bytes_per_cycle)
    yield _one("root memory latency", Kind.LATENCY, "cycles", "root.memory.latency_cycles", memory.latency_cycles)


def _of_array(source: Source, array: ArrayConfig) -> Iterator[Parameter]:
    yield _one(PES, Kind.COUNT, "PEs", "num_pes", array.num_pes)
    if _has_autos(source, array):
        speed = float(array.floorplan.mm_per_cycle)
        yield _one(WIRES, Kind.COUNT, "mm/cycle", "floorplan.mm_per_cycle", speed)
    yield _one(CLOCK, Kind.CLOCK, "GHz", "clock_ghz", float(array.clock_ghz))


def _has_autos(source: Source, array: ArrayConfig) -> bool:
    """Whether the wire speed changes any latency: some latency of the interconnect is `auto`."""
    if array.network.is_graph:
        return AUTO in _texts(array_to_dict(array)[_NETWORK])
    try:
        slow = source.load({"floorplan.mm_per_cycle": float(array.floorplan.mm_per_cycle) / 1000})
    except InputError:  # they would be longer than any latency may be
        return True
    return slow.network != array.network


def _texts(value: Any) -> Iterator[str]:
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for inner in inside:
        yield from [inner] if isinstance(inner, str) else _texts(inner)


def _of_network(source: Source, array: ArrayConfig, left_out: dict[str, str]) -> Iterator[Parameter]:
    if not array.network.is_graph:
        yield from _of_bus_and_tree(source, array.bus_tree)
        return
    network, shape = array_to_dict(array)[_NETWORK], array.graph_network.shape
    if isinstance(shape, UserGraphShape):
        yield from _of_user_graph(network, left_out)
    else:
        levels = {"link": network.get("link")}
        if isinstance(shape, HierarchicalBusShape):
            levels = {
                f"{level}.{part}": network[level][part] for level in ("cluster", "top") for part in ("bus", "tree")
            }
        for path, link in levels.items():
            yield from _of_link(array, path, link, left_out)
    combining = ("combine_cycles", "softmax_combine_cycles")
    settings = tuple(Setting(f"{_NETWORK}.{name}", network[name]) for name in combining)
    yield Parameter("combine", Kind.LATENCY, "cycles", settings)
    yield _one("forwarding", Kind.LATENCY, "cycles", f"{_NETWORK}.forward_cycles", network["forward_cycles"])


def _of_bus_and_tree(source: Source, network: Network) -> Iterator[Parameter]:
    bus, tree = network.bus, network.tree
    latency, request = f"{_NETWORK}.bus.latency_cycles", f"{_NETWORK}.bus.request_cycles"
    yield _one("bus width", Kind.RATE, "B/cycle", f"{_NETWORK}.bus.bytes_per_cycle", bus.bytes_per_cycle)
    yield _one("bus latency", Kind.LATENCY, "cycles", latency, bus.latency_cycles)
    moved = source.load({latency: bus.latency_cycles + 1}).bus_tree.bus
    if moved.request_cycles == bus.request_cycles:  # else it is auto, and goes with the latency
        yield _one("bus request", Kind.LATENCY, "cycles", request, bus.request_cycles)
    yield _one("bus overhead", Kind.LATENCY, "cycles", f"{_NETWORK}.bus.overhead_cycles", bus.overhead_cycles)
    yield _one("tree width", Kind.RATE, "B/cycle", f"{_NETWORK}.tree.bytes_per_cycle", tree.bytes_per_cycle)
    hops = list(tree.level_latency_cycles)
    yield _one("tree hop latency", Kind.LATENCY, "cycles", f"{_NETWORK}.tree.latency_cycles", hops)
    combining = ("combine_cycles", "softmax_combine_cycles")
    settings = tuple(Setting(f"{_NETWORK}.tree.{name}", getattr(tree, name)) for name in combining)
    yield Parameter("tree combine", Kind.LATENCY, "cycles", settings)


def _of_link(array: ArrayConfig, path: str, link: Mapping[str, Any], left_out: dict[str, str]) -> Iterator[Parameter]:
    """Parameters of one level's channels: width and times; an `auto` latency only if all wires have the same."""
    name, full = path.replace(".", " "), f"{_NETWORK}.{path}"
    yield _one(f"{name} width", Kind.RATE, "B/cycle", f"{full}.bytes_per_cycle", link["bytes_per_cycle"])
    latency = link["latency_cycles"]
    if latency == AUTO:
        each = _derived_latencies(array, None if path == "link" else name)
        latency = each.pop() if len(each) == 1 else None
    if latency is None:
        left_out[f"{name} latency"] = DERIVED
    else:
        yield _one(f"{name} latency", Kind.LATENCY, "cycles", f"{full}.latency_cycles", latency)
    for key, noun in (("overhead_cycles", "overhead"), ("request_cycles", "request"), ("ramp_cycles", "ramp")):
        if link.get(key, AUTO) != AUTO:
            yield _one(f"{name} {noun}", Kind.LATENCY, "cycles", f"{full}.{key}", link[key])


def _derived_latencies(array: ArrayConfig, level: str | None) -> set[int]:
    """The distinct latencies in cycles that `auto` gives the channels of a level, or (None) all channels."""
    from pe_sim.network.interconnect import interconnect_of  # loads networkx

    channels = interconnect_of(array).topology.channels
    pairs = zip(channels.level, channels.latency_cycles.tolist(), strict=True)
    return {latency for name, latency in pairs if level in (None, name)}


def _of_user_graph(network: Mapping[str, Any], left_out: dict[str, str]) -> Iterator[Parameter]:
    """Parameters of all edges and buses of the user's graph together; the graph replaces its file."""
    graph = network["graph"]
    inside = [*graph["nodes"], *graph["edges"]]
    keys = (("bytes_per_cycle", "width"), ("latency_cycles", "latency"), ("overhead_cycles", "overhead"))
    for key, noun in (*keys, ("request_cycles", "request"), ("ramp_cycles", "ramp")):
        kind, unit = (Kind.RATE, "B/cycle") if key == "bytes_per_cycle" else (Kind.LATENCY, "cycles")
        if key == "latency_cycles" and any(each.get(key) == AUTO for each in inside):
            left_out[f"link {noun}"] = DERIVED
            continue
        settings = Setting(f"{_NETWORK}.graph", graph, (key,)), Setting(f"{_NETWORK}.file", None)
        yield Parameter(f"link {noun}", kind, unit, settings)


def _one(name: str, kind: Kind, unit: str, path: str, value: object) -> Parameter:
    return Parameter(name, kind, unit, (Setting(path, value),))


def with_autos(array: ArrayConfig) -> dict[str, Any]:
    """The array's mapping, with `auto` (or nothing) in place of values that would be derived just so."""
    plain = array_to_dict(array)
    network = plain[_NETWORK]
    if array.network.is_graph:
        _forget_sides(array, network)
        return plain
    bus, tree, floorplan = array.bus_tree.bus, array.bus_tree.tree, array.floorplan
    if bus.request_cycles == bus.latency_cycles:
        network["bus"]["request_cycles"] = AUTO
    if bus.latency_cycles == auto_bus_latency_cycles(array.num_pes, floorplan):
        network["bus"]["latency_cycles"] = AUTO
    hops = tuple(auto_tree_latency_cycles(level, tree.arity, floorplan) for level in range(tree.num_levels))
    if hops == tree.level_latency_cycles:
        network["tree"]["latency_cycles"] = AUTO
    elif len(set(tree.level_latency_cycles)) == 1:
        network["tree"]["latency_cycles"] = tree.level_latency_cycles[0]  # for any number of levels
    return plain


def _forget_sides(array: ArrayConfig, network: dict[str, Any]) -> None:
    """Removes rows and columns from the network's mapping if the number of PEs gives the same."""
    if "rows" not in network:
        return
    bare = {key: value for key, value in network.items() if key not in ("rows", "cols")}
    if load_array({**array_to_dict(array), _NETWORK: bare}).network == array.network:
        for side in ("rows", "cols"):
            del network[side]
