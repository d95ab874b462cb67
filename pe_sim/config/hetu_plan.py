"""Hetu's ds_parallel_config JSON, root `llama` or `gpt`: takes the mapping, gives a plan that names every array.

qkv and dense_h_to_4h split dim 1 (outputs sharded), dense and dense_4h_to_h split dim 0 (inputs sharded): the shares
of the operators. What a group has more of is replicas. Blocks on other groups are other stages, and members of a union
are pipelines. `cp_list`, which Hetu passes over, is read where `generate_llama_4d_config` of this package wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pe_sim.config.hetu_pipelines import Lane, Piece, pipelines_of
from pe_sim.config.hetu_tensor import Groups, HetuTensor, read_tensor
from pe_sim.config.plan import ParallelPlan
from pe_sim.config.plan_checks import check_plan
from pe_sim.config.plan_values import distinct, ignored_line, require, whole_list
from pe_sim.errors import InputError, did_you_mean

ROOTS: Final = ("llama", "gpt")
_NORMS: Final = ("layernorm1", "layernorm2", "rmsnorm1", "rmsnorm2")
# The matrices of a block, and the dim that the arrays that share its operators split.
_MATRICES: Final = {"attn": {"qkv": 1, "dense": 0}, "mlp": {"dense_h_to_4h": 1, "dense_4h_to_h": 0}}
_IGNORED_IN_BLOCK: Final = ("recompute", "output_recompute", "cpu_offload", "sp", "sequence_parallel")
_IGNORED_TOP: Final = ("zero", "recompute_granularity", "recompute_layer_idxs_list", "input", "label")
_TABLES: Final = ("wte", "wpe")
_LAST_NORMS: Final = ("layernorm_final", "rmsnorm_final")


@dataclass(frozen=True, slots=True)
class Block:
    """Layers that lie alike: first .. last, the groups of their union, and of each group how many share operators."""

    first: int
    last: int
    groups: Groups
    tps: tuple[int, ...]
    path: str


def is_hetu_plan(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has one of the roots."""
    return any(isinstance(raw.get(root), Mapping) for root in ROOTS)


def read_hetu_plan(raw: Mapping[str, object], source: str, name: str, num_arrays: int | None = None) -> ParallelPlan:
    """The plan the file describes.

    Args:
        raw: the mapping of the file.
        source: what errors call it.
        name: of the plan.
        num_arrays: unused; the file names its devices.

    Raises:
        InputError: an unknown key, degrees that do not multiply, a device named twice, layers that are skipped or
            repeated, or a tensor that lies in a way we do not follow.
    """
    root = next(root for root in ROOTS if isinstance(raw.get(root), Mapping))
    ignored = _Ignored()
    _check_top(raw, root, source, ignored)
    blocks = _blocks(raw[root], root, source, ignored)
    _check_tables(raw[root], root, blocks[0], source)
    split_vocabulary = _check_head(raw, root, blocks[-1], source)
    members = [_lane(blocks, index) for index in range(len(blocks[0].groups))]
    cp_list = whole_list(raw["cp_list"], "cp_list", source, least=1) if raw.get("cp_list") is not None else None
    plan = ParallelPlan(
        name=name,
        source=source,
        pipelines=pipelines_of(members, cp_list, source),
        split_vocabulary=split_vocabulary,
        unused=_unused(raw, blocks, source),
        num_layers=blocks[-1].last + 1,
        ignored=ignored.lines(),
    )
    return check_plan(plan, source)


class _Ignored:
    """Keys that inference has no use for, each with its first value."""

    def __init__(self) -> None:
        self._found: dict[str, object] = {}

    def add(self, key: str, value: object) -> None:
        """Note the key, once."""
        self._found.setdefault(key, value)

    def lines(self) -> tuple[str, ...]:
        """A line each."""
        return tuple(ignored_line(key, value) for key, value in self._found.items())


def _unknown(key: str, path: str, value: object, known: tuple[str, ...], source: str) -> InputError:
    return InputError("unknown key", source=source, path=path, given=value, hint=did_you_mean(key, known))


