"""Which workflow is best for which batch and context, on which array?

A map: one decode step for every batch and context under every named workflow, as regions of the fastest one, with what
it saves beside megatron. What does not fit the memories is marked, with what comes nearest to fitting.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

import pe_sim as ps
from experiments import situations_tables as tables
from experiments.options import names
from experiments.parallel import in_order
from experiments.situations_map import Spot, spots_of
from experiments.situations_plot import draw
from experiments.study import Ask, Study, main

NAME: Final = "situations"
MODELS: Final = ("llama-2-7b", "llama-3-8b")
ARRAYS: Final = ("bus-tree-64", "bus-tree-256", "bus-tree-1024", "bus-tree-4096")
SITUATIONS: Final = ("one-short", "one-long", "batch-short", "batch-long", "mixed")
BATCHES: Final = tuple(2**power for power in range(11))
CONTEXTS: Final = tuple(2**power for power in range(7, 16))
QUICK_MODELS, QUICK_ARRAYS = MODELS[:1], ARRAYS[:2]
QUICK_BATCHES, QUICK_CONTEXTS = (1, 8, 64), (128, 2048, 32768)


def spots(
    models: Sequence[str], arrays: Sequence[str], batches: Sequence[int], contexts: Sequence[int], ask: Ask
) -> list[Spot]:
    """The maps of every model on every array, in that order."""
    tasks = {f"{model} on {array}": (model, array, batches, contexts) for model in models for array in arrays}
    return [spot for found in in_order(spots_of, tasks, ask) for spot in found]


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each model, array, batch and context: the fastest workflow, and the cycles of every one."""
    models = ask.options.models or (QUICK_MODELS if ask.quick else MODELS)
    arrays = ask.options.arrays or (QUICK_ARRAYS if ask.quick else ARRAYS)
    batches, contexts = (QUICK_BATCHES, QUICK_CONTEXTS) if ask.quick else (BATCHES, CONTEXTS)
    for model in models:
        ps.load_model(model)
    for array in arrays:
        ps.load_array(array)
    return tables.map_table(spots(models, arrays, batches, contexts, ask))


def findings(table: pd.DataFrame) -> str:
    """Who wins how much of each map."""
    return tables.findings(tables.spots_in(table))


def figures(table: pd.DataFrame) -> Mapping[str, Figure]:
    """A picture for each model; the situations of the package are marked on it."""
    found = tables.spots_in(table)
    situations = [ps.load_situation(name) for name in SITUATIONS]
    return {f"map_{model}": draw(found, model, situations) for model in dict.fromkeys(spot.model for spot in found)}


def options(parser: argparse.ArgumentParser) -> None:
    """Other models and arrays."""
    parser.add_argument("--models", type=names, metavar="A,B", help=f"models ({','.join(MODELS)})")
    parser.add_argument("--arrays", type=names, metavar="A,B", help=f"arrays ({','.join(ARRAYS)})")


STUDY: Final = Study(
    NAME,
    __doc__,
    f"""Batches of {BATCHES[0]} to {BATCHES[-1]:,} sequences, contexts of {CONTEXTS[0]} to {CONTEXTS[-1]:,} tokens,
powers of two. Models are given as many positions as that takes. batch-lockstep is megatron under another name here, and
left out.
block-pipeline is simulated where it may be the best (else the table has `at_least`, what it takes at least), and for
more than 3 sequences continued in a straight line from 2 and 3 (`continued`).
What a searched mapping gains over the named ones: python -m experiments.situations_search.

For instance:
  python -m experiments.situations --quick
  python -m experiments.situations --models llama-3.2-1b --arrays bus-tree-64
  python -m experiments.situations --plot-only   (the pictures anew, from the table)""",
    compute,
    findings,
    figures,
    options,
)

if __name__ == "__main__":
    main(STUDY)
