"""What experiments with a Parquet table share: options, files, and pictures that come from the table alone."""

import os
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import (
    collectives_against_n,
    degradation,
    interconnect_pareto,
    mode_transforms,
    overlap_levels,
    published_figures,
    scale_out,
    scaling,
    situations,
    situations_search,
    topologies_at_equal_wire,
    workflows_side_by_side,
)
from experiments import study as study_module
from experiments.cases import CAUSES, Case, best_of, detailed, path_shares, swept
from experiments.parallel import in_order
from experiments.scaling_table import WEAK_BATCH, WEAK_CONTEXT, share_of_peak
from experiments.study import RESULTS, TABLE, Ask, Study, main, read_table, write_table
from pe_sim.errors import InfeasibleError, InputError
from tests.experiments.studies import ROOT, committed, run

ON_THE_PAGE = [each.STUDY for each in (scaling, workflows_side_by_side, interconnect_pareto, overlap_levels)]
IN_THE_README = [
    each.STUDY
    for each in (
        situations,
        situations_search,
        topologies_at_equal_wire,
        collectives_against_n,
        mode_transforms,
        degradation,
        scale_out,
        published_figures,
    )
]
STUDIES = [*ON_THE_PAGE, *IN_THE_README]
QUIET = Ask(quick=True, jobs=1, tell=lambda text: None)
WEAK = (WEAK_BATCH, WEAK_CONTEXT)
POINT = {"model": "llama-3.2-1b", "array": "bus-tree-64", "workflow": "megatron", "context": 100}


def made(folder, name="one", compute=None):
    """A study of three numbers, and the folder for its files."""

    def draw(table):
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()
        axes.plot(table["x"])
        return {"line": figure}

    def count(ask):
        ask.tell("counting")
        return pd.DataFrame({"x": [1, 2, 3]})

    return Study(name, "What?", "Notes.", compute or count, lambda table: f"sum {table['x'].sum()}", draw)


class TestFiles:
    def test_table_then_pictures(self, tmp_path, capsys):
        main(made(tmp_path), ["--out", str(tmp_path / "new")])
        said = capsys.readouterr()
        assert said.out == f"sum 6\nwrote {TABLE}, line.png, line.svg in {tmp_path / 'new'}\n"
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["line.png", "line.svg", TABLE]

    def test_what_is_told_is_the_line_of_progress(self, tmp_path):
        def count(ask):
            ask.tell("counting")
            assert str(ask.tell).startswith("experiments.one: counting, ")
            return pd.DataFrame({"x": [1, 2, 3]})

        main(made(tmp_path, compute=count), ["--out", str(tmp_path)])

    def test_pictures_come_from_the_table_alone_and_are_the_same_files(self, tmp_path):
        def never(ask):
            raise AssertionError("--plot-only computes nothing")

        main(made(tmp_path), ["--out", str(tmp_path)])
        first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        for picture in ("line.png", "line.svg"):
            (tmp_path / picture).unlink()
        main(made(tmp_path, compute=never), ["--plot-only", "--out", str(tmp_path)])
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first

    def test_a_run_that_fails_leaves_the_old_table(self, tmp_path):
        def fails(ask):
            raise InputError("no such thing", source="somewhere")

        main(made(tmp_path), ["--out", str(tmp_path)])
        before = (tmp_path / TABLE).read_bytes()
        with pytest.raises(SystemExit) as ended:
            main(made(tmp_path, compute=fails), ["--out", str(tmp_path)])
        assert ended.value.code == 2
        assert (tmp_path / TABLE).read_bytes() == before

    def test_no_table(self, tmp_path):
        with pytest.raises(InputError, match="there is no table to draw") as caught:
            read_table(made(tmp_path), tmp_path / TABLE)
        assert "python -m experiments.one computes it" in str(caught.value)

    def test_not_a_table(self, tmp_path):
        (tmp_path / TABLE).write_text("x,y\n1,2\n")
        with pytest.raises(InputError, match="not a table"):
            read_table(made(tmp_path), tmp_path / TABLE)

    @pytest.mark.parametrize("strange", [False, True])
    def test_another_table(self, tmp_path, strange):
        if strange:
            pq.write_table(pa.table({"x": [1]}), tmp_path / TABLE)
        else:
            write_table(made(tmp_path, "two"), pd.DataFrame({"x": [1]}), tmp_path / TABLE)
        with pytest.raises(InputError, match="another table"):
            read_table(made(tmp_path), tmp_path / TABLE)


