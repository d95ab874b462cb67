"""The notebooks run, are rendered as they run today, and have no logic of their own."""

import ast
import base64
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import nbformat
import pytest

from tests.notebooks import render
from tests.notebooks.render import NOTEBOOKS, ROOT, outputs_of, read_source, rendered_path, sources

NAMES = (
    "bus_utilization",
    "comparing_workflows",
    "own_topology",
    "proving_a_mapping",
    "quick_start",
    "scaling_study",
    "several_arrays",
)
QUICK = ("quick_start", "proving_a_mapping")  # run with the quick tests; the others are slow ones
MOST_LINES = 12
LOGIC = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda,
    ast.For, ast.While, ast.If, ast.Try, ast.With, ast.Match,
)  # fmt: skip


def rendered(name):
    return nbformat.read(rendered_path(NOTEBOOKS / f"{name}.py"), as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook):
    """(height, width, channels) of every image."""
    return [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(output.data["image/png"])))
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def test_all_are_here():
    assert tuple(source.stem for source in sources()) == NAMES
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_a_fresh_run_gives_what_is_rendered(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    again = render.execute(NOTEBOOKS / f"{name}.py")
    assert outputs_of(again) == outputs_of(rendered(name))
    assert [picture.std() > 0 for picture in pictures(again)] == [True] * len(pictures(rendered(name)))
    assert list(tmp_path.iterdir()) == []  # nothing was left in a home


@pytest.mark.parametrize("name", NAMES)
class TestRendered:
    def test_the_cells_are_those_of_the_source(self, name):
        source = read_source(NOTEBOOKS / f"{name}.py")
        found = rendered(name)
        assert [(cell.cell_type, cell.source) for cell in found.cells] == [
            (cell.cell_type, cell.source) for cell in source.cells
        ]
        assert found.metadata == source.metadata

    def test_every_code_cell_shows_something_and_none_fails(self, name):
        cells = code_cells(rendered(name))
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        for cell in cells:
            assert cell.outputs, cell.source
            assert {output.output_type for output in cell.outputs} <= {"execute_result", "display_data"}, cell.source

    def test_nothing_changes_from_run_to_run(self, name):
        text = rendered_path(NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")
        assert text == render.to_text(rendered(name))
        assert "execution" not in {key for cell in rendered(name).cells for key in cell.metadata}
        assert not re.search(r"\bat 0x[0-9a-f]+", text)

    def test_pictures_are_not_blank(self, name):
        for picture in pictures(rendered(name)):
            assert min(picture.shape[:2]) > 200
            inked = (picture[..., :3].min(axis=2) < 0.9).mean()
            assert 0.005 < inked < 0.6

    def test_cells_have_no_logic(self, name):
        for cell in code_cells(read_source(NOTEBOOKS / f"{name}.py")):
            assert len(cell.source.splitlines()) <= MOST_LINES, cell.source
            assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, LOGIC)], cell.source

    def test_it_tells_a_story(self, name):
        cells = read_source(NOTEBOOKS / f"{name}.py").cells
        assert cells[0].source.startswith("# ")
        words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
        assert words > 150

    def test_its_links_lead_somewhere(self, name):
        text = " ".join(cell.source for cell in rendered(name).cells if cell.cell_type == "markdown")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (NOTEBOOKS / target).exists(), target

    def test_the_readmes_name_it(self, name):
        assert f"(notebooks/{name}.ipynb)" in (ROOT / "README.md").read_text(encoding="utf-8")
        assert f"({name}.ipynb)" in (NOTEBOOKS / "README.md").read_text(encoding="utf-8")


def test_most_have_figures():
    assert {name for name in NAMES if pictures(rendered(name))} == set(NAMES) - {"proving_a_mapping"}


def run(*arguments, **env):
    command = [sys.executable, "-m", "tests.notebooks.render", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def test_an_unknown_name_is_refused_with_those_there_are():
    done = run("quick_strat")
    assert done.returncode == 2
    assert "no such notebook: quick_strat" in done.stderr
    assert all(name in done.stderr for name in NAMES)


def test_help_teaches():
    done = run("--help")
    assert "make notebooks ARGS=" in done.stdout


def test_a_cell_that_fails_is_named_and_nothing_is_written(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(render, "NOTEBOOKS", tmp_path)
    (tmp_path / "broken.py").write_text("# %%\nimport pe_sim as ps\nps.load_model('lama-2-7b')\n", encoding="utf-8")
    assert render.main(["broken"]) == 1
    told = capfd.readouterr().err
    assert "broken.py fails:" in told
    assert "did you mean 'llama-2-7b'" in told
    assert [path.name for path in tmp_path.iterdir()] == ["broken.py"]


def test_what_runs_is_written_once(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(render, "NOTEBOOKS", tmp_path)
    Path(tmp_path / "sum.py").write_text("# %%\n1 + 1\n", encoding="utf-8")
    assert render.main([]) == 0
    (cell,) = nbformat.read(tmp_path / "sum.ipynb", as_version=4).cells
    assert cell.outputs[0].data == {"text/plain": "2"}
    assert render.main([]) == 0
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("sum.ipynb: written")
    assert second.startswith("sum.ipynb: unchanged")
