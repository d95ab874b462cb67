"""Hetu's ds_parallel_config JSON, root `llama` or `gpt`: takes the mapping, gives a plan that names every array.

qkv and dense_h_to_4h split dim 1 (outputs sharded), dense and dense_4h_to_h split dim 0 (inputs sharded): the shares
of the operators. If a group has more devices than shares, these are replicas. Blocks on other groups are other stages,
and members of a union are pipelines. `cp_list`, which Hetu ignores, is read where `generate_llama_4d_config` of this
package wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Final

from pe_sim.config.plans.checks import (
    distinct,
    ignored_line,
    require,
    stage,
    whole,
    whole_list,
)
from pe_sim.config.plans.plan import Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.errors import InputError, did_you_mean

# ---- One tensor of Hetu's ds_parallel_config: takes its mapping, gives the members of its union with their degrees.


_KEYS: Final = ("split", "dup", "device_group", "device_group_union", "type")
Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class HetuTensor:
    """The layout of a tensor on the members of a union.

    Args:
        path: its path in the file.
        groups: the devices of each member.
        splits: the degrees of each member, by dim.
        dups: the copies of each member, over the whole union.
    """

    path: str
    groups: Groups
    splits: tuple[Mapping[int, int], ...]
    dups: tuple[int, ...]


def read_tensor(raw: object, path: str) -> HetuTensor:
    """The tensor that a mapping describes; for each member, split * dup = its devices * number of members.

    Raises:
        InputError: an unknown key, lists without an entry for each member, a device named twice, or degrees that do
            not multiply.
    """
    if not isinstance(raw, Mapping):
        raise InputError("not a tensor", path=path, given=raw, expected=f"a mapping with {_words()}")
    for key in raw:
        if key not in _KEYS:
            where = f"{path}.{key}"
            raise InputError("unknown key", path=where, given=raw[key], hint=did_you_mean(key, _KEYS))
    groups = _groups(raw, path)
    splits = _splits(raw.get("split", {}), len(groups), path)
    dups = _per_member(raw.get("dup", 1), len(groups), f"{path}.dup")
    for group, split, dup in zip(groups, splits, dups, strict=True):
        pieces = prod(split.values()) * dup
        if pieces != len(group) * len(groups):
            raise InputError(
                f"split {prod(split.values())} x dup {dup} is {pieces}, not {len(group) * len(groups)}"
                f" ({len(group)} devices x {len(groups)} groups)",
                path=f"{path}.dup",
                given=raw.get("dup", 1),
                expected="degrees that multiply to the devices of a group times the number of groups",
            )
    return HetuTensor(path, groups, splits, dups)


def _words() -> str:
    return "split, dup and device_group or device_group_union"


def _groups(raw: Mapping[str, object], path: str) -> Groups:
    if ("device_group" in raw) == ("device_group_union" in raw):
        both = "device_group" in raw
        problem = "device_group and device_group_union at once" if both else "no device_group"
        raise InputError(problem, path=path, given=list(raw), expected=_words())
    if "device_group" in raw:
        group = whole_list(raw["device_group"], f"{path}.device_group")
        groups: Groups = (group,)
    else:
        union = raw["device_group_union"]
        where = f"{path}.device_group_union"
        if not isinstance(union, list | tuple) or not union:
            raise InputError("not a list of groups", path=where, given=union, expected="[[0, 1], [2, 3]]")
        groups = tuple(whole_list(group, f"{where}.{index}") for index, group in enumerate(union))
    for index, group in enumerate(groups):
        if not group:
            problem = "a group without devices"
            raise InputError(problem, path=f"{path}, group {index}", given=[], expected="one or more")
    distinct((device for group in groups for device in group), path, "device")
    return groups


def _per_member(value: object, num_groups: int, path: str) -> tuple[int, ...]:
    """The number of each member; a single number holds for all."""
    if not isinstance(value, list | tuple):
        return (whole(value, path),) * num_groups
    numbers = whole_list(value, path, least=1)
    if len(numbers) != num_groups:
        raise InputError(
            f"{len(numbers)} entries",
            path=path,
            given=value,
            expected=f"{num_groups}, one for each group",
        )
    return numbers


def _splits(value: object, num_groups: int, path: str) -> tuple[Mapping[int, int], ...]:
    where = f"{path}.split"
    if not isinstance(value, Mapping):
        raise InputError("not a mapping", path=where, given=value, expected='degrees by dim: {"0": 2}')
    degrees: dict[int, tuple[int, ...]] = {}
    for dim, entry in value.items():
        if str(dim) not in ("0", "1"):
            raise InputError("no such dim", path=f"{where}.{dim}", given=entry, expected="0 or 1")
        degrees[int(dim)] = _per_member(entry, num_groups, f"{where}.{dim}")
    return tuple({dim: numbers[index] for dim, numbers in degrees.items()} for index in range(num_groups))


ROOTS: Final = ("llama", "gpt")
_NORMS: Final = ("layernorm1", "layernorm2", "rmsnorm1", "rmsnorm2")
# The matrices of a block, and the dim along which arrays that share its operators split each.
_MATRICES: Final = {"attn": {"qkv": 1, "dense": 0}, "mlp": {"dense_h_to_4h": 1, "dense_4h_to_h": 0}}
_IGNORED_IN_BLOCK: Final = ("recompute", "output_recompute", "cpu_offload", "sp", "sequence_parallel")
_IGNORED_TOP: Final = ("zero", "recompute_granularity", "recompute_layer_idxs_list", "input", "label")
_TABLES: Final = ("wte", "wpe")
_LAST_NORMS: Final = ("layernorm_final", "rmsnorm_final")


@dataclass(frozen=True, slots=True)
class Block:
    """Layers first .. last with the same layout: the groups of their union, and the share count (tp) of each group."""

    first: int
    last: int
    groups: Groups
    tps: tuple[int, ...]
    path: str


def is_hetu_plan(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has one of the roots of Hetu's config."""
    return any(isinstance(raw.get(root), Mapping) for root in ROOTS)