def _check_top(raw: Mapping[str, object], root: str, source: str, ignored: _Ignored) -> None:
    known = (root, "lm_head", "devices", "cp_list", *_IGNORED_TOP)
    for key, value in raw.items():
        if isinstance(value, Mapping) and value.get("type") == "placeholder":
            read_tensor(value, key, source)
        elif key in _IGNORED_TOP or key.startswith("lora"):
            ignored.add(key, value)
        elif key not in known:
            raise _unknown(key, key, value, known, source)


def _mapping(raw: Mapping[str, Any], key: str, path: str, source: str) -> Mapping[str, Any]:
    where = f"{path}.{key}"
    value = require(raw, key, source, path=where)
    if isinstance(value, Mapping):
        return value
    raise InputError("not a mapping", source=source, path=where, given=value, expected="a mapping")


def _blocks(raw: Any, root: str, source: str, ignored: _Ignored) -> list[Block]:
    """All blocks in the order of their layers; together they are every layer once, on as many groups each."""
    known = ("blocks", *_TABLES, *_LAST_NORMS)
    for key, value in raw.items():
        if key.startswith("lora"):
            ignored.add(key, value)
        elif key not in known:
            raise _unknown(key, f"{root}.{key}", value, known, source)
    path = f"{root}.blocks"
    entries = _mapping(raw, "blocks", root, source)
    if not entries:
        raise InputError("no blocks", source=source, path=path, given={}, expected="a block for every range of layers")
    blocks = [_block(entry, f"{path}.{key}", source, ignored) for key, entry in entries.items()]
    blocks.sort(key=lambda block: block.first)
    expected = 0
    for block in blocks:
        if block.first != expected:
            verb = "skips to" if block.first > expected else "repeats"
            raise InputError(
                f"{verb} layer {block.first}",
                source=source,
                path=f"{block.path}.range",
                given=[block.first, block.last],
                expected=f"layers from {expected} on",
            )
        expected = block.last + 1
        if len(block.groups) != len(blocks[0].groups):
            raise InputError(
                f"{len(block.groups)} groups",
                source=source,
                path=f"{block.path}.attn.qkv",
                given=[list(group) for group in block.groups],
                expected=f"{len(blocks[0].groups)}, as in {blocks[0].path}",
            )
    return blocks


def _block(entry: Any, path: str, source: str, ignored: _Ignored) -> Block:
    if not isinstance(entry, Mapping):
        raise InputError("not a mapping", source=source, path=path, given=entry, expected="a block of layers")
    known = ("range", *_MATRICES, *_NORMS)
    for key, value in entry.items():
        if key in _IGNORED_IN_BLOCK or key.startswith("lora"):
            ignored.add(key, value)
        elif key not in known:
            raise _unknown(key, f"{path}.{key}", value, (*known, *_IGNORED_IN_BLOCK), source)
    first, last = _range(entry.get("range"), f"{path}.range", source)
    matrices = _matrices(entry, path, source, ignored)
    (leading, dim), *others = matrices
    tps = _shares(leading, dim, source)
    for tensor, other_dim in others:
        _same_groups(tensor, leading.groups, leading.path, source)
        if _shares(tensor, other_dim, source) != tps:
            raise InputError(
                "shared among another number of devices",
                source=source,
                path=f"{tensor.path}.split",
                given=[dict(split) for split in tensor.splits],
                expected=f"{list(tps)} of each group, as in {leading.path}",
            )
    for key in _NORMS:
        if key in entry:
            _same_groups(read_tensor(entry[key], f"{path}.{key}", source), leading.groups, leading.path, source)
    return Block(first, last, leading.groups, tps, path)


def _range(value: object, path: str, source: str) -> tuple[int, int]:
    """The first and last layer; Hetu writes one number for one layer."""
    layers = whole_list([] if value is None else value, path, source)
    if len(layers) in (1, 2) and layers[0] <= layers[-1]:
        return layers[0], layers[-1]
    problem, expected = "not a range of layers", "[first, last] or [layer]"
    raise InputError(problem, source=source, path=path, given=value, expected=expected)


