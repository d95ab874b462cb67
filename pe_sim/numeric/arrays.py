"""Array types, vector functions on them, and the error of placed graphs that cannot be executed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pe_sim.config.models.model import ModelConfig
from pe_sim.errors import InputError, PeSimError, did_you_mean

Array = npt.NDArray[Any]  # float32 or float64 values, or candidates of an argmax

DTYPES = ("float32", "float64")
NO_INDEX = np.iinfo(np.int32).max  # the index of a candidate where there are no elements


class PlacementError(PeSimError):
    """A placed graph that cannot be executed: a value is missing, or is not where its placement says."""


def float_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of this name, in which everything is computed and accumulated.

    Raises:
        InputError: neither float32 nor float64.
    """
    if name not in DTYPES:
        expected = " or ".join(DTYPES)
        raise InputError("no such dtype", path="dtype", given=name, expected=expected, hint=did_you_mean(name, DTYPES))
    return np.dtype(name)


def candidate_dtype(values: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a candidate of an argmax: a (value, index) pair."""
    return np.dtype([("value", values), ("index", np.int32)])


# ---- Vector functions on arrays of (rows, columns), in the dtype they are given.


_ERF = np.vectorize(math.erf, otypes=[np.float64])


def erf(values: Array) -> Array:
    """The error function of every element; NumPy has none."""
    result: Array = _ERF(values).astype(values.dtype)
    return result


def gelu(values: Array) -> Array:
    """GELU with the error function."""
    result: Array = values * values.dtype.type(0.5) * (1 + erf(values * values.dtype.type(math.sqrt(0.5))))
    return result


def gelu_tanh(values: Array) -> Array:
    """GELU by its tanh approximation, as GPT-2 has it."""
    factor = values.dtype.type(math.sqrt(2 / math.pi))
    inner = factor * (values + values.dtype.type(0.044715) * values * values * values)
    result: Array = values.dtype.type(0.5) * values * (1 + np.tanh(inner))
    return result


def silu(values: Array) -> Array:
    """x / (1 + exp(-x)), without overflow for large negative x."""
    shrunk = np.exp(-np.abs(values))
    result: Array = values * np.where(values >= 0, 1 / (1 + shrunk), shrunk / (1 + shrunk))
    return result


def rope_frequencies(model: ModelConfig) -> Array:
    """(head_dim / 2,) float64 radians per position of each rotary pair, scaled as the model asks."""
    exponents = np.arange(0, model.head_dim, 2, dtype=np.float64) / model.head_dim
    plain: Array = model.rope_theta**-exponents
    scaling = model.rope_scaling
    kind = scaling.get("rope_type", "default")
    if kind == "linear":
        return plain / float(scaling["factor"])
    if kind == "llama3":
        return _llama3_frequencies(plain, scaling)
    return plain


def _llama3_frequencies(plain: Array, scaling: Mapping[str, float | int | str]) -> Array:
    """Frequencies with LLaMA 3's scaling: low ones divided by the factor, high ones kept, the band between blended."""
    factor, low, high = (float(scaling[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = float(scaling["original_max_position_embeddings"])
    turns = original * plain / (2 * math.pi)  # turns of each pair over the original context
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    result: Array = (1 - blend) * plain / factor + blend * plain
    return result