def read_hetu_plan(raw: Mapping[str, object], name: str, num_arrays: int | None = None) -> ParallelPlan:
    """The plan that the file describes.

    Args:
        raw: the mapping of the file.
        name: name of the plan.
        num_arrays: unused; the file names its devices.

    Raises:
        InputError: an unknown key, degrees that do not multiply, a device named twice, layers that are skipped or
            repeated, or a tensor with a layout that is not supported.
    """
    root = next(root for root in ROOTS if isinstance(raw.get(root), Mapping))
    ignored = _Ignored()
    _check_top(raw, root, ignored)
    blocks = _blocks(raw[root], root, ignored)
    _check_tables(raw[root], root, blocks[0])
    split_vocabulary = _check_head(raw, root, blocks[-1])
    members = [_lane(blocks, index) for index in range(len(blocks[0].groups))]
    cp_list = whole_list(raw["cp_list"], "cp_list", least=1) if raw.get("cp_list") is not None else None
    return ParallelPlan(
        name=name,
        pipelines=pipelines_of(members, cp_list),
        split_vocabulary=split_vocabulary,
        unused=_unused(raw, blocks),
        num_layers=blocks[-1].last + 1,
        ignored=ignored.lines(),
    )


class _Ignored:
    """A collection of keys that inference has no use for, each with its first value."""

    def __init__(self) -> None:
        self._found: dict[str, object] = {}

    def add(self, key: str, value: object) -> None:
        """Adds the key, unless it is there already."""
        self._found.setdefault(key, value)

    def lines(self) -> tuple[str, ...]:
        """A line of text for each key."""
        return tuple(ignored_line(key, value) for key, value in self._found.items())


def _unknown(key: str, path: str, value: object, known: tuple[str, ...]) -> InputError:
    return InputError("unknown key", path=path, given=value, hint=did_you_mean(key, known))


