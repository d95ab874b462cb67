"""Galvatron's profiles: takes JSON files of measured rates and times, gives them in SI units.

Meaning of the numbers, after Galvatron's `core/profiler/hardware_profiler.py`, `profile_hardware/profile_*.py` and
`utils/config_utils.py` (repository PKU-DAIR/Hetu-Galvatron):

- `allreduce_size_8_1MB_time`, `all2all_size_8_1MB_time`: milliseconds of one collective over 8 devices. 1 MB is 2^20
  bytes: the profiler divides the bytes of nccl-tests by 1024 twice, and `remap_config` multiplies by them again. The
  size is nccl-tests': of an all-reduce the whole buffer, of an all-to-all what one device sends, its own part included.
  (The older script `profile_all2all.py` splits the size over the devices first. Taken so, the published profile's rates
  would fall as 1/n, from 77 to 24 GB/s between 2 and 8 devices. Taken as nccl-tests' they stay between 160 and 200, as
  those of its all-reduces do.)
- `allreduce_size_8_consec_1`: GB/s of bus bandwidth, nccl-tests' "Avg bus bandwidth", 2 (n - 1) / n times bytes / time:
  a mean over sizes with all latencies in it. consec 1: neighbouring devices; 0: strided ones. The published profile
  agrees: 154 GB/s over 8 devices is below the 201 GB/s that its times approach. As bytes / time it would be 270.
  GB is 10^9 bytes, as nccl-tests have it; the older scripts wrote MiB a millisecond, which is 4.9 % more.
- `pp_size_2`: GB/s from a stage to the next one with so many stages; nccl-tests' sendrecv, a mean over sizes too.
- `overlap_coe`: how many times as long communication or computation takes while both run, the larger of the two;
  Galvatron writes no less than 1.
- `layernum[2]_bsz1_seq2048`: milliseconds of computation with 2 layers, a batch of 1 and 2048 tokens. A layer's time is
  the slope over the number of layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pe_sim.config.files.loading import load_mapping
from pe_sim.errors import InputError, did_you_mean

__all__ = ["GalvatronProfiles", "Kind", "LayerTime", "Measurement", "is_galvatron_profile", "load_galvatron_profiles"]

MAX_DEVICES: Final = 2**20
MAX_MEGABYTES: Final = 2**24
MAX_VALUE: Final = 1e9  # GB/s or ms; far above any machine one would build
MIN_VALUE: Final = 1e-9
_NUMBER: Final = "[1-9][0-9]{0,8}"
_TIME: Final = re.compile(rf"(allreduce|all2all)_size_({_NUMBER})_({_NUMBER})MB_time")
_RATE: Final = re.compile(rf"allreduce_size_({_NUMBER})_consec_([01])")
_STAGES: Final = re.compile(rf"pp_size_({_NUMBER})")
_LAYERS: Final = re.compile(rf"layernum\[({_NUMBER}(?:,{_NUMBER})*)\]_bsz({_NUMBER})(?:_seq({_NUMBER}|\[[0-9,]+\]))?")
_DERIVED: Final = re.compile(r"layertype_\w+")  # what Galvatron computes from the layernum keys and keeps beside them
_OVERLAP: Final = "overlap_coe"
_KNOWN: Final = (
    "allreduce_size_8_consec_1",
    "pp_size_2",
    "allreduce_size_8_1MB_time",
    "all2all_size_8_1MB_time",
    _OVERLAP,
    "layernum[2]_bsz1_seq2048",
)

Profile = str | Path | Mapping[str, Any]


class Kind(StrEnum):
    """A kind of measurement: the time of a collective of one size, or a rate alone, which is a mean over sizes."""

    ALL_REDUCE = "all-reduce"
    ALL_TO_ALL = "all-to-all"
    NEIGHBOURS = "all-reduce rate, neighbours"
    STRIDED = "all-reduce rate, strided"
    POINT_TO_POINT = "point-to-point rate"

    @property
    def is_rate(self) -> bool:
        """Whether bytes per second were measured, and not seconds."""
        return self not in (Kind.ALL_REDUCE, Kind.ALL_TO_ALL)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number of a profile.

    Args:
        kind: kind of the measurement.
        devices: number of devices; for point to point, number of stages.
        num_bytes: size of the collective in bytes; None for a rate.
        value: seconds, or bytes per second for a rate.
    """

    kind: Kind
    devices: int
    num_bytes: int | None
    value: float


