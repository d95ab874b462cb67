"""Colours of pictures and pages, distinct with any colour vision; the same thing has the same colour everywhere."""

from __future__ import annotations

from typing import Final

from pe_sim.schedule.stages import Tag

# Okabe and Ito's palette, for messages.
TAG_COLOURS: dict[str, str] = {
    Tag.BROADCAST.value: "#0072B2",
    Tag.MULTICAST.value: "#56B4E9",
    Tag.SCATTER.value: "#009E73",
    Tag.GATHER.value: "#CC79A7",
    Tag.ALL_GATHER.value: "#D55E00",
    Tag.ALL_TO_ALL.value: "#E69F00",
    Tag.REDUCE.value: "#000000",
    Tag.UNICAST.value: "#F0E442",
    Tag.WEIGHT_STREAM.value: "#999999",
}

# Paul Tol's light palette and greys, for work: paler than messages, so that those stand out beside it.
KIND_COLOURS: Final[dict[str, str]] = {
    "memory": "#A9B8CC",
    "compute": "#EE8866",
    "vector": "#EEDD88",
    "root": "#FFAABB",
    "bus": "#0072B2",
    "tree": "#000000",
    "downlink": "#56B4E9",
    "network": "#CC79A7",
    "wait": "#DDDDDD",
}

# Paul Tol's light palette, in an order in which neighbours differ: microbatches, which follow one another.
MICROBATCH_COLOURS: Final[tuple[str, ...]] = (
    "#77AADD",
    "#EE8866",
    "#44BB99",
    "#EEDD88",
    "#FFAABB",
    "#99DDFF",
    "#BBCC33",
    "#AAAA00",
)
