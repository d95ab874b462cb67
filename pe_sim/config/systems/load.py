"""Loads systems: takes a preset's name, a path or a mapping, gives a frozen SystemConfig; and back to a plain dict."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.floorplan import grid_shape
from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.config.files.loading import is_preset, load_mapping, preset_names, resolve
from pe_sim.config.files.overrides import apply_overrides
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InputError, printable

if TYPE_CHECKING:
    from pe_sim.config.networks.shapes import Link
    from pe_sim.config.systems.schema import ArrayEntryFile, SystemFile

_DEFAULT_NAME: Final = "system"  # name of a mapping without one
_EVERY, _ENTRY = "array.", "arrays."  # beginnings of paths for all arrays, and for one entry
_ENTRY_FIELDS: Final = ("array", "count", "set")


def list_systems() -> tuple[str, ...]:
    """The names of all presets of systems, sorted."""
    return preset_names("systems")


def load_system(
    source: SystemConfig | str | Path | Mapping[str, Any], overrides: Mapping[str, object] | None = None
) -> SystemConfig:
    """A system by a preset's name, from a YAML or JSON file, from such a file's mapping, or as given.

    Args:
        source: for instance "ring-of-8-bus-tree-1024", "my/system.yaml", or {"schema_version": 1, "arrays": ...}.
        overrides: new values by dotted path: links.link.latency_cycles; arrays.0.count, arrays.0.set.overlap for one
            entry; array.overlap for all arrays, unless an entry's own `arrays.N.set` overrides it.

    Raises:
        InputError: there is no such preset or file, or it, one of its arrays or an override is wrong.
    """
    if isinstance(source, SystemConfig):
        return load_system(system_to_dict(source), overrides) if overrides else source
    # Imported here: code that only handles a finished SystemConfig does not pay for pydantic.
    from pe_sim.config.systems.schema import check_system_file, link_kind, system_paths

    raw, name, label, folder = _read(source)
    changes = _Changes.of(overrides or {})
    flag = next((f"--set {path}" for path in ("links.kind", "links") if path in changes.system), None)
    kind = link_kind(_with_links(raw, changes.system), flag or label)
    changed = _with_links(apply_overrides(raw, changes.system, system_paths(kind)), {})
    changes.apply_to_entries(changed)
    file = check_system_file(changed, label, tuple(changes.system))
    arrays = _arrays(file, changes, label, folder)
    _check_clocks(file, arrays, label)
    ranks = tuple(array for array, entry in zip(arrays, file.arrays, strict=True) for _ in range(entry.count))
    _check_dead(file.dead_arrays, len(ranks), label)
    from_command_line = any(path.partition(".")[0] == "links" for path in changes.system)
    links = _links(file, len(ranks), label, None if from_command_line else folder)
    pitch_mm, mm_per_cycle = _floorplan(file, ranks[0])
    return SystemConfig(file.name or name, ranks, links, pitch_mm, mm_per_cycle, file.dead_arrays)


def system_of_one(array: ArrayConfig) -> SystemConfig:
    """A system of a single array."""
    pitch_mm, mm_per_cycle = _own_floorplan(array)
    return SystemConfig(array.name, (array,), None, pitch_mm, mm_per_cycle)


def system_to_dict(system: SystemConfig) -> dict[str, Any]:
    """The system in the shape of its YAML, JSON-ready; `load_system` of it gives the same system."""
    from pe_sim.config.networks.to_dict import network_to_dict

    entries = []
    for _, equal in groupby(system.arrays, key=id):
        first, *others = equal
        entries.append({"array": array_to_dict(first), "count": 1 + len(others)})
    return {
        "schema_version": 1,
        "name": system.name,
        "arrays": entries,
        "links": network_to_dict(system.links) if system.links else None,
        "floorplan": {"array_pitch_mm": system.pitch_mm, "mm_per_cycle": system.mm_per_cycle},
        "dead_arrays": list(system.dead_arrays),
    }


def describe_system(system: SystemConfig) -> str:
    """One line: name, how many arrays of which kind, the links, and the dead arrays."""
    from pe_sim.config.networks.to_dict import describe_links

    kinds = [f"{len(list(equal))} x {name}" for name, equal in groupby(array.name for array in system.arrays)]
    links = f", {describe_links(system.links)}" if system.links else ""
    dead = f", dead: {', '.join(map(str, system.dead_arrays))}" if system.dead_arrays else ""
    return f"{system.name}: {' + '.join(kinds)}{links}, {system.clock_ghz:g} GHz{dead}"


# ----------------------------------------------------------------------------------------------------------- overrides
@dataclass(frozen=True, slots=True)
class _Changes:
    """Overrides by what they change; `entries` has (number, field, rest of the path) -> value."""

    system: Mapping[str, object]
    every: Mapping[str, object]
    entries: Mapping[tuple[int, str, str], object]

    @classmethod
    def of(cls, overrides: Mapping[str, object]) -> _Changes:
        """The overrides, sorted by what they change.

        Raises:
            InputError: a path into `arrays` that names no entry.
        """
        entries = {_entry_path(path): value for path, value in overrides.items() if path.startswith(_ENTRY)}
        every = {path.removeprefix(_EVERY): value for path, value in overrides.items() if path.startswith(_EVERY)}
        system = {path: value for path, value in overrides.items() if not path.startswith((_ENTRY, _EVERY))}
        return cls(system, every, entries)

    def apply_to_entries(self, raw: dict[str, Any]) -> None:
        """Sets the fields of entries that overrides replace; values inside their arrays come later.

        Raises:
            InputError: there is no such entry.
        """
        listed = raw.get("arrays")
        for (number, name, rest), value in self.entries.items():
            if not isinstance(listed, list) or number >= len(listed) or not isinstance(listed[number], dict):
                count = len(listed) if isinstance(listed, list) else 0
                raise InputError(
                    "there is no such entry",
                    source=f"--set {_ENTRY}{number}.{name}{'.' + rest if rest else ''}",
                    given=number,
                    expected=f"an entry of arrays from 0 to {count - 1}",
                )
            if not rest:
                listed[number][name] = value

    def of_entry(self, number: int) -> dict[str, tuple[str, object]]:
        """(name for messages, value) of every override of one entry's arrays, by an array's dotted path."""
        found = {path: (f"--set {_EVERY}{path}", value) for path, value in self.every.items()}
        for (entry, name, rest), value in self.entries.items():
            if entry == number and rest:
                found[rest] = (f"--set {_ENTRY}{entry}.{name}.{rest}", value)
        return found


def _entry_path(path: str) -> tuple[int, str, str]:
    number, _, inside = path.removeprefix(_ENTRY).partition(".")
    name, _, rest = inside.partition(".")
    if not (number.isascii() and number.isdecimal()) or name not in _ENTRY_FIELDS or (rest and name != "set"):
        raise InputError(
            "unknown path",
            source=f"--set {path}",
            expected="arrays.N.array, arrays.N.count or arrays.N.set.dotted.path, N an entry's number from 0 on",
            hint="array.dotted.path changes all arrays",
        )
    return int(number), name, rest


def _with_links(raw: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """The file's mapping with overridden links, and with an alias of their kind replaced."""
    from pe_sim.config.systems.schema import LINK_ALIASES

    links = changes.get("links", raw.get("links"))
    if isinstance(links, Mapping):
        kind = changes.get("links.kind", links.get("kind"))
        alias = LINK_ALIASES.get(kind) if isinstance(kind, str) else None
        known = {"kind": alias or kind} if kind is not None else {}
        links = {**links, **known}
    return {**raw, "links": links}


