"""The command as a process of its own: entry points, pipes, and how fast it starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "pe_sim")
HEAVY = ("simpy", "networkx", "matplotlib", "rich", "pe_sim.api", "pe_sim.engine", "pe_sim.report")


@pytest.fixture(autouse=True)
def _package_of_the_checkout(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, **options)


def test_python_m_is_the_command():
    done = run(*COMMAND, "gemm", "-m", "1", "-k", "4096", "-n", "16", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cycles"] == 2077


def test_wrong_input_in_a_process(tiny):
    done = run(*COMMAND, "run", tiny, "--batch", "0", "--json", "-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: batch_size: too small")


@pytest.mark.parametrize("command", ["models", "workflows", "--help"])
def test_light_commands_import_nothing_heavy(command):
    code = f"import sys; sys.argv = ['pe-sim', {command!r}]\nimport atexit\nfrom pe_sim.cli import main\n"
    code += "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\nmain()\n"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize("args", [("models",), ("gemm", "-m", "1", "-k", "8", "-n", "8", "--json", "-")])
def test_a_reader_that_leaves_is_no_fault(args):
    with subprocess.Popen(
        [*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert "Error" not in errors
    assert "Traceback" not in errors
    assert "fault" not in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output():
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([*COMMAND, "models"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("module", ["pe_sim.cli.app", "click", "pe_sim.errors", "pe_sim.api", "numpy"])
def test_ctrl_c_while_something_is_imported(module, tiny):
    """Whatever is being imported when the user gives up: exit code 130 and not a word."""
    code = f"""
import sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
sys.argv = ["pe-sim", "run", {tiny!r}]
from pe_sim.cli import main
main()
"""
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")
