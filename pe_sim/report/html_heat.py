"""PEs as a grid of colours: takes a report, gives how busy each PE was and the bytes it holds and reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pe_sim.report.channels import distinct_stages
from pe_sim.report.report import Report
from pe_sim.schedule.stages import PeStage
from pe_sim.units import format_bytes

# From pale to dark in one hue, so that lightness alone tells, in print as well.
_STOPS: Final = ((247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tile:
    """Neighbours in a row of the grid that show the same: a rectangle in cells."""

    column: int
    row: int
    width: int
    colour: str
    text: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A grid of PEs, PE 0 at the upper left, row after row; the colours go from 0 to `scale`."""

    title: str
    summary: str
    num_columns: int
    num_rows: int
    tiles: tuple[Tile, ...]
    scale: str


def scale_colours(steps: int = 16) -> tuple[str, ...]:
    """Colours from 0 to the most."""
    return tuple(_colour(step / (steps - 1)) for step in range(steps))


def heat_maps(report: Report) -> tuple[HeatMap, ...]:
    """Busy memory ports, matrix and vector units; bytes that are held, and read in this step."""
    elapsed = max(report.latency_cycles, 1)
    busy = {
        "memory port busy": "pe_memory",
        "matrix unit busy": "pe_matrix",
        "vector unit busy": "pe_vector",
    }
    maps = [_heat_map(title, report.trace.pe_busy[unit] / elapsed, 1.0, _percent) for title, unit in busy.items()]
    held = report.footprint.weight_bytes_per_pe + report.footprint.kv_cache_bytes_per_pe
    capacity = float(report.footprint.capacity_bytes)
    maps.append(_heat_map("weights and KV cache held", held.astype(np.float64), capacity, format_bytes))
    streamed = _streamed(report)
    maps.append(_heat_map("streamed by matrix operators", streamed, float(streamed.max()), format_bytes))
    return tuple(maps)


def _streamed(report: Report) -> FloatArray:
    """(PEs,) bytes that matrix operators read from the local memory."""
    num_bytes = np.zeros(report.array.num_pes)
    for stage, repeats in distinct_stages(report.schedule):
        if isinstance(stage, PeStage) and stage.matrix is not None:
            num_bytes += repeats * np.where(stage.active, stage.matrix.read_bytes, 0)
    return num_bytes


def _heat_map(title: str, values: FloatArray, scale: float, text_of: Callable[[float], str]) -> HeatMap:
    """Coloured from 0 to `scale`."""
    columns = math.ceil(math.sqrt(len(values)))
    most, least, mean = float(values.max()), float(values.min()), float(values.mean())
    alike = text_of(least) == text_of(most)
    summary = f"all PEs {text_of(most)}" if alike else f"{text_of(least)} to {text_of(most)}, mean {text_of(mean)}"
    texts = [text_of(value) for value in values.tolist()]
    shades = [_colour(value / scale if scale > 0 else 0.0) for value in values.tolist()]
    tiles = tuple(_tiles(texts, shades, columns))
    return HeatMap(title, summary, columns, math.ceil(len(values) / columns), tiles, text_of(scale))


def _tiles(texts: list[str], shades: list[str], columns: int) -> Iterator[Tile]:
    first = 0
    for pe in range(1, len(texts) + 1):
        row_ends = pe % columns == 0
        if pe == len(texts) or row_ends or texts[pe] != texts[first]:
            name = f"PE {first}" if pe == first + 1 else f"PEs {first}-{pe - 1}"
            yield Tile(first % columns, first // columns, pe - first, shades[first], f"{name}: {texts[first]}")
            first = pe


def _colour(share: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(_STOPS) - 1)
    below = min(int(place), len(_STOPS) - 2)
    mixed = (a + (b - a) * (place - below) for a, b in zip(_STOPS[below], _STOPS[below + 1], strict=True))
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def _percent(share: float) -> str:
    return f"{share:.1%}"
