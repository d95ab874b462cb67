"""Loads arrays: takes a preset's name, a path or a mapping, gives a frozen ArrayConfig; and back to a plain dict."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pe_sim.config.array import ArrayConfig, Memory, VectorUnit
from pe_sim.config.dtypes import Dtype
from pe_sim.config.floorplan import resolve_array
from pe_sim.config.loading import load_mapping
from pe_sim.config.overrides import apply_overrides
from pe_sim.config.presets import is_preset, resolve
from pe_sim.errors import InputError
from pe_sim.units import format_bytes

_DEFAULT_NAME = "array"  # of a mapping without a name


def load_array(
    name_or_path_or_dict: str | Path | Mapping[str, Any], overrides: Mapping[str, object] | None = None
) -> ArrayConfig:
    """An array by a preset's name, from a YAML or JSON file, or from such a file's mapping; `auto` is resolved.

    Args:
        name_or_path_or_dict: for instance "bus-tree-256", "my/array.yaml", or {"schema_version": 1, ...}.
        overrides: new values by dotted path, as in `--set`, for instance {"num_pes": 64}.

    Raises:
        InputError: there is no such preset or file, or it or an override is wrong; several faults in one message.
    """
    # Imported here: whoever only handles a finished ArrayConfig does not pay for pydantic.
    from pe_sim.config.array_file import ArrayFile, check_array_file
    from pe_sim.config.schema import known_paths, scalar_keys

    raw, name, source = _read(name_or_path_or_dict)
    changes = overrides or {}
    changed = apply_overrides(raw, changes, known_paths(ArrayFile), scalar_keys(ArrayFile))
    return resolve_array(check_array_file(changed, source, tuple(changes)), name, source)


def array_to_dict(array: ArrayConfig) -> dict[str, Any]:
    """The array in the shape of its YAML, JSON-ready, latencies in cycles; load_array() of it gives the same array."""
    bus, tree, collectives = array.network.bus, array.network.tree, array.network.collectives
    return {
        "schema_version": 1,
        "name": array.name,
        "clock_ghz": array.clock_ghz,
        "num_pes": array.num_pes,
        "overlap": array.overlap,
        "dtypes": {
            "weight": _dtype_to_plain(array.dtypes.weight),
            "activation": _dtype_to_plain(array.dtypes.activation),
            "kv_cache": _dtype_to_plain(array.dtypes.kv_cache),
            "partial": _dtype_to_plain(array.dtypes.partial),
        },
        "floorplan": {
            "pe_pitch_mm": array.floorplan.pe_pitch_mm,
            "mm_per_cycle": array.floorplan.mm_per_cycle,
        },
        "pe": {
            "matrix": {
                "outputs": array.pe.matrix.outputs,
                "depth": array.pe.matrix.depth,
                "latency_cycles": array.pe.matrix.latency_cycles,
            },
            "vector": _vector_to_dict(array.pe.vector),
            "memory": _memory_to_dict(array.pe.memory),
            "buffer": {
                "capacity_bytes": array.pe.buffer.capacity_bytes,
                "prefetch_bytes": array.pe.buffer.prefetch_bytes,
            },
        },
        "root": {
            "vector": _vector_to_dict(array.root.vector),
            "memory": _memory_to_dict(array.root.memory),
        },
        "network": {
            "kind": array.network.kind,
            "bus": {
                "bytes_per_cycle": bus.bytes_per_cycle,
                "latency_cycles": bus.latency_cycles,
                "overhead_cycles": bus.overhead_cycles,
                "request_cycles": bus.request_cycles,
                "burst_bytes": bus.burst_bytes,
            },
            "tree": {
                "arity": tree.arity,
                "bytes_per_cycle": tree.bytes_per_cycle,
                "latency_cycles": list(tree.level_latency_cycles),
                "combine_cycles": tree.combine_cycles,
                "softmax_combine_cycles": tree.softmax_combine_cycles,
                "downlink": tree.downlink,
            },
            "collectives": {"gather": collectives.gather, "scatter": collectives.scatter},
        },
    }


def describe_array(array: ArrayConfig) -> str:
    """One line: name, PEs, what one PE has, the memory in total, the interconnect, the clock."""
    pe, bus, tree = array.pe, array.network.bus, array.network.tree
    total = format_bytes(array.num_pes * pe.memory.capacity_bytes)
    hops = "/".join(str(hop) for hop in sorted(set(tree.level_latency_cycles))) or "0"
    return (
        f"{array.name}: {array.num_pes} PEs of {pe.matrix.outputs} x {pe.matrix.depth} MACs and"
        f" {format_bytes(pe.memory.capacity_bytes)} at {pe.memory.bytes_per_cycle} B/cycle ({total} in all),"
        f" bus {bus.bytes_per_cycle} B/cycle latency {bus.latency_cycles},"
        f" {tree.arity}-ary tree {tree.num_levels} levels {tree.bytes_per_cycle} B/cycle hop {hops},"
        f" {array.dtypes.weight.name} weights, {array.clock_ghz:g} GHz"
    )


def _read(given: object) -> tuple[Mapping[str, Any], str, str]:
    """The raw mapping, the default name, and what messages call the source."""
    if isinstance(given, Mapping):
        return given, _DEFAULT_NAME, "array"
    if not isinstance(given, str | Path):
        raise InputError("not an array", given=given, expected="a preset's name, a path, or a file's mapping")
    path = resolve("arrays", given)
    if is_preset("arrays", given):
        return _load_preset(path), path.stem, f"preset {given}"
    return load_mapping(path), path.stem, str(given)


@cache
def _load_preset(path: Path) -> dict[str, Any]:
    """A preset's raw mapping, read once a process; callers copy before they change it."""
    return load_mapping(path)


def _dtype_to_plain(dtype: Dtype) -> str | dict[str, Any]:
    if dtype.group_size is None:
        return dtype.name
    return {"dtype": dtype.name, "group_size": dtype.group_size, "zero_point": dtype.zero_point}


def _vector_to_dict(unit: VectorUnit) -> dict[str, Any]:
    return {
        "lanes": unit.lanes,
        "latency_cycles": unit.latency_cycles,
        "cycles_per_element": dict(unit.cycles_per_element),
    }


def _memory_to_dict(memory: Memory) -> dict[str, Any]:
    return {
        "technology": memory.technology,
        "capacity_bytes": memory.capacity_bytes,
        "bytes_per_cycle": memory.bytes_per_cycle,
        "latency_cycles": memory.latency_cycles,
    }
