"""Reading of weights: takes a state dict or a safetensors path, gives weights, checked tensor by tensor."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pe_sim.config.files.loading import load_mapping
from pe_sim.config.models.model import ModelConfig
from pe_sim.errors import InputError
from pe_sim.numeric.arrays import Array, float_dtype
from pe_sim.numeric.families import READERS, Shape, WeightReader
from pe_sim.numeric.weights import ModelWeights

Source = Mapping[str, Any] | str | Path


def read_weights(model: ModelConfig, source: Source, dtype: str = "float32") -> ModelWeights:
    """The weights of `model`, read from a source.

    Args:
        source: a state dict (Hugging Face name -> anything NumPy can convert), a .safetensors file, or a folder
            with model.safetensors or model.safetensors.index.json. Names may lack or carry the prefix of the bare
            model (`model.`, `transformer.`, `bert.`). Tensors that are not needed are listed in `ignored`.
        dtype: float32 or float64, to which they are converted.

    Raises:
        InputError: a tensor is missing, has another shape, or is not of numbers; the path holds no weights.
    """
    if isinstance(source, Mapping):
        tensors: Mapping[str, Any] = source
        called = "weights"
    elif isinstance(source, str | Path):
        tensors, called = open_safetensors(Path(source)), str(source)
    else:
        expected = "a mapping from tensor names to arrays, or a safetensors path"
        raise InputError("these are no weights", path="weights", given=type(source).__name__, expected=expected)
    reader = READERS[model.family]
    taker = _Taker(tensors, reader.shapes(model), reader, float_dtype(dtype), called)
    return replace(reader.assemble(model, taker.take), ignored=taker.leftovers())


def state_dict_shapes(model: ModelConfig) -> dict[str, Shape]:
    """Every tensor of the model's Hugging Face state dict (of the class with its head) and its shape."""
    return READERS[model.family].shapes(model)


def random_weights(model: ModelConfig, seed: int) -> dict[str, Array]:
    """A float32 state dict of the model, drawn so that activations neither die nor explode."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in state_dict_shapes(model).items():
        drawn = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 2:
            drawn /= math.sqrt(model.hidden_size)
        else:
            drawn *= 0.2
            drawn += not name.endswith(".bias")  # a norm's gain is around 1
        weights[name] = drawn
    return weights


@dataclass
class _Taker:
    tensors: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    reader: WeightReader
    dtype: np.dtype[Any]
    source: str
    used: set[str] = field(default_factory=set)

    def take(self, name: str) -> Array:
        """The tensor of that name in the run's dtype."""
        found = next((other for other in self._spellings(name) if other in self.tensors), None)
        shape = self.shapes[name]
        if found is None:
            near = difflib.get_close_matches(name, [str(key) for key in self.tensors], n=1, cutoff=0.8)
            hint = f"the nearest of the {len(self.tensors)} given is {near[0]!r}" if near else None
            raise InputError(
                "this weight is missing",
                source=self.source,
                path=name,
                expected=f"an array of shape {shape}",
                hint=hint,
            )
        self.used.add(found)
        array = self._convert(found)
        if array.shape != shape:
            raise InputError(
                "this weight has the wrong shape",
                source=self.source,
                path=found,
                given=array.shape,
                expected=str(shape),
            )
        return array.astype(self.dtype, copy=False)

    def leftovers(self) -> tuple[str, ...]:
        """Names of tensors that were given and are neither needed nor known to be of no use."""
        rest = (str(name) for name in self.tensors if name not in self.used)
        return tuple(sorted(name for name in rest if not name.endswith(self.reader.known_endings)))

    def _spellings(self, name: str) -> Iterator[str]:
        """The names that a tensor may have: as it is, with or without the prefix, with an old ending."""
        prefix = self.reader.prefix
        other = name.removeprefix(prefix) if name.startswith(prefix) else prefix + name
        for spelling in (name, other):
            yield spelling
            for new, old in self.reader.old_endings:
                if spelling.endswith(new):
                    yield spelling.removesuffix(new) + old

    def _convert(self, name: str) -> Array:
        given = self.tensors[name]
        try:
            array = np.asarray(given)
        except (TypeError, ValueError, RuntimeError):
            array = self._convert_tensor(name, given)
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise self._not_numbers(name, array.dtype)
        return array

    def _convert_tensor(self, name: str, given: Any) -> Array:
        """The array of a framework's tensor that NumPy cannot take as it is: on another device, tracked, or of bf16."""
        try:
            return np.asarray(given.detach().cpu().float())
        except (AttributeError, TypeError, ValueError, RuntimeError):
            raise self._not_numbers(name, type(given).__name__) from None

    def _not_numbers(self, name: str, given: object) -> InputError:
        expected = "an array of floating point numbers"
        return InputError(
            "this weight is not of numbers", source=self.source, path=name, given=str(given), expected=expected
        )


# ---- Safetensors: a file or a folder of shards as a mapping from tensor name to array, read on demand.


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
    """The header's entries by tensor name, and the offset of the data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, _HEADER_LENGTH_BYTES + length
