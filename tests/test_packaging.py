"""What is installed is what is in the checkout: presets travel inside the wheel, and nothing names a machine."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRESET_FOLDERS = ("workloads", "topologies")
# Given as a child reads it, so that a checkout or an editable install cannot answer in the package's place.
PRINT_PRESETS = """
import pe_sim, pe_sim.config.files.loading as presets
print(pe_sim.__file__)
for kind in ("models", "arrays", "situations", "machines", "systems"):
    names = sorted(presets.preset_names(kind))
    print(kind, *names)
    for name in names:
        presets.resolve(kind, name)
"""


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # --no-index and no isolation: hatchling comes from the set-up, so no network is asked for.
    pip = (sys.executable, "-m", "pip", "wheel", "-qq", "--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("pe_sim-*.whl")
    return built


def test_wheel_holds_every_preset_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    expected = {
        f"pe_sim/_presets/{path.relative_to(ROOT).as_posix()}": path.read_bytes()
        for folder in PRESET_FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert expected, "the checkout has no presets"
    assert {name: data for name, data in packed.items() if name.startswith("pe_sim/_presets/")} == expected
    assert not [name for name in packed if not name.startswith(("pe_sim/", "pe_sim-"))]


def test_wheel_holds_what_was_compared_with_the_rtl(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("pe_sim/report/analysis/compared.json")
    assert packed == (ROOT / "pe_sim" / "report" / "analysis" / "compared.json").read_bytes()


def test_wheel_holds_the_templates_of_pages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name: archive.read(name) for name in archive.namelist() if name.startswith("pe_sim/report/html/templates/")
        }
    expected = {
        path.relative_to(ROOT).as_posix(): path.read_bytes() for path in ROOT.glob("pe_sim/report/html/templates/*.j2")
    }
    assert expected
    assert packed == expected


def test_wheel_holds_the_style_of_figures(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("pe_sim/report/print.mplstyle")
    assert packed == (ROOT / "pe_sim" / "report" / "print.mplstyle").read_bytes()


def test_installed_package_finds_the_presets_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = (sys.executable, "-m", "pip", "install", "-qq", "--no-index", "--no-deps")
    run(*pip, "--target", target, wheel, cwd=tmp_path)
    command = (sys.executable, "-c", PRINT_PRESETS)
    installed_file, *installed = run(*command, cwd=elsewhere, PYTHONPATH=str(target)).splitlines()
    checkout_file, *checkout = run(*command, cwd=elsewhere, PYTHONPATH=str(ROOT)).splitlines()
    assert Path(installed_file).is_relative_to(target)
    assert Path(checkout_file).is_relative_to(ROOT)
    assert installed == checkout
    assert "bus-tree-256" in installed[1]
    assert installed[2].split() == ["situations", "batch-long", "batch-short", "mixed", "one-long", "one-short"]


def repository_files() -> list[Path]:
    """Tracked files, and new ones that git does not ignore."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    # git also lists tracked files that were deleted, and folders behind symbolic links.
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_path_of_one_machine() -> None:
    # Written with a group in each, so that this file does not match itself.
    machine_path = re.compile(rb"/(work)/(main|shared|\.library)\b|/(root)/|/(home|Users)/\w+/|/(opt)/(pypi|wheels)")
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in repository_files()
        for match in machine_path.finditer(path.read_bytes())
    ]
    assert not found


def test_lock_and_requirements_pin_by_name_and_version_alone() -> None:
    files = [path for path in repository_files() if re.match(r"requirements.*\.(lock|txt|in)$", path.name)]
    assert ROOT / "requirements.lock" in files
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"{path}: {line}"
            assert "://" not in line, f"{path}: {line}"
