"""The rules of the house hold, and each of them would notice a breach: who imports whom, and how full a folder is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = "Rooms import downwards only"
CIRCLES = "Inside rooms nothing goes in circles"
SIMPY = "SimPy stays in the engine"
MATPLOTLIB = "Matplotlib stays in the report's plots"


def lint_imports(folder: Path) -> tuple[int, str]:
    # A process of its own: the linter looks packages up in the current folder, and pe_sim may be imported here.
    call = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package in which a test may plant what it likes; rooms that do not exist yet are empty there."""
    ignore = shutil.ignore_patterns("__pycache__", "_presets")
    shutil.copytree(ROOT / "pe_sim", tmp_path / "pe_sim", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(folder: Path, module: str, code: str) -> None:
    """Write `code` as a new module, making the packages on the way to it."""
    path = folder.joinpath(*module.split(".")).with_suffix(".py")
    assert not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(code, encoding="utf-8")


def test_the_package_keeps_the_rules() -> None:
    code, output = lint_imports(ROOT)
    assert code == 0, output
    assert "Contracts: 4 kept, 0 broken." in output


@pytest.mark.parametrize(
    ("module", "code", "contract"),
    [
        ("pe_sim.config.planted", "import pe_sim.graph.planted_too", LAYERS),
        ("pe_sim.trace.planted", "def late():\n    import pe_sim.graph.planted_too", LAYERS),
        ("pe_sim.numeric.planted", "import pe_sim.report.planted_too", LAYERS),
        ("pe_sim.attic.planted", "", LAYERS),
        ("pe_sim.schedule.planted", "from simpy.events import Event", SIMPY),
        ("pe_sim.report.planted", "import matplotlib.pyplot as plt", MATPLOTLIB),
    ],
    ids=["upwards", "upwards inside a function", "sideways", "a room without a place", "simpy", "matplotlib"],
)
def test_a_planted_breach_is_caught(copy: Path, module: str, code: str, contract: str) -> None:
    for room in ("graph", "report"):
        plant(copy, f"pe_sim.{room}.planted_too", "")
    plant(copy, module, code)
    exit_code, output = lint_imports(copy)
    assert exit_code == 1, output
    assert f"{contract} BROKEN" in output
    assert module.removesuffix(".planted") in output  # and it is this breach that it names


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("from pe_sim.config.planted_high import b", "from pe_sim.config.planted import a"),
        ("def a():\n    from pe_sim.config.planted_high import b", "from pe_sim.config.planted import a"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pe_sim.config.planted_high import b",
            "from pe_sim.config.planted import a",
        ),
        ("from pe_sim.config.plans.plan import ParallelPlan", ""),
    ],
    ids=["plain", "lazy", "type-only", "between a module and a package"],
)
def test_a_planted_circle_is_caught(copy: Path, low: str, high: str) -> None:
    plant(copy, "pe_sim.config.planted", low)
    plant(copy, "pe_sim.config.planted_high", high)
    if not high:  # from the package back to the module
        plan = copy / "pe_sim" / "config" / "plans" / "plan.py"
        plan.write_text(plan.read_text(encoding="utf-8") + "\nimport pe_sim.config.planted\n", encoding="utf-8")
    exit_code, output = lint_imports(copy)
    assert exit_code == 1, output
    assert f"{CIRCLES} BROKEN" in output
    assert "planted" in output


def test_the_page_of_the_house_names_every_room_and_wing() -> None:
    page = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.partition("| to add |")[0].splitlines() if line.startswith("| `")]
    rooms = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    wings = [name for row in rows for name in re.findall(r"`(\w+)`", row[2])]
    package = ROOT / "pe_sim"
    modules = [path.stem for path in package.glob("*.py") if path.stem[0] != "_"]
    assert sorted(rooms) == sorted([*modules, *(path.parent.name for path in package.glob("*/__init__.py"))])
    assert sorted(wings) == sorted(path.parent.name for path in package.glob("*/*/__init__.py"))
    folders = re.findall(r"`((?:\w+/)+\w+(?:\.py)?)`", page)
    assert folders
    assert [name for name in folders if not (package / name).exists()] == []


def full_folders(root: Path, most: int = 16) -> list[str]:
    """Folders of the package and its tests that hold more files than one can look over."""
    folders = [folder for top in ("pe_sim", "tests") for folder in (root / top, *(root / top).rglob("*/"))]
    held = {folder: sum(entry.is_file() for entry in folder.iterdir()) for folder in folders if folder.name[:2] != "__"}
    return [f"{folder.relative_to(root)}: {count} files" for folder, count in held.items() if count > most]


def test_no_folder_holds_more_than_16_files(tmp_path: Path) -> None:
    assert not full_folders(ROOT)
    (tmp_path / "tests").mkdir()
    plant(tmp_path, "pe_sim.room.planted", "")
    assert not full_folders(tmp_path)
    for number in range(15):
        (tmp_path / "pe_sim" / "room" / f"page_{number}.html").touch()
    assert full_folders(tmp_path) == ["pe_sim/room: 17 files"]


def test_the_rooms_meant_for_them_may_import_simpy_and_matplotlib(copy: Path) -> None:
    plant(copy, "pe_sim.engine.planted", "import simpy\nfrom simpy.events import Event")
    plant(copy, "pe_sim.report.plots.planted", "import matplotlib.pyplot")
    code, output = lint_imports(copy)
    assert code == 0, output