# -------------------------------------------------------------------------------------------------------------- arrays
def _arrays(file: SystemFile, changes: _Changes, label: str, folder: Path | None) -> list[ArrayConfig]:
    """The array of each entry, in order; equal ones are the same object."""
    found: list[ArrayConfig] = []
    for number, entry in enumerate(file.arrays):
        array = _load_entry(number, entry, changes.of_entry(number), label, folder)
        found.append(next((same for same in found if same == array), array))
    return found


def _load_entry(
    number: int, entry: ArrayEntryFile, changes: Mapping[str, tuple[str, object]], label: str, folder: Path | None
) -> ArrayConfig:
    where = f"{label}: {_ENTRY}{number}"
    own = {path: (f"{where}.set.{path}", value) for path, value in entry.set.items()}
    settings = {**own, **changes}
    try:
        return load_array(_found(entry.array, folder), {path: value for path, (_, value) in settings.items()})
    except InputError as error:
        flag = (error.source or "").removeprefix("--set ")
        if error.source == f"--set {flag}" and flag in settings:
            raise error.of(settings[flag][0]) from None
        raise error.of(f"{where}: {error.source}" if error.source else where) from None


def _found(given: str | dict[str, Any], folder: Path | None) -> str | Path | dict[str, Any]:
    """The array's file next to the system's if there is one, else what was given."""
    if isinstance(given, dict) or folder is None or is_preset("arrays", given):
        return given
    beside = folder / given
    return beside if beside.exists() else given


