"""Reads weights: takes a state dict or a safetensors path, gives the model's weights, checked tensor by tensor."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pe_sim.config.model import ModelConfig
from pe_sim.errors import InputError
from pe_sim.numeric.arrays import Array, float_dtype
from pe_sim.numeric.families import READERS, Shape, WeightReader
from pe_sim.numeric.safetensors_files import open_safetensors
from pe_sim.numeric.weights import ModelWeights

Source = Mapping[str, Any] | str | Path


def read_weights(model: ModelConfig, source: Source, dtype: str = "float32") -> ModelWeights:
    """The weights of `model`.

    Args:
        source: a state dict (Hugging Face name -> anything NumPy can convert), a .safetensors file, or a folder
            with model.safetensors or model.safetensors.index.json. Names may lack or carry the prefix of the bare
            model (`model.`, `transformer.`, `bert.`). Tensors that are not needed are listed in `ignored`.
        dtype: float32 or float64, what they are converted to.

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
        """What was given and is neither needed nor known to be of no use."""
        rest = (str(name) for name in self.tensors if name not in self.used)
        return tuple(sorted(name for name in rest if not name.endswith(self.reader.known_endings)))

    def _spellings(self, name: str) -> Iterator[str]:
        """The names a tensor may have: as it is, with or without the prefix, with an old ending."""
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
        """A framework's tensor that NumPy cannot take as it is: on another device, tracked, or of bf16."""
        try:
            return np.asarray(given.detach().cpu().float())
        except (AttributeError, TypeError, ValueError, RuntimeError):
            raise self._not_numbers(name, type(given).__name__) from None

    def _not_numbers(self, name: str, given: object) -> InputError:
        expected = "an array of floating point numbers"
        return InputError(
            "this weight is not of numbers", source=self.source, path=name, given=str(given), expected=expected
        )
