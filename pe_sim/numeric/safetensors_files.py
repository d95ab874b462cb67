"""Reads safetensors: takes a file or a folder of shards, gives a mapping from tensor name to array, read on demand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pe_sim.config.loading import load_mapping
from pe_sim.errors import InputError
from pe_sim.numeric.arrays import Array

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_HEADER_LENGTH_BYTES = 8
_WIDENED = "BF16"  # NumPy has no such type: its 16 bits are the upper half of a float32
_PLAIN = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


class SafetensorsFile(Mapping[str, Array]):
    """The tensors of one file; bf16 comes widened to float32.

    Raises:
        InputError: the file cannot be read or is no safetensors file; on access, a dtype that is no float.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with safe_open(path, framework="numpy"):  # checks header, offsets and length
                pass
            self._header, self._data_start = _read_header(path)
        except (OSError, SafetensorError, ValueError) as error:
            raise InputError(f"not a readable safetensors file: {error}", source=str(path)) from None

    def __getitem__(self, name: str) -> Array:
        entry = self._header[name]
        kind, shape = entry["dtype"], tuple(entry["shape"])
        if kind != _WIDENED and kind not in _PLAIN:
            expected = ", ".join((*_PLAIN, _WIDENED))
            problem = "weights of this dtype are not supported"
            raise InputError(problem, source=str(self._path), path=name, given=kind, expected=expected)
        raw = np.dtype("<u2" if kind == _WIDENED else _PLAIN[kind])
        first, last = entry["data_offsets"]
        flat = np.fromfile(self._path, dtype=raw, count=(last - first) // raw.itemsize, offset=self._data_start + first)
        if kind == _WIDENED:
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)


class ShardedFiles(Mapping[str, Array]):
    """The tensors of several files, found by an index (tensor name -> file)."""

    def __init__(self, index: Path) -> None:
        try:
            self._file_of = dict(load_mapping(index)["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            problem = f"not a readable index of shards: {error!r}"
            raise InputError(problem, source=str(index), expected="JSON with a weight_map") from None
        for tensor, name in self._file_of.items():
            if not isinstance(name, str) or name != Path(name).name or name in ("", ".."):
                raise InputError(
                    "not the name of a shard",
                    source=str(index),
                    path=f"weight_map.{tensor}",
                    given=name,
                    expected="the name of a file in the folder of the index",
                )
        self._files = {name: SafetensorsFile(index.parent / name) for name in sorted(set(self._file_of.values()))}
        self._index = index

    def __getitem__(self, name: str) -> Array:
        file_name = self._file_of[name]
        if name not in self._files[file_name]:
            problem = f"the index says that {file_name} holds this tensor, but it does not"
            raise InputError(problem, source=str(self._index), path=name)
        return self._files[file_name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def open_safetensors(path: Path) -> Mapping[str, Array]:
    """The tensors of a .safetensors file, or of a folder that holds one or an index of shards.

    Raises:
        InputError: there is none.
    """
    if not path.exists():
        raise InputError("no such file", source=str(path), expected="a .safetensors file, or a folder with one")
    if path.is_file():
        return ShardedFiles(path) if path.name.endswith(".index.json") else SafetensorsFile(path)
    for name, reader in ((INDEX_NAME, ShardedFiles), (SINGLE_NAME, SafetensorsFile)):
        if (path / name).is_file():
            found: Mapping[str, Array] = reader(path / name)
            return found
    expected = f"{SINGLE_NAME} or {INDEX_NAME} in it"
    raise InputError("this folder holds no safetensors weights", source=str(path), expected=expected)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The entries by tensor name, and the offset of the data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, _HEADER_LENGTH_BYTES + length