def _check_clocks(file: SystemFile, arrays: list[ArrayConfig], label: str) -> None:
    for number, array in enumerate(arrays):
        if array.clock_ghz != arrays[0].clock_ghz:
            raise InputError(
                "the arrays of a system have one clock",
                source=label,
                path=f"arrays.{number}: clock_ghz",
                given=array.clock_ghz,
                expected=f"{arrays[0].clock_ghz:g}, as of arrays.0",
                hint=f"set: {{clock_ghz: {arrays[0].clock_ghz:g}}}, if its other constants hold at that clock",
            )


def _check_dead(dead: tuple[int, ...], num_arrays: int, label: str) -> None:
    problem = ""
    if len(set(dead)) < len(dead):
        problem = "a rank stands there twice"
    elif any(not 0 <= rank < num_arrays for rank in dead):
        problem = "there is no such array"
    elif len(dead) == num_arrays:
        problem = "no array is left"
    if problem:
        expected = f"different ranks from 0 to {num_arrays - 1}, not all of them"
        raise InputError(problem, source=label, path="dead_arrays", given=list(dead), expected=expected)


# --------------------------------------------------------------------------------------------------------------- links
def _links(file: SystemFile, num_arrays: int, label: str, folder: Path | None) -> GraphNetwork | None:
    from pe_sim.config.networks.resolve import resolve_network
    from pe_sim.config.networks.schema import GraphNetworkFile
    from pe_sim.config.systems.schema import LINK_KINDS, MAX_ARRAYS, refuse_choices

    if num_arrays > MAX_ARRAYS:
        raise InputError(
            "too many arrays", source=label, path="arrays", given=num_arrays, expected=f"at most {MAX_ARRAYS} in all"
        )
    section: object = file.links
    if section is None and num_arrays > 1:
        raise InputError(
            f"{num_arrays} arrays need links",
            source=label,
            path="links",
            expected="a mapping with a kind, one of " + ", ".join(LINK_KINDS),
        )
    if section is None:
        return None
    assert isinstance(section, GraphNetworkFile)
    refuse_choices(section, label)
    try:
        links = resolve_network(section, num_arrays, label, folder)
    except InputError as error:
        raise _of_arrays(error) from None
    if num_arrays == 1:
        return None
    if any(link.latency_cycles == 0 == link.overhead_cycles for link in _links_in(links.shape)):
        raise InputError(
            "a message would arrive in the cycle in which it leaves",
            source=label,
            path="links",
            expected="latency_cycles or overhead_cycles of at least 1, for every link",
        )
    return links


def _links_in(part: object) -> Iterator[Link]:
    """Yields all links of a shape."""
    from pe_sim.config.networks.shapes import Link

    if isinstance(part, Link):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from _links_in(each)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _links_in(getattr(part, field.name))


def _of_arrays(error: InputError) -> InputError:
    """An error about PEs and their network, reworded for arrays and their links."""
    source = error.source or ""
    error.args = (source + _in_words_of_arrays(str(error).removeprefix(source)),)
    error.problem = _in_words_of_arrays(error.problem)
    error.path = _in_words_of_arrays(error.path) if error.path else None
    return error


def _in_words_of_arrays(text: str) -> str:
    words = ((r"\ba PE\b", "an array"), (r"\bPE(s?)\b", r"array\1"), ("num_pes", "arrays"), (r"\bnetwork\b", "links"))
    for old, new in words:
        text = re.sub(old, new, text)
    return text


def _floorplan(file: SystemFile, array: ArrayConfig) -> tuple[float, float]:
    if file.floorplan is None:
        return _own_floorplan(array)
    return file.floorplan.array_pitch_mm, file.floorplan.mm_per_cycle


def _own_floorplan(array: ArrayConfig) -> tuple[float, float]:
    """A system's floor plan for a single array: pitch (the array's width, mm) and mm per cycle."""
    cols, _ = grid_shape(array.num_pes)
    return cols * array.floorplan.pe_pitch_mm, array.floorplan.mm_per_cycle


def _read(given: object) -> tuple[Mapping[str, Any], str, str, Path | None]:
    """The raw mapping, the default name, the name of the source for messages, and the folder of its file."""
    if isinstance(given, Mapping):
        return given, _DEFAULT_NAME, "system", None
    if not isinstance(given, str | Path):
        raise InputError("not a system", given=given, expected="a preset's name, a path, or a file's mapping")
    path = resolve("systems", given)
    source = f"preset {given}" if is_preset("systems", given) else str(given)
    return load_mapping(path), printable(path.stem), source, path.parent


System = SystemConfig | ArrayConfig | str | Path | Mapping[str, Any]


def as_system(given: System) -> SystemConfig:
    """The system itself, one array as a system, or what `load_system` makes of it.

    Raises:
        InputError: as `load_system` raises it.
    """
    return system_of_one(given) if isinstance(given, ArrayConfig) else load_system(given)
