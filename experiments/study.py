"""What experiments with a Parquet table share: options, the table's file, pictures as PNG and SVG, and the order of it.

An experiment computes a table and writes it, and draws its pictures from the file alone. So pictures can be drawn anew
without a simulation (`--plot-only`), and whatever they show stands in the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pe_sim._version import __version__
from pe_sim.cli.progress import Progress
from pe_sim.errors import InputError
from pe_sim.studies.store import write_whole
from pe_sim.studies.workers import MAX_JOBS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tell = Callable[[str], None]
ROOT = Path(__file__).resolve().parents[1]
RESULTS, QUICK_RESULTS = ROOT / "experiments" / "results", ROOT / "build" / "experiments"
TABLE = "results.parquet"
_SHARED = ("quick", "jobs", "plot_only", "out")
DPI = 200
# Of a figure's text in points: 7 in print when two columns of 3.5 inches are filled by `WIDTH` inches.
WIDTH = 7.2
STYLE: dict[str, Any] = {
    "font.size": 7.5,
    "axes.titlesize": 8.0,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "figure.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "pe_sim",  # the same picture is the same file
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a run computes.

    Args:
        quick: a small part of it.
        jobs: processes; None: as many as there are usable cores.
        tell: for progress.
        options: the experiment's own, as `Study.options` declares them.
    """

    quick: bool
    jobs: int | None
    tell: Tell
    options: argparse.Namespace = field(default_factory=argparse.Namespace)


def no_options(parser: argparse.ArgumentParser) -> None:
    """Of an experiment that has none of its own."""


def nothing_to_hold(table: pd.DataFrame) -> bool:
    """Of an experiment whose table is not held against anything."""
    return True


@dataclass(frozen=True, slots=True)
class Study:
    """An experiment.

    Args:
        name: of its module, of its folder, and in its table.
        question: what it asks and how, for `--help`.
        notes: what one has to know to read the result, and examples, for `--help`.
        compute: gives the table.
        findings: says what the table shows.
        figures: draws the table; pictures by name.
        options: declares options of its own; each is None, or False, where it is not given.
        holds: whether the table is what it has to be; else the command ends with exit code 1, its files written.
    """

    name: str
    question: str
    notes: str
    compute: Callable[[Ask], pd.DataFrame]
    findings: Callable[[pd.DataFrame], str]
    figures: Callable[[pd.DataFrame], Mapping[str, Figure]]
    options: Callable[[argparse.ArgumentParser], None] = no_options
    holds: Callable[[pd.DataFrame], bool] = nothing_to_hold

    @property
    def schema(self) -> str:
        """What says in a file that it is this experiment's table."""
        return f"pe-sim.experiment.{self.name}/1"


def main(study: Study, arguments: Sequence[str] | None = None) -> None:
    """The command of an experiment; what is wrong with the input is one message and exit code 2."""
    parser = _parser(study)
    options = parser.parse_args(arguments)
    options.own = _own_options(parser, options)
    if options.own and options.plot_only:
        parser.error(f"--plot-only draws the table as it is; --{options.own[0]} is for computing one")
    try:
        _run(study, options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _run(study: Study, options: argparse.Namespace) -> None:
    folder: Path = options.out or (QUICK_RESULTS if options.quick or options.own else RESULTS) / study.name
    path = folder / TABLE
    if not options.plot_only:
        _make_folder(folder)
        with Progress(f"experiments.{study.name}") as tell:
            write_table(study, study.compute(Ask(options.quick, options.jobs, tell, options)), path)
    table = read_table(study, path)
    print(study.findings(table))
    with Progress("drawing"):
        names = [name for picture, drawn in _drawn(study, table).items() for name in _save(drawn, folder, picture)]
    written = names if options.plot_only else [TABLE, *names]
    print(f"wrote {', '.join(written)} in {folder}")
    if not study.holds(table):
        raise SystemExit(1)


def _own_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """The names of the experiment's own options that are given: what comes out is not the study as it is committed."""
    usual = vars(parser.parse_args([]))
    own = [name for name, value in vars(options).items() if name not in _SHARED and value != usual[name]]
    return [name.replace("_", "-") for name in own]


def _parser(study: Study) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{study.name}",
        description=study.question,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=study.notes,
    )
    home, quick_home = (place.relative_to(ROOT) / study.name for place in (RESULTS, QUICK_RESULTS))
    parser.add_argument("--quick", action="store_true", help="a small part of it, in seconds")
    parser.add_argument("--jobs", type=_jobs, metavar="J", help="processes (as many as there are usable cores)")
    parser.add_argument("--plot-only", action="store_true", help=f"only the pictures, from {TABLE} in the folder")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"folder for the files ({home}; of a part of it {quick_home})"
    )
    study.options(parser)
    return parser


def _jobs(given: str) -> int:
    if not (given.isascii() and given.isdecimal() and 1 <= int(given) <= MAX_JOBS):
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number from 1 to {MAX_JOBS}")
    return int(given)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"not a folder for files: {error.strerror or error}", source="--out", given=str(folder)
        ) from None


def write_table(study: Study, table: pd.DataFrame, path: Path) -> None:
    """Writes the table, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    told = {"pe-sim.schema": study.schema, "pe-sim.version": __version__}
    columns = pa.Table.from_pandas(table, preserve_index=False)
    columns = columns.cast(_portable(columns.schema)).replace_schema_metadata(told)
    write_whole(path, lambda draft: pq.write_table(columns, draft, compression="zstd"))


def _portable(schema: pa.Schema) -> pa.Schema:
    """Texts are of the type that every reader knows, and so is what has no value at all (errors, say)."""
    return pa.schema(
        [pa.field(each.name, pa.string()) if each.type in (pa.large_string(), pa.null()) else each for each in schema]
    )


def read_table(study: Study, path: Path) -> pd.DataFrame:
    """The table of an experiment.

    Raises:
        InputError: there is none, it cannot be read, or it is another experiment's.
    """
    command = f"python -m experiments.{study.name} computes it"
    if not path.is_file():
        raise InputError("there is no table to draw", source=str(path), hint=f"{command}; --out names its folder")
    try:
        columns = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"not a table: {error}", source=str(path), hint=command) from None
    found = (columns.schema.metadata or {}).get(b"pe-sim.schema", b"").decode()
    if found != study.schema:
        raise InputError("another table", source=str(path), given=found, expected=study.schema, hint=command)
    table: pd.DataFrame = columns.to_pandas()
    return table


def _drawn(study: Study, table: pd.DataFrame) -> Mapping[str, Figure]:
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]  # its names are plain texts here
        return study.figures(table)


def _save(figure: Figure, folder: Path, name: str) -> list[str]:
    """Writes the picture as PNG and SVG, and closes it; gives the names of the files."""
    import matplotlib
    import matplotlib.pyplot as plt

    names = [f"{name}.{kind}" for kind in ("png", "svg")]
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        for each, metadata in zip(names, ({"Software": None}, {"Date": None}), strict=True):
            kind = each.rpartition(".")[2]

            def write(draft: Path, kind: str = kind, metadata: dict[str, None] = metadata) -> None:
                figure.savefig(draft, format=kind, dpi=DPI, metadata=metadata)

            write_whole(folder / each, write)
    plt.close(figure)
    return names
