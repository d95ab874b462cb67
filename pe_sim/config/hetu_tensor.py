"""One tensor of Hetu's ds_parallel_config: takes its mapping, gives the members of its union with their degrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

from pe_sim.config.plan_values import distinct, whole, whole_list
from pe_sim.errors import InputError, did_you_mean

_KEYS: Final = ("split", "dup", "device_group", "device_group_union", "type")
Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class HetuTensor:
    """How a tensor lies on the members of a union.

    Args:
        path: where it stands in the file.
        groups: the devices of each member.
        splits: of each member its degrees by dim.
        dups: of each member its copies, over the whole union.
    """

    path: str
    groups: Groups
    splits: tuple[Mapping[int, int], ...]
    dups: tuple[int, ...]


def read_tensor(raw: object, path: str, source: str) -> HetuTensor:
    """The tensor, with what must hold: for each member, split * dup = devices of the member * number of members.

    Raises:
        InputError: an unknown key, lists that are not of all members, a device named twice, or degrees that do not
            multiply.
    """
    if not isinstance(raw, Mapping):
        raise InputError("not a tensor", source=source, path=path, given=raw, expected=f"a mapping with {_words()}")
    for key in raw:
        if key not in _KEYS:
            where = f"{path}.{key}"
            raise InputError("unknown key", source=source, path=where, given=raw[key], hint=did_you_mean(key, _KEYS))
    groups = _groups(raw, path, source)
    splits = _splits(raw.get("split", {}), len(groups), path, source)
    dups = _per_member(raw.get("dup", 1), len(groups), f"{path}.dup", source)
    for group, split, dup in zip(groups, splits, dups, strict=True):
        pieces = prod(split.values()) * dup
        if pieces != len(group) * len(groups):
            raise InputError(
                f"split {prod(split.values())} x dup {dup} is {pieces}, not {len(group) * len(groups)}"
                f" ({len(group)} devices x {len(groups)} groups)",
                source=source,
                path=f"{path}.dup",
                given=raw.get("dup", 1),
                expected="degrees that multiply to the devices of a group times the number of groups",
            )
    return HetuTensor(path, groups, splits, dups)


def _words() -> str:
    return "split, dup and device_group or device_group_union"


def _groups(raw: Mapping[str, object], path: str, source: str) -> Groups:
    if ("device_group" in raw) == ("device_group_union" in raw):
        both = "device_group" in raw
        problem = "device_group and device_group_union at once" if both else "no device_group"
        raise InputError(problem, source=source, path=path, given=list(raw), expected=_words())
    if "device_group" in raw:
        group = whole_list(raw["device_group"], f"{path}.device_group", source)
        groups: Groups = (group,)
    else:
        union = raw["device_group_union"]
        where = f"{path}.device_group_union"
        if not isinstance(union, list | tuple) or not union:
            raise InputError(
                "not a list of groups", source=source, path=where, given=union, expected="[[0, 1], [2, 3]]"
            )
        groups = tuple(whole_list(group, f"{where}.{index}", source) for index, group in enumerate(union))
    for index, group in enumerate(groups):
        if not group:
            problem = "a group without devices"
            raise InputError(problem, source=source, path=f"{path}, group {index}", given=[], expected="one or more")
    distinct((device for group in groups for device in group), path, source, "device")
    return groups


def _per_member(value: object, num_groups: int, path: str, source: str) -> tuple[int, ...]:
    """A number for each member; one number stands for all."""
    if not isinstance(value, list | tuple):
        return (whole(value, path, source),) * num_groups
    numbers = whole_list(value, path, source, least=1)
    if len(numbers) != num_groups:
        raise InputError(
            f"{len(numbers)} entries",
            source=source,
            path=path,
            given=value,
            expected=f"{num_groups}, one for each group",
        )
    return numbers


def _splits(value: object, num_groups: int, path: str, source: str) -> tuple[Mapping[int, int], ...]:
    where = f"{path}.split"
    if not isinstance(value, Mapping):
        raise InputError("not a mapping", source=source, path=where, given=value, expected='degrees by dim: {"0": 2}')
    degrees: dict[int, tuple[int, ...]] = {}
    for dim, entry in value.items():
        if str(dim) not in ("0", "1"):
            raise InputError("no such dim", source=source, path=f"{where}.{dim}", given=entry, expected="0 or 1")
        degrees[int(dim)] = _per_member(entry, num_groups, f"{where}.{dim}", source)
    return tuple({dim: numbers[index] for dim, numbers in degrees.items()} for index in range(num_groups))
