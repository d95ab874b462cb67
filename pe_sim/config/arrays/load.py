"""Loads arrays: takes a preset's name, a path or a mapping, gives a frozen ArrayConfig; and back to a plain dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pe_sim.config.arrays.array import (
    ArrayConfig,
    DramBank,
    describe_dead_pes,
    describe_network_of,
    describe_rate,
)
from pe_sim.config.arrays.floorplan import resolve_array
from pe_sim.config.dtypes import Dtype
from pe_sim.config.files.loading import is_preset, load_mapping, resolve
from pe_sim.config.files.overrides import apply_overrides, prefixes
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.errors import InputError, did_you_mean, printable
from pe_sim.units import format_bytes

_DEFAULT_NAME = "array"  # name of a mapping without one
_KIND, _FILE = "network.kind", "network.file"


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
    # Imported here: code that only handles a finished ArrayConfig does not pay for pydantic.
    from pe_sim.config.arrays.schemas import array_schema, check_array_file, memory_kind
    from pe_sim.config.files.schema import known_paths, scalar_keys

    raw, name, source, folder = _read(name_or_path_or_dict)
    changes = overrides or {}
    schema = array_schema(_network_kind(raw, changes, source), memory_kind(raw, changes, source))
    changed = apply_overrides(raw, changes, known_paths(schema), scalar_keys(schema))
    if _FILE in changes or "network" in changes:
        folder = None  # paths on the command line are relative to the working directory
    return resolve_array(check_array_file(changed, source, tuple(changes)), name, source, folder, tuple(changes))


def as_array(array: ArrayConfig | str | Path | Mapping[str, Any]) -> ArrayConfig:
    """The array itself, or what `load_array` makes of it."""
    return array if isinstance(array, ArrayConfig) else load_array(array)


def array_paths(
    name_or_path_or_dict: str | Path | Mapping[str, Any], overrides: Mapping[str, object] | None = None
) -> frozenset[str]:
    """The dotted paths that `overrides` can set for an array, including those of whole sections.

    Args:
        name_or_path_or_dict, overrides: as for `load_array`; only overrides that change the kind of the network or of
            the PEs' memory matter here.

    Raises:
        InputError: there is no such preset, file or kind.
    """
    from pe_sim.config.arrays.schemas import array_schema, memory_kind
    from pe_sim.config.files.schema import known_paths

    raw, _, source, _ = _read(name_or_path_or_dict)
    changes = overrides or {}
    return frozenset(
        prefixes(known_paths(array_schema(_network_kind(raw, changes, source), memory_kind(raw, changes, source))))
    )


def array_to_dict(array: ArrayConfig) -> dict[str, Any]:
    """The array in the shape of its YAML, JSON-ready, latencies in cycles; `load_array` of it gives the same array."""
    from pe_sim.config.arrays.schema import SCHEMA_VERSION, ArrayFile
    from pe_sim.config.files.schema import section_to_dict

    plain = {"schema_version": SCHEMA_VERSION, **section_to_dict(ArrayFile, array)}
    plain["dtypes"] = {role: _dtype_to_plain(getattr(array.dtypes, role)) for role in plain["dtypes"]}
    if not array.dead_pes:
        del plain["dead_pes"]
    memory, network = array.pe.memory, array.network
    if isinstance(memory, DramBank):
        plain["pe"]["memory"] = {"kind": memory.device, **asdict(memory)}
    if isinstance(network, GraphNetwork):
        from pe_sim.config.networks.to_dict import network_to_dict

        plain["network"] = network_to_dict(network)
    return plain


def cost_basis_to_dict(array: ArrayConfig) -> dict[str, Any]:
    """The basis of energy and area, JSON-ready: the process, the memories' devices, and which were assumed."""
    return {
        "process": array.process,
        "pe_memory": array.pe.memory.device,
        "root_memory": array.root.memory.device,
        "assumed": list(array.assumed),
    }


def describe_array(array: ArrayConfig) -> str:
    """One line: name, number of PEs, what a PE has, the memory in total, the interconnect, the clock."""
    pe = array.pe
    total = format_bytes(array.num_pes * pe.memory.capacity_bytes)
    return (
        f"{array.name}: {array.num_pes} PEs of {pe.matrix.outputs} x {pe.matrix.depth} MACs and"
        f" {format_bytes(pe.memory.capacity_bytes)} at {describe_rate(pe.memory)} ({total} in all),"
        f" {describe_network_of(array)},"
        f" {array.dtypes.weight.name} weights, {array.clock_ghz:g} GHz"
        + (f", dead: {describe_dead_pes(array.dead_pes, array.num_pes)}" if array.dead_pes else "")
    )


def _network_kind(raw: Mapping[str, Any], changes: Mapping[str, object], source: str) -> object:
    """The kind of the network after the overrides; None if it is missing.

    Raises:
        InputError: there is no such kind, or a new kind does not take the keys that the file's network has.
    """
    from pe_sim.config.arrays.schemas import array_schema
    from pe_sim.config.networks.bus_tree_schema import KINDS

    network = raw.get("network")
    before = kind = network.get("kind") if isinstance(network, Mapping) else None
    keys = list(network) if isinstance(network, Mapping) else []
    flag = None
    for path, value in changes.items():
        if path == "network" and isinstance(value, Mapping):
            before = kind = value.get("kind")
            keys, flag = list(value), "--set network"
        elif path == _KIND:
            kind, flag = value, f"--set {_KIND}"
    if kind is None:
        return None  # the schema will say that it is missing
    if kind not in KINDS:
        at_flag = flag == f"--set {_KIND}"
        raise InputError(
            "unknown kind of network",
            source=flag or source,
            path=None if at_flag else _KIND,
            given=kind,
            expected="one of " + ", ".join(KINDS),
            hint=did_you_mean(kind, KINDS) if isinstance(kind, str) else None,
        )
    known = array_schema(kind).model_fields["network"].annotation
    foreign = [key for key in keys if key not in getattr(known, "model_fields", ())]
    if kind != before and foreign:
        raise InputError(
            f"the file's network is of kind {before}, and a network of kind {kind} has no {foreign[0]}",
            source=flag,
            given=kind,
            hint=f"replace the whole section, for instance --set 'network={{kind: {kind}, ...}}', or start from a"
            f" preset of this kind",
        )
    return kind


def _read(given: object) -> tuple[Mapping[str, Any], str, str, Path | None]:
    """The raw mapping, the default name, the name of the source for messages, and the folder of its file."""
    if isinstance(given, Mapping):
        return given, _DEFAULT_NAME, "array", None
    if not isinstance(given, str | Path):
        raise InputError("not an array", given=given, expected="a preset's name, a path, or a file's mapping")
    path = resolve("arrays", given)
    if is_preset("arrays", given):
        return _load_preset(path), printable(path.stem), f"preset {given}", path.parent
    return load_mapping(path), printable(path.stem), str(given), path.parent


@cache
def _load_preset(path: Path) -> dict[str, Any]:
    """The raw mapping of a preset, read once per process; callers copy it before they change it."""
    return load_mapping(path)


def _dtype_to_plain(dtype: Dtype) -> str | dict[str, Any]:
    if dtype.group_size is None:
        return dtype.name
    return {"dtype": dtype.name, "group_size": dtype.group_size, "zero_point": dtype.zero_point}