class TestCommand:
    @pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
    def test_help_teaches(self, study, capsys):
        with pytest.raises(SystemExit) as ended:
            main(study, ["--help"])
        said = capsys.readouterr().out
        assert ended.value.code == 0
        for word in ("--quick", "--jobs", "--plot-only", "--out", "For instance", f"experiments.{study.name}"):
            assert word in said
        assert all(len(line) <= 120 for line in said.splitlines())

    @pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "²", "100000"])
    def test_jobs(self, given, capsys):
        with pytest.raises(SystemExit) as ended:
            main(STUDIES[0], [f"--jobs={given}"])
        assert ended.value.code == 2
        assert f"{given!r} is not a whole number from 1 to 1024" in capsys.readouterr().err

    def test_bad_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        command = [sys.executable, "-m", "experiments.overlap_levels", "--quick", "--out", tmp_path / "file"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("error: --out: not a folder for files")
        assert "Traceback" not in done.stderr

    def test_plot_only_without_a_table(self, tmp_path):
        done = run("scaling", "--plot-only", "--out", tmp_path)
        assert done.returncode == 2
        assert "there is no table to draw" in done.stderr
        assert "Traceback" not in done.stderr
        assert os.listdir(tmp_path) == []


class TestOwnOptions:
    """Options of an experiment's own, and tables that have to be something."""

    @pytest.fixture
    def sized(self, tmp_path, monkeypatch):
        monkeypatch.setattr(study_module, "RESULTS", study_module.ROOT / "whole")
        monkeypatch.setattr(study_module, "QUICK_RESULTS", study_module.ROOT / "part")
        folders = []
        monkeypatch.setattr(study_module, "_make_folder", lambda folder: folders.append(folder))

        def compute(ask):
            raise InputError(f"size {ask.options.size}, large {ask.options.large}")

        def declare(parser):
            parser.add_argument("--size", type=int, help="of it")
            parser.add_argument("--large", action="store_true", help="more of it")

        return replace(made(tmp_path, compute=compute), options=declare), folders

    @pytest.mark.parametrize(
        ("arguments", "folder", "said"),
        [
            ([], "whole", "size None, large False"),
            (["--jobs", "2"], "whole", "size None, large False"),
            (["--quick"], "part", "size None, large False"),
            (["--size", "3"], "part", "size 3, large False"),
            (["--large"], "part", "size None, large True"),
        ],
    )
    def test_what_is_not_the_whole_study_does_not_replace_it(self, sized, arguments, folder, said, capsys):
        study, folders = sized
        with pytest.raises(SystemExit):
            main(study, arguments)
        assert folders == [study_module.ROOT / folder / "one"]
        assert said in capsys.readouterr().err

    def test_pictures_alone_take_none(self, sized, capsys):
        with pytest.raises(SystemExit) as ended:
            main(sized[0], ["--plot-only", "--large"])
        assert ended.value.code == 2
        assert "--large is for computing one" in capsys.readouterr().err

    def test_a_table_that_does_not_hold_is_written_and_fails(self, tmp_path):
        study = replace(made(tmp_path), holds=lambda table: bool((table["x"] < 3).all()))
        with pytest.raises(SystemExit) as ended:
            main(study, ["--out", str(tmp_path)])
        assert ended.value.code == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["line.png", "line.svg", TABLE]


def refuse_odd(number):
    """The number, if it is even; the error has facts of its own, as those of memories have."""
    if number % 2:
        raise InfeasibleError("odd", demand=number, bound=0, unit="bytes", levers=["an even one"])
    return -number


class TestInOrder:
    @pytest.mark.parametrize("jobs", [1, 2])
    def test_results_in_the_order_of_the_tasks(self, jobs):
        told = []
        ask = Ask(quick=True, jobs=jobs, tell=told.append)
        assert list(in_order(refuse_odd, {str(n): (n,) for n in (4, 2, 8)}, ask)) == [-4, -2, -8]
        assert told == ["4", "2", "8"]

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_an_error_comes_through_whole(self, jobs):
        ask = Ask(quick=True, jobs=jobs, tell=lambda text: None)
        with pytest.raises(InputError, match="odd: needs 3 bytes") as caught:
            list(in_order(refuse_odd, {str(n): (n,) for n in (2, 3, 5)}, ask))
        assert "an even one" in str(caught.value)


class TestCases:
    def test_swept_and_detailed_agree(self):
        cases = [Case({"n": pes}, {**POINT, "num_pes": pes}) for pes in (16, 64)]
        one = swept(cases, QUIET, ("cycles", "energy_joules"))
        two = detailed(cases, QUIET)
        assert one["n"].tolist() == [16, 64]
        assert one["error"].isna().all()
        pd.testing.assert_frame_equal(one[["n", "cycles", "energy_joules"]], two[["n", "cycles", "energy_joules"]])
        assert (path_shares(two).sum(axis=1) - 1).abs().max() < 1e-12
        assert (two[[f"path.{cause}" for cause in CAUSES]].sum(axis=1) == two["cycles"]).all()
        assert (two["ideal_cycles"] <= two["cycles"]).all()

    def test_what_does_not_fit_is_a_row_with_its_error(self):
        small = {**POINT, "pe.memory.capacity_bytes": 2**20}
        cases = [Case({"n": 1}, small), Case({"n": 2}, {**small, "allow_overflow": True})]
        refused, simulated = detailed(cases, QUIET).to_dict("records")
        assert refused["error"].startswith("the memory of PE 0 is too small")
        assert refused["cycles"] != refused["cycles"], "no figures"
        assert simulated["fits"] is False
        assert simulated["cycles"] > 0

    def test_the_best_of_each_group(self):
        rows = pd.DataFrame(
            {
                "group": [1, 1, 2, 2, 3, 3],
                "cycles": pd.array([5, 4, None, 9, None, None], dtype="Int64"),
                "error": [None, None, "x", None, "needs 2,000 bytes", "needs 900 bytes"],
            }
        )
        assert best_of(rows, ["group"]).tolist() == [1, 3, 5]

    def test_a_wrong_setting_is_refused(self):
        with pytest.raises(InputError, match=r"pe\.memmory"):
            swept([Case({}, {**POINT, "pe.memmory.bytes_per_cycle": 1})], QUIET, ("cycles",))


@pytest.fixture(scope="module")
def page():
    """docs/experiments.md, its lines joined."""
    return " ".join((ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").split())


class TestPage:
    """docs/experiments.md says what the committed tables say."""

    def test_links(self, page):
        readme = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
        for studies, text, start in ((ON_THE_PAGE, page, "../experiments/"), (IN_THE_README, readme, "")):
            for study in studies:
                pictures = list((RESULTS / study.name).glob("*.png"))
                assert pictures
                for picture in pictures:
                    assert f"]({start}results/{study.name}/{picture.name})" in text
                assert f"`experiments.{study.name}`" in page

    def test_scaling(self, page):
        rows = committed(scaling.STUDY).set_index(["study", "model", "weights", "phase", "pes"])
        for phase, model in (("decode", "llama-2-7b"), ("decode", "llama-3.1-405b"), ("prefill", "llama-2-7b")):
            speed = (
                rows["cycles"]["strong", model, "bf16", phase, 64]
                / rows["cycles"]["strong", model, "bf16", phase, 4096]
            )
            assert f"{speed:.1f} times" in page

    def test_shares(self, page):
        rows = committed(scaling.STUDY)
        mine = rows[(rows["study"] == "strong") & (rows["model"] == "llama-2-7b") & (rows["phase"] == "decode")]
        first, last = mine.iloc[0], mine.iloc[-1]
        memory = [f"{row['path.memory'] / row['cycles']:.0%}".replace("%", " %") for row in (first, last)]
        assert f"take {memory[0]} of the time on 64 PEs and {memory[1]} on 4096" in page
        assert f"the bus takes {last['path.bus'] / last['cycles']:.0%}".replace("%", " %") in page
        assert f"{last['joules_per_token'] / first['joules_per_token']:.2f} times from 64 to 4096" in page
        batch, context = (rows[(rows["study"] == name) & (rows["model"] == "llama-2-7b")] for name in WEAK)
        shares = [*share_of_peak(batch[batch["phase"] == "decode"]).iloc[[0, -1]], share_of_peak(context).iloc[-1]]
        assert "from {:.0%} to {:.0%} of the PEs' peak".format(*shares).replace("%", " %") in page
        assert f"keeps {shares[2]:.0%}".replace("%", " %") in page

    def test_workflows(self, page):
        rows = committed(workflows_side_by_side.STUDY).set_index(["model", "step", "workflow"])["cycles"]
        gain = rows["llama-2-70b", "decode, context 4,095", "workflow-1"]
        gain /= rows["llama-2-70b", "decode, context 4,095", "workflow-2"]
        assert f"{gain:.2f} times" in page
        gain = rows["llama-2-70b", "prefill of 512", "workflow-1"] / rows["llama-2-70b", "prefill of 512", "megatron"]
        assert f"{gain:.2f} times the cycles of megatron" in page

    def test_interconnects(self, page):
        rows = committed(interconnect_pareto.STUDY)
        front = rows[(rows["phase"] == "decode") & rows["front.area_mm2"]].sort_values("area_mm2")
        first, last = front.iloc[0], front.iloc[-1]
        assert f"{first['seconds'] / last['seconds']:.1f} times" in page
        assert f"{last['area_mm2'] / first['area_mm2']:.1f} times the silicon" in page
        most = rows[rows["pes"] == 2048].pivot(index=["phase", "arity"], columns="bytes_per_cycle")
        gains = (most["seconds"][16] / most["seconds"][512])["decode"]
        assert f"{gains.min():.2f} to {gains.max():.2f} times the speed" in page
        wire = (most["wire_bit_mm"][512] / most["wire_bit_mm"][16])["decode"]
        assert f"for {wire.mean():.0f} times the wire" in page
        arities = rows.groupby(["phase", "pes", "bytes_per_cycle"])["cycles"].agg(["min", "max"])
        worst = (arities["max"] / arities["min"]).groupby("phase").max()
        assert f"matters by {worst['decode'] - 1:.1%} at most in decode".replace("%", " %") in page
        assert f"up to {worst['prefill']:.2f} times as long" in page

    def test_overlap(self, page):
        rows = committed(overlap_levels.STUDY)
        rows = rows[rows["study"] == "levels"]
        gains = rows.groupby(["overlap", "step"])["speedup_over_below"].max() - 1
        second = rows[rows["overlap"] == 2]
        many = second[second["step"] != "decode, 1 sequence"]["speedup_over_below"].max() - 1
        for gain in (gains[2, "decode, 1 sequence"], many, gains[3, "prefill of 512"]):
            assert f"{gain:.1%}".replace("%", " %") in page
        assert f"{len(second)} cases" in page

    def test_what_other_experiments_found(self, page):
        wires = committed(topologies_at_equal_wire.STUDY).query("pes == 256")
        cycles = wires.pivot(index="topology", columns="workflow", values="cycles")
        assert cycles["workflow-2"].idxmin() == "bus-tree"
        assert cycles["megatron"].idxmin() == "h-tree"
        assert f"{1 - cycles['megatron'].min() / cycles['megatron']['bus-tree']:.1%}".replace("%", " %") in page
        moves = committed(mode_transforms.STUDY).query("tensor == '256 KiB'")
        moves = moves[(moves["from"] == "Shard(hidden)") & (moves["to"] == "Shard(head)")]["cycles"]
        assert f"{moves.min():,} to {moves.max():,} cycles" in page
        published = committed(published_figures.STUDY)
        equal = (published["ours"] == published["published"]).sum()
        assert f"{equal} of {len(published)} figures" in page
        assert published["source"].nunique() == 5
        vector = committed(collectives_against_n.STUDY).query("panel == 'vector of 8 KiB' and pes == 4096")
        taken = vector.set_index(["collective", "way"])["cycles"]
        assert f"{taken['scatter', 'serial'] / taken['broadcast', '']:.1f} times" in page
        spots = committed(situations.STUDY).query("context == 32768 and batch == 1")
        (spot,) = spots.query("model == 'llama-2-7b' and array == 'bus-tree-4096'").to_dict("records")
        assert spot["best"] == "workflow-2"
        assert f"{spot['gain_over_megatron']:.1%}".replace("%", " %") in page
        assert self.gains_of_the_search() in page

    @staticmethod
    def gains_of_the_search():
        """What the searched mapping saves beside the best named workflow of each case, as the page says it."""
        known = committed(situations_search.STUDY)
        named = known[known["workflow"] != "searched"]
        gains = named.groupby(["model", "array", "situation"])["gain_of_searched"].min()
        return f"{gains.min():.1%} to {gains.max():.1%}".replace("%", " %")