def _matrices(entry: Mapping[str, Any], path: str, source: str, ignored: _Ignored) -> list[tuple[HetuTensor, int]]:
    found = []
    for part, dims in _MATRICES.items():
        inside = _mapping(entry, part, path, source)
        for key, value in inside.items():
            if key.startswith("lora") or key == "activation_func":
                ignored.add(key, value)
            elif key not in dims:
                raise _unknown(key, f"{path}.{part}.{key}", value, tuple(dims), source)
        for key, dim in dims.items():
            found.append(
                (read_tensor(_mapping(inside, key, f"{path}.{part}", source), f"{path}.{part}.{key}", source), dim)
            )
    return found


def _shares(tensor: HetuTensor, dim: int, source: str) -> tuple[int, ...]:
    """Of each group, how many devices share the matrix: its degree in `dim`, which alone may be split."""
    for split in tensor.splits:
        if split.get(1 - dim, 1) != 1:
            raise InputError(
                f"split over dim {1 - dim}",
                source=source,
                path=f"{tensor.path}.split",
                given=dict(split),
                expected=f"dim {dim} alone, as Hetu's layers are",
            )
    shares = tuple(split.get(dim, 1) for split in tensor.splits)
    for share, group in zip(shares, tensor.groups, strict=True):
        if len(group) % share:
            raise InputError(
                f"{share} shares on {len(group)} devices",
                source=source,
                path=f"{tensor.path}.split",
                given=share,
                expected=f"a divisor of {len(group)}",
            )
    return shares


def _same_groups(tensor: HetuTensor, groups: Groups, where: str, source: str) -> None:
    if tensor.groups != groups:
        raise InputError(
            "on other devices",
            source=source,
            path=tensor.path,
            given=[list(group) for group in tensor.groups],
            expected=f"{[list(group) for group in groups]}, as {where}",
        )


def _check_tables(raw: Any, root: str, first: Block, source: str) -> None:
    for key in _TABLES:
        if key in raw:
            _same_groups(read_tensor(raw[key], f"{root}.{key}", source), first.groups, first.path, source)


def _check_head(raw: Mapping[str, Any], root: str, last: Block, source: str) -> bool:
    """Whether the arrays that share the last layer's operators share the LM head, too."""
    for key in _LAST_NORMS:
        if key in raw[root]:
            _same_groups(read_tensor(raw[root][key], f"{root}.{key}", source), last.groups, last.path, source)
    if "lm_head" not in raw:
        return True
    tensor = read_tensor(raw["lm_head"], "lm_head", source)
    _same_groups(tensor, last.groups, last.path, source)
    shares = _shares(tensor, 1, source)
    if shares == last.tps:
        return True
    if set(shares) == {1}:
        return False
    raise InputError(
        "shared among another number of devices than the last layer",
        source=source,
        path="lm_head.split.1",
        given=list(shares),
        expected=f"{list(last.tps)}, as {last.path}, or 1",
    )


def _lane(blocks: list[Block], member: int) -> Lane:
    """The pieces of one member: neighbouring blocks that lie alike are one."""
    pieces: list[Piece] = []
    for block in blocks:
        arrays, tp, count = block.groups[member], block.tps[member], block.last - block.first + 1
        if pieces and pieces[-1].arrays == arrays and pieces[-1].tp == tp:
            before = pieces.pop()
            pieces.append(Piece(arrays, before.first_layer, before.num_layers + count, tp))
        else:
            pieces.append(Piece(arrays, block.first, count, tp))
    return tuple(pieces)


def _unused(raw: Mapping[str, Any], blocks: list[Block], source: str) -> tuple[int, ...]:
    """Devices that no block names."""
    used = {device for block in blocks for group in block.groups for device in group}
    if "devices" not in raw:
        return ()
    devices = distinct(whole_list(raw["devices"], "devices", source), "devices", source, "device")
    strangers = sorted(used.difference(devices))
    if strangers:
        raise InputError(
            f"device {strangers[0]} works and is not listed",
            source=source,
            path="devices",
            given=list(devices),
            expected="every device of every group",
        )
    return tuple(device for device in devices if device not in used)
