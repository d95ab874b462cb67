"""What tests of experiments with a Parquet table share: running them, committed tables, and looking at pictures."""

import runpy
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import matplotlib.image
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from experiments.study import RESULTS, TABLE, read_table
from pe_sim.cli.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def run(name, *arguments):
    """The command of an experiment, in this process: to start another one takes longer than most commands do."""
    command = [f"experiments.{name}", *map(str, arguments)]
    out, err, code = StringIO(), StringIO(), 0
    take = Progress.__call__

    def told_at_once(progress, *news):
        """All news is in stderr, not only what is the latest every ten seconds."""
        take(progress, *news)
        err.write(f"{progress}\n")

    with warnings.catch_warnings(), chdir(ROOT), patch.object(sys, "argv", command):
        warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)  # the tests import it as well
        with redirect_stdout(out), redirect_stderr(err), patch.object(Progress, "__call__", told_at_once):
            try:
                runpy.run_module(command[0], run_name="__main__", alter_sys=True)
            except SystemExit as stopped:
                code = stopped.code
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def quick_run(study, folder):
    """What `--quick` writes into the folder: the table, and what was printed."""
    done = run(study.name, "--quick", "--jobs", 1, "--out", folder)
    assert done.returncode == 0, done.stderr
    return read_table(study, folder / TABLE), done


def committed(study):
    """The table in the repository."""
    return read_table(study, RESULTS / study.name / TABLE)


def assert_same_rows(found, known, keys, leave_out=()):
    """Every row of `found` is one of `known` with the same figures; keys name a row."""
    names = [name for name in found if name not in (*keys, *leave_out)]
    assert list(found) == list(known)
    matching = found[list(keys)].merge(known, on=list(keys), how="left", validate="one_to_one")
    for name in names:
        mine, theirs = found[name].reset_index(drop=True), matching[name]
        pd.testing.assert_series_equal(mine, theirs, check_dtype=False, rtol=1e-12, obj=name)


def assert_schema(study, folder, expected):
    """The file says whose it is, and has these columns with these types."""
    schema = pq.read_schema(folder / TABLE)
    assert schema.metadata[b"pe-sim.schema"].decode() == study.schema
    types = {field.name: str(field.type) for field in schema}
    assert expected.items() <= types.items(), {name: types.get(name) for name in expected}


def assert_pictures(folder, names):
    """These pictures are there as PNG and SVG, and show something: ink all over, and words."""
    assert {path.name for path in folder.iterdir()} == {
        TABLE,
        *(f"{name}.{end}" for name in names for end in ("png", "svg")),
    }
    for name in names:
        pixels = matplotlib.image.imread(folder / f"{name}.png")[..., :3]
        dark = pixels.min(axis=2) < 0.9
        assert pixels.shape[0] > 400, name
        assert dark.mean() > 0.01, name
        quarters = [part for half in np.array_split(dark, 2) for part in np.array_split(half, 2, axis=1)]
        assert all(part.mean() > 0.002 for part in quarters), name
        root = ET.parse(folder / f"{name}.svg").getroot()
        assert root.tag == f"{SVG}svg"
        assert len(root.findall(f".//{SVG}text")) > 10, name