@dataclass(frozen=True, slots=True)
class LayerTime:
    """The time of one more layer: the least-squares slope of the time over the number of layers.

    Args:
        batch_size, seq_len: of the step; seq_len is None if the key does not tell.
        layers: the numbers of layers that were measured.
        seconds: time of one layer with the whole batch.
    """

    batch_size: int
    seq_len: int | None
    layers: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class GalvatronProfiles:
    """The measurements of several profiles together.

    Args:
        sources: names of the files.
        measurements: ordered by kind, devices and size.
        layer_times: times from profiles of models.
        overlap_coefficient: how many times as long overlapped work takes; None if not measured.
        ignored: keys that were read and are of no use here.
    """

    sources: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    layer_times: tuple[LayerTime, ...]
    overlap_coefficient: float | None
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A value and the file it came from."""

    value: float
    source: str


def is_galvatron_profile(raw: Mapping[str, Any]) -> bool:
    """Whether a file's mapping has a key of Galvatron's profiles."""
    return any(_is_known(key) for key in raw)


def load_galvatron_profiles(profiles: Profile | Iterable[Profile]) -> GalvatronProfiles:
    """The measurements of several profiles, merged.

    Args:
        profiles: paths of JSON or YAML files, or the mappings of such files; or one of them.

    Raises:
        InputError: no file is given, a file cannot be read or has no entry, a key is unknown, a value is no positive
            finite number, or two files give a key different values.
    """
    if isinstance(profiles, str | Path | Mapping):
        profiles = [profiles]
    found: dict[str, _Found] = {}
    sources: list[str] = []
    for index, profile in enumerate(profiles):
        raw, source = _read(profile, index)
        sources.append(source)
        for key, value in raw.items():
            _merge(found, key, _Found(_checked(key, value, source), source))
    if not sources:
        raise InputError("no profile is given", path="profiles", expected="at least one file of Galvatron's profilers")
    layer_times, unused = _layer_times({key: entry for key, entry in found.items() if _LAYERS.fullmatch(key)})
    overlap = found.get(_OVERLAP)
    derived = [key for key in found if _DERIVED.fullmatch(key)]
    return GalvatronProfiles(
        tuple(sources),
        tuple(sorted(_measurements(found), key=_order)),
        layer_times,
        overlap.value if overlap else None,
        tuple(key for key in found if key in {*derived, *unused}),
    )


def _read(profile: object, index: int) -> tuple[Mapping[str, Any], str]:
    """The mapping of a file, checked to have entries, and its name for messages."""
    if isinstance(profile, Mapping):
        raw, source = profile, f"profile {index + 1}"
    elif isinstance(profile, str | Path):
        raw, source = load_mapping(Path(profile)), str(profile)
    else:
        raise InputError("not a profile", given=profile, expected="a path, or a file's mapping")
    if not raw:
        raise InputError("the profile has no entry", source=source, expected=f"keys as {', '.join(_KNOWN)}")
    return raw, source


def _merge(found: dict[str, _Found], key: str, entry: _Found) -> None:
    before = found.setdefault(key, entry)
    if before.value != entry.value:
        raise InputError(
            "two profiles contradict each other",
            source=entry.source,
            path=key,
            given=entry.value,
            expected=f"{before.value!r}, as {before.source} has it",
            hint="give one of the two files, or files of one machine",
        )


def _is_known(key: object) -> bool:
    patterns = (_TIME, _RATE, _STAGES, _LAYERS, _DERIVED)
    return isinstance(key, str) and (key == _OVERLAP or any(pattern.fullmatch(key) for pattern in patterns))


def _checked(key: object, value: object, source: str) -> float:
    """The value of an entry, with key and value checked."""
    if not _is_known(key):
        hint = did_you_mean(str(key), _KNOWN)
        raise InputError("unknown key of a Galvatron profile", source=source, path=str(key), given=value, hint=hint)
    key = str(key)
    _check_place(key, source)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("not a number", source=source, path=key, given=value, expected=_expected(key))
    if not -math.inf < value < math.inf:  # math.isfinite fails for integers beyond a double
        raise InputError("not a finite number", source=source, path=key, given=value, expected=_expected(key))
    low = 1.0 if key == _OVERLAP else MIN_VALUE
    if not low <= value <= MAX_VALUE:
        problem = "too small" if value < low else "too large"
        raise InputError(problem, source=source, path=key, given=value, expected=_expected(key))
    return float(value)


def _check_place(key: str, source: str) -> None:
    """Checks the number of devices and the size inside a key."""
    time, rate = _TIME.fullmatch(key), _RATE.fullmatch(key) or _STAGES.fullmatch(key)
    devices = int(time[2]) if time else int(rate[1]) if rate else 2
    if not 2 <= devices <= MAX_DEVICES:
        expected = f"2 to {MAX_DEVICES:,} devices"
        raise InputError("no number of devices that exchange anything", source=source, path=key, expected=expected)
    if time and int(time[3]) > MAX_MEGABYTES:
        raise InputError("too large a size", source=source, path=key, expected=f"at most {MAX_MEGABYTES:,} MB")


def _expected(key: str) -> str:
    if key == _OVERLAP:
        return f"a factor from 1 to {MAX_VALUE:g}: how many times as long what overlaps takes"
    unit = "GB/s" if _RATE.fullmatch(key) or _STAGES.fullmatch(key) else "milliseconds"
    return f"{unit}, a number from {MIN_VALUE:g} to {MAX_VALUE:g}"


def _measurements(found: Mapping[str, _Found]) -> list[Measurement]:
    made = []
    for key, entry in found.items():
        if match := _TIME.fullmatch(key):
            kind = Kind.ALL_REDUCE if match[1] == "allreduce" else Kind.ALL_TO_ALL
            made.append(Measurement(kind, int(match[2]), int(match[3]) * 2**20, entry.value / 1e3))
        elif match := _RATE.fullmatch(key):
            kind = Kind.NEIGHBOURS if match[2] == "1" else Kind.STRIDED
            made.append(Measurement(kind, int(match[1]), None, entry.value * 1e9))
        elif match := _STAGES.fullmatch(key):
            made.append(Measurement(Kind.POINT_TO_POINT, int(match[1]), None, entry.value * 1e9))
    return made


def _order(measured: Measurement) -> tuple[int, int, int]:
    return list(Kind).index(measured.kind), measured.devices, measured.num_bytes or 0


def _layer_times(found: Mapping[str, _Found]) -> tuple[tuple[LayerTime, ...], set[str]]:
    """Layer times by batch and length, and the keys of no use: those of several layer types, or without a second."""
    groups: dict[tuple[int, int | None], dict[int, str]] = {}
    unused: set[str] = set()
    for key in found:
        match = _LAYERS.fullmatch(key)
        if match is None or "," in match[1] or (match[3] or "").startswith("["):
            unused.add(key)
            continue
        groups.setdefault((int(match[2]), int(match[3]) if match[3] else None), {})[int(match[1])] = key
    times = []
    for (batch_size, seq_len), keys in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or 0)):
        layers = sorted(keys)
        if len(layers) == 1:
            unused.add(keys[layers[0]])
            continue
        seconds = _slope(layers, [found[keys[count]].value / 1e3 for count in layers])
        if seconds <= 0:
            first, last = keys[layers[0]], keys[layers[-1]]
            raise InputError(
                f"more layers do not take longer than {first} has it",
                source=found[last].source,
                path=last,
                given=found[last].value,
                expected="times that grow with the number of layers",
            )
        times.append(LayerTime(batch_size, seq_len, tuple(layers), seconds))
    return tuple(times), unused


def _slope(layers: Sequence[int], seconds: Sequence[float]) -> float:
    """The least-squares slope of seconds over layers."""
    middle, level = sum(layers) / len(layers), math.fsum(seconds) / len(seconds)
    above = math.fsum((count - middle) * (time - level) for count, time in zip(layers, seconds, strict=True))
    return above / math.fsum((count - middle) ** 2 for count in layers)