def _check_top(raw: Mapping[str, object], root: str, ignored: _Ignored) -> None:
    known = (root, "lm_head", "devices", "cp_list", *_IGNORED_TOP)
    for key, value in raw.items():
        if isinstance(value, Mapping) and value.get("type") == "placeholder":
            read_tensor(value, key)
        elif key in _IGNORED_TOP or key.startswith("lora"):
            ignored.add(key, value)
        elif key not in known:
            raise _unknown(key, key, value, known)


def _mapping(raw: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    where = f"{path}.{key}"
    value = require(raw, key, path=where)
    if isinstance(value, Mapping):
        return value
    raise InputError("not a mapping", path=where, given=value, expected="a mapping")


def _blocks(raw: Any, root: str, ignored: _Ignored) -> list[Block]:
    """All blocks in the order of their layers, checked to hold every layer once, all with the same number of groups."""
    known = ("blocks", *_TABLES, *_LAST_NORMS)
    for key, value in raw.items():
        if key.startswith("lora"):
            ignored.add(key, value)
        elif key not in known:
            raise _unknown(key, f"{root}.{key}", value, known)
    path = f"{root}.blocks"
    entries = _mapping(raw, "blocks", root)
    if not entries:
        raise InputError("no blocks", path=path, given={}, expected="a block for every range of layers")
    blocks = [_block(entry, f"{path}.{key}", ignored) for key, entry in entries.items()]
    blocks.sort(key=lambda block: block.first)
    expected = 0
    for block in blocks:
        if block.first != expected:
            verb = "skips to" if block.first > expected else "repeats"
            raise InputError(
                f"{verb} layer {block.first}",
                path=f"{block.path}.range",
                given=[block.first, block.last],
                expected=f"layers from {expected} on",
            )
        expected = block.last + 1
        if len(block.groups) != len(blocks[0].groups):
            raise InputError(
                f"{len(block.groups)} groups",
                path=f"{block.path}.attn.qkv",
                given=[list(group) for group in block.groups],
                expected=f"{len(blocks[0].groups)}, as in {blocks[0].path}",
            )
    return blocks


def _block(entry: Any, path: str, ignored: _Ignored) -> Block:
    if not isinstance(entry, Mapping):
        raise InputError("not a mapping", path=path, given=entry, expected="a block of layers")
    known = ("range", *_MATRICES, *_NORMS)
    for key, value in entry.items():
        if key in _IGNORED_IN_BLOCK or key.startswith("lora"):
            ignored.add(key, value)
        elif key not in known:
            raise _unknown(key, f"{path}.{key}", value, (*known, *_IGNORED_IN_BLOCK))
    first, last = _range(entry.get("range"), f"{path}.range")
    matrices = _matrices(entry, path, ignored)
    (leading, dim), *others = matrices
    tps = _shares(leading, dim)
    for tensor, other_dim in others:
        _same_groups(tensor, leading.groups, leading.path)
        if _shares(tensor, other_dim) != tps:
            raise InputError(
                "shared among another number of devices",
                path=f"{tensor.path}.split",
                given=[dict(split) for split in tensor.splits],
                expected=f"{list(tps)} of each group, as in {leading.path}",
            )
    for key in _NORMS:
        if key in entry:
            _same_groups(read_tensor(entry[key], f"{path}.{key}"), leading.groups, leading.path)
    return Block(first, last, leading.groups, tps, path)


def _range(value: object, path: str) -> tuple[int, int]:
    """The first and last layer of a range; Hetu writes a single number for a single layer."""
    layers = whole_list([] if value is None else value, path)
    if len(layers) in (1, 2) and layers[0] <= layers[-1]:
        return layers[0], layers[-1]
    problem, expected = "not a range of layers", "[first, last] or [layer]"
    raise InputError(problem, path=path, given=value, expected=expected)


def _matrices(entry: Mapping[str, Any], path: str, ignored: _Ignored) -> list[tuple[HetuTensor, int]]:
    found = []
    for part, dims in _MATRICES.items():
        inside = _mapping(entry, part, path)
        for key, value in inside.items():
            if key.startswith("lora") or key == "activation_func":
                ignored.add(key, value)
            elif key not in dims:
                raise _unknown(key, f"{path}.{part}.{key}", value, tuple(dims))
        for key, dim in dims.items():
            found.append((read_tensor(_mapping(inside, key, f"{path}.{part}"), f"{path}.{part}.{key}"), dim))
    return found


def _shares(tensor: HetuTensor, dim: int) -> tuple[int, ...]:
    """For each group, how many devices share the matrix: its degree in `dim`, the only dim that may be split."""
    for split in tensor.splits:
        if split.get(1 - dim, 1) != 1:
            raise InputError(
                f"split over dim {1 - dim}",
                path=f"{tensor.path}.split",
                given=dict(split),
                expected=f"dim {dim} alone, as Hetu's layers are",
            )
    shares = tuple(split.get(dim, 1) for split in tensor.splits)
    for share, group in zip(shares, tensor.groups, strict=True):
        if len(group) % share:
            raise InputError(
                f"{share} shares on {len(group)} devices",
                path=f"{tensor.path}.split",
                given=share,
                expected=f"a divisor of {len(group)}",
            )
    return shares


def _same_groups(tensor: HetuTensor, groups: Groups, where: str) -> None:
    if tensor.groups != groups:
        raise InputError(
            "on other devices",
            path=tensor.path,
            given=[list(group) for group in tensor.groups],
            expected=f"{[list(group) for group in groups]}, as {where}",
        )


def _check_tables(raw: Any, root: str, first: Block) -> None:
    for key in _TABLES:
        if key in raw:
            _same_groups(read_tensor(raw[key], f"{root}.{key}"), first.groups, first.path)


def _check_head(raw: Mapping[str, Any], root: str, last: Block) -> bool:
    """Whether the arrays that share the last layer's operators share the LM head too (else each has it whole)."""
    for key in _LAST_NORMS:
        if key in raw[root]:
            _same_groups(read_tensor(raw[root][key], f"{root}.{key}"), last.groups, last.path)
    if "lm_head" not in raw:
        return True
    tensor = read_tensor(raw["lm_head"], "lm_head")
    _same_groups(tensor, last.groups, last.path)
    shares = _shares(tensor, 1)
    if shares == last.tps:
        return True
    if set(shares) == {1}:
        return False
    raise InputError(
        "shared among another number of devices than the last layer",
        path="lm_head.split.1",
        given=list(shares),
        expected=f"{list(last.tps)}, as {last.path}, or 1",
    )


def _lane(blocks: list[Block], member: int) -> Lane:
    """The pieces of one member; consecutive blocks with the same layout form one piece."""
    pieces: list[Piece] = []
    for block in blocks:
        arrays, tp, count = block.groups[member], block.tps[member], block.last - block.first + 1
        if pieces and pieces[-1].arrays == arrays and pieces[-1].tp == tp:
            before = pieces.pop()
            pieces.append(Piece(arrays, before.first_layer, before.num_layers + count, tp))
        else:
            pieces.append(Piece(arrays, block.first, count, tp))
    return tuple(pieces)


def _unused(raw: Mapping[str, Any], blocks: list[Block]) -> tuple[int, ...]:
    """Listed devices that no block names."""
    used = {device for block in blocks for group in block.groups for device in group}
    if "devices" not in raw:
        return ()
    devices = distinct(whole_list(raw["devices"], "devices"), "devices", "device")
    strangers = sorted(used.difference(devices))
    if strangers:
        raise InputError(
            f"device {strangers[0]} works and is not listed",
            path="devices",
            given=list(devices),
            expected="every device of every group",
        )
    return tuple(device for device in devices if device not in used)


# ---- Hetu's members of a union as pipelines: takes each member's pieces, gives the plan's pipelines.


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive layers of one member of a union, on the same arrays.

    Args:
        arrays: the member's group: its replicas one after the other, each of tp arrays.
        first_layer, num_layers: layers first_layer .. first_layer + num_layers - 1.
        tp: number of arrays that share the operators.
    """

    arrays: tuple[int, ...]
    first_layer: int
    num_layers: int
    tp: int

    @property
    def replicas(self) -> int:
        """Number of copies of the layers in the group."""
        return len(self.arrays) // self.tp

    @property
    def end(self) -> int:
        """The layer after the last."""
        return self.first_layer + self.num_layers


Lane = tuple[Piece, ...]  # the pieces of one replica, from the first layer to the last


def pipelines_of(members: Sequence[Lane], cp_list: Sequence[int] | None) -> tuple[PipelinePlan, ...]:
    """The pipelines of a union: one for each replica, or for each group of replicas that share tokens.

    Args:
        members: the pieces of each member, in the order of their layers.
        cp_list: the numbers of consecutive replicas that share tokens; None: none do.

    Raises:
        InputError: cp_list does not add up to all replicas, or replicas that share tokens do not share operators alike.
    """
    if any(piece.replicas != member[0].replicas for member in members for piece in member):
        return _uneven(members, cp_list)
    lanes = [lane for member in members for lane in _lanes(member)]
    shares = list(cp_list) if cp_list is not None else [1] * len(lanes)
    if sum(shares) != len(lanes):
        raise InputError(
            f"cp_list is of {sum(shares)} replicas",
            path="cp_list",
            given=shares,
            expected=f"numbers that add up to {len(lanes)}",
        )
    pipelines, at = [], 0
    for cp in shares:
        pipelines.append(_merged(lanes[at : at + cp], at))
        at += cp
    return tuple(pipelines)


def _lanes(member: Lane) -> list[Lane]:
    """The lane of each replica in the member's groups."""
    return [
        tuple(
            Piece(piece.arrays[r * piece.tp : (r + 1) * piece.tp], piece.first_layer, piece.num_layers, piece.tp)
            for piece in member
        )
        for r in range(member[0].replicas)
    ]


def _uneven(members: Sequence[Lane], cp_list: Sequence[int] | None) -> tuple[PipelinePlan, ...]:
    """One pipeline for each member, whose stages have different numbers of replicas and hand on the whole batch."""
    if cp_list is not None and any(cp != 1 for cp in cp_list):
        problem, expected = "shares of the tokens beside stages with different numbers of replicas", "1 for each"
        raise InputError(problem, path="cp_list", given=list(cp_list), expected=expected)
    return tuple(
        PipelinePlan(
            tuple(
                stage(piece.arrays, piece.first_layer, piece.num_layers, Degrees(dp=piece.replicas, tp=piece.tp))
                for piece in member
            )
        )
        for member in members
    )


def _merged(lanes: Sequence[Lane], first_replica: int) -> PipelinePlan:
    """One pipeline of replicas that share tokens, cut into stages wherever any of them is."""
    cuts = sorted({edge for lane in lanes for piece in lane for edge in (piece.first_layer, piece.end)})
    stages: list[StagePlan] = []
    for begin, end in pairwise(cuts):
        pieces = [next(piece for piece in lane if piece.first_layer <= begin < piece.end) for lane in lanes]
        for index, piece in enumerate(pieces):
            if piece.tp != pieces[0].tp:
                raise InputError(
                    f"replicas {first_replica} and {first_replica + index} share tokens,"
                    f" and share layer {begin} among {pieces[0].tp} and {piece.tp} arrays",
                    path="cp_list",
                    given=len(lanes),
                    expected="as many arrays in each, or no shared tokens (1 for each)",
                )
        arrays = tuple(array for piece in pieces for array in piece.arrays)
        stages.append(stage(arrays, begin, end - begin, Degrees(cp=len(lanes), tp=pieces[0].tp)))
    return PipelinePlan(tuple(stages))
