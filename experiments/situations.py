"""Which workflow is best for which batch and context, on which array, and what does the searched mapping gain?

First a map: one decode step for every batch and context under every named workflow, as regions of the fastest one, with
what it saves beside megatron. Then the situations that come with pe-sim (`pe-sim situations`), prompts and answers
together, under every named workflow and under the searched mapping. What does not fit the memories is marked, with what
comes nearest to fitting.

Writes the map as a table (situations_map.csv) and as pictures (PNG and SVG, one a model), and the situations as a table
(situations_search.csv); all are committed as references under experiments/results.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

import pe_sim as ps
from experiments import situations_tables as tables
from experiments.situations_map import Spot, spots_of
from experiments.situations_plot import draw
from experiments.situations_search import SIMULATIONS, TAKEN, Served, serve_all
from pe_sim.errors import InputError

RESULTS = Path(__file__).parent / "results"
MAP_NAME, SEARCH_NAME = "situations_map", "situations_search"
MODELS = "llama-2-7b,llama-3-8b"
ARRAYS = "bus-tree-64,bus-tree-256,bus-tree-1024,bus-tree-4096"
SITUATIONS = "one-short,one-long,batch-short,batch-long,mixed"
BATCHES = tuple(2**power for power in range(11))
CONTEXTS = tuple(2**power for power in range(7, 16))
QUICK = {"models": "llama-2-7b", "arrays": "bus-tree-64,bus-tree-256", "situations": "one-short"}
QUICK_BATCHES, QUICK_CONTEXTS = (1, 8, 64), (128, 2048, 32768)

Progress = Callable[[str], None]
_Result = TypeVar("_Result")


def spots(
    models: Sequence[str],
    arrays: Sequence[str],
    batches: Sequence[int],
    contexts: Sequence[int],
    jobs: int = 1,
    progress: Progress = lambda text: None,
) -> list[Spot]:
    """The maps of every model on every array, in that order."""
    tasks = {f"{model} on {array}": (model, array, batches, contexts) for model in models for array in arrays}
    return [spot for found in _in_parallel(spots_of, tasks, jobs, progress) for spot in found]


def served(
    models: Sequence[str],
    arrays: Sequence[str],
    situations: Sequence[str],
    jobs: int = 1,
    progress: Progress = lambda text: None,
) -> list[Served]:
    """Every situation under all mappings, on every array."""
    cases = [(model, array, name) for model in models for array in arrays for name in situations]
    tasks = {f"{model} on {array}, {name}": (model, array, name) for model, array, name in cases}
    return [each for found in _in_parallel(serve_all, tasks, jobs, progress) for each in found]


def _in_parallel(
    act: Callable[..., _Result], tasks: Mapping[str, tuple[object, ...]], jobs: int, progress: Progress
) -> Iterator[_Result]:
    """The results in the order of the tasks."""
    began = time.perf_counter()
    if jobs == 1:
        for label, given in tasks.items():
            yield act(*given)
            progress(f"{label} ({time.perf_counter() - began:.0f} s)")
        return
    with ProcessPoolExecutor(jobs) as pool:
        futures = {pool.submit(act, *given): label for label, given in tasks.items()}
        for future in as_completed(futures):
            progress(f"{futures[future]} ({time.perf_counter() - began:.0f} s)")
        for future in futures:
            yield future.result()


def read_options() -> argparse.Namespace:
    """What the user asks for, its lists split and checked."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.situations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""The map: batches of {BATCHES[0]} to {BATCHES[-1]:,} sequences, contexts of {CONTEXTS[0]} to
{CONTEXTS[-1]:,} tokens, powers of two. Models are given as many positions as that takes. batch-lockstep is megatron
under another name there, and left out. block-pipeline is simulated where it may be the best (">=" in the table: it
takes at least that), and for more than 3 sequences continued in a straight line from 2 and 3 ("~").
The situations: each phase is searched by itself for one sequence, with {SIMULATIONS} simulations. "searched" is what
takes least for all steps together: of the {TAKEN} best mappings of each search, in any number of groups of PEs, and the
named workflows.

For instance:
  python -m experiments.situations --quick --no-files
  python -m experiments.situations --models llama-3.2-1b --arrays bus-tree-64 --out /tmp
  python -m experiments.situations --draw-only     (the pictures anew, from the table of the map)""",
    )
    parser.add_argument("--models", metavar="A,B", help=f"models ({MODELS})")
    parser.add_argument("--arrays", metavar="A,B", help=f"arrays ({ARRAYS})")
    parser.add_argument("--situations", metavar="A,B", help=f"situations that are searched for ({SITUATIONS})")
    parser.add_argument("--quick", action="store_true", help="a small part of it, in seconds")
    parser.add_argument("--no-search", action="store_true", help="only the map")
    parser.add_argument("--no-map", action="store_true", help="only the situations")
    parser.add_argument("--draw-only", action="store_true", help="only the pictures, from the CSV in the folder")
    parser.add_argument("--jobs", type=int, default=2, metavar="J", help="processes (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the files (experiments/results)")
    parser.add_argument("--no-files", action="store_true", help="only print the tables")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least 1")
    for name, full in (("models", MODELS), ("arrays", ARRAYS), ("situations", SITUATIONS)):
        given = getattr(options, name) or (QUICK[name] if options.quick else full)
        setattr(options, name, given.split(","))
    options.batches = QUICK_BATCHES if options.quick else BATCHES
    options.contexts = QUICK_CONTEXTS if options.quick else CONTEXTS
    return options


def run(options: argparse.Namespace) -> None:
    """Simulates, prints and writes.

    Raises:
        InputError: a model, an array or a situation that does not exist.
    """
    for model in options.models:
        ps.load_model(model)
    for array in options.arrays:
        ps.load_array(array)
    situations = [ps.load_situation(name) for name in options.situations]
    if not options.no_files:
        options.out.mkdir(parents=True, exist_ok=True)
    map_path, search_path = options.out / f"{MAP_NAME}.csv", options.out / f"{SEARCH_NAME}.csv"

    def progress(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    if not options.no_map or options.draw_only:
        if options.draw_only:
            found = tables.read_map(map_path)
        else:
            found = spots(options.models, options.arrays, options.batches, options.contexts, options.jobs, progress)
            print(tables.findings(found), flush=True)
        if not options.no_files:
            if not options.draw_only:
                tables.write_map(found, map_path)
            for model in dict.fromkeys(spot.model for spot in found):
                pictures = [options.out / f"{MAP_NAME}_{model}.{kind}" for kind in ("png", "svg")]
                draw(found, model, situations, pictures)
    if not options.no_search and not options.draw_only:
        cases = served(options.models, options.arrays, options.situations, options.jobs, progress)
        print("", tables.format_situations(cases), sep="\n")
        if not options.no_files:
            tables.write_situations(cases, search_path)


def main() -> None:
    """The command."""
    try:
        run(read_options())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
