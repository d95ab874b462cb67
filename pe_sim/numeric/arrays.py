"""Array types, and the faults of a placed graph that does not compute what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pe_sim.errors import InputError, PeSimError, did_you_mean

Array = npt.NDArray[Any]  # float32 or float64 values, or candidates of an argmax

DTYPES = ("float32", "float64")
NO_INDEX = np.iinfo(np.int32).max  # of a candidate among no elements


class PlacementError(PeSimError):
    """A placed graph that cannot be executed: a value is missing, or is not where its placement says."""


def float_dtype(name: str) -> np.dtype[Any]:
    """The dtype everything is computed and accumulated in.

    Raises:
        InputError: neither float32 nor float64.
    """
    if name not in DTYPES:
        expected = " or ".join(DTYPES)
        raise InputError("no such dtype", path="dtype", given=name, expected=expected, hint=did_you_mean(name, DTYPES))
    return np.dtype(name)


def candidate_dtype(values: np.dtype[Any]) -> np.dtype[Any]:
    """A (value, index) pair of an argmax."""
    return np.dtype([("value", values), ("index", np.int32)])
