"""A line of progress wherever stderr is no terminal, from every command that may take long; a bar where it is one."""

import io
import threading

import pytest

from pe_sim.cli import progress
from pe_sim.cli.progress import Progress
from pe_sim.errors import InputError

PROMPT_SECONDS = 60  # a machine may be slow; a line that never comes is what fails


class Heard(io.StringIO):
    """A stderr that says when it was written to."""

    def __init__(self, is_terminal=False):
        super().__init__()
        self.written = threading.Event()
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal

    def write(self, text):
        done = super().write(text)
        self.written.set()
        return done


@pytest.fixture
def heard(monkeypatch):
    """What is told without waiting."""
    stream = Heard()
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(progress, "standard_stream", lambda name: stream)
    return stream


def test_a_line_at_least_every_ten_seconds():
    assert progress._EVERY_SECONDS <= 10


def test_it_says_what_is_done_and_of_how_much(heard):
    with Progress("pe-sim some") as tell:
        assert heard.written.wait(PROMPT_SECONDS)
        tell("steps", 1200, 3000)
        assert str(tell) == "pe-sim some: steps: 1,200 of 3,000, 0 s"
        tell("the rest")
        assert str(tell) == "pe-sim some: the rest, 0 s"
    assert heard.getvalue().startswith("pe-sim some, 0 s\n")


def test_nothing_is_told_of_what_takes_no_time(monkeypatch):
    stream = Heard()
    monkeypatch.setattr(progress, "standard_stream", lambda name: stream)
    with Progress("pe-sim some") as tell:
        tell("steps", 1, 2)
    assert stream.getvalue() == ""


def test_nobody_reads_it(monkeypatch):
    class Closed(Heard):
        def write(self, text):
            self.written.set()
            raise BrokenPipeError

    stream = Closed()
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(progress, "standard_stream", lambda name: stream)
    with Progress("pe-sim some"):
        assert stream.written.wait(PROMPT_SECONDS)


def test_a_terminal_has_a_bar_until_results_are_shown(monkeypatch):
    stream = Heard(is_terminal=True)
    monkeypatch.setattr(progress, "_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(progress, "standard_stream", lambda name: stream)
    with Progress("pe-sim some") as tell:
        assert stream.written.wait(PROMPT_SECONDS)
        tell.clear_terminal()
        until_then = stream.getvalue()
        tell("more", 1, 2)
    assert "pe-sim some" in until_then
    assert stream.getvalue() == until_then


WORK = {
    "run tiny.json": "pe_sim.api.simulate",
    "run tiny.json --workflow auto": "pe_sim.api.search",
    "run tiny.json --arrays ring-of-4-bus-tree-1024 --tp 2": "pe_sim.systems.api.simulate_system",
    "generate tiny.json": "pe_sim.api.generate",
    "generate tiny.json --pairs all": "pe_sim.api.best_switch",
    "compare tiny.json": "pe_sim.api.simulate",
    "search tiny.json": "pe_sim.api.search",
    "search tiny.json --arrays ring-of-4-bus-tree-1024": "pe_sim.systems.search.search.search_system",
    "sweep swept.yaml --out out": "pe_sim.studies.sweep.sweep",
    "sensitivity tiny.json": "pe_sim.studies.sensitivity.sensitivity",
    "verify tiny.json": "pe_sim.api.verify",
    "verify tiny.json --arrays ring-of-4-bus-tree-1024 --tp 2": "pe_sim.systems.api.verify_system",
    "collective all-reduce --bytes 8": "pe_sim.api.collective",
    "gemm -m 1 -k 8 -n 8": "pe_sim.api.gemm",
    "topology mesh-256": "pe_sim.network.metrics.topology_metrics",
}


@pytest.mark.parametrize("command", WORK)
def test_every_command_that_may_take_long_tells_while_it_works(call, tiny, heard, monkeypatch, command):
    def silent(*args, **options):
        assert heard.written.wait(PROMPT_SECONDS)
        raise InputError("heard enough")

    monkeypatch.setattr(WORK[command], silent)
    assert "heard enough" in call(*command.split()).stderr
    assert heard.getvalue().startswith(f"pe-sim {command.split()[0]}")


def test_writing_the_results_tells_too(call, tiny, heard, monkeypatch):
    def slow(report):
        assert heard.written.wait(PROMPT_SECONDS)
        heard.written.clear()
        assert heard.written.wait(PROMPT_SECONDS)
        return "{}"

    monkeypatch.setattr("pe_sim.report.report.Report.to_json", slow)
    assert call("run", tiny, "--json", "out.json").exit_code == 0
    assert "pe-sim run: writing what was asked for, 0 s\n" in heard.getvalue()


def test_a_sweep_tells_its_rate_and_what_failed(call, tiny, heard, monkeypatch):
    def swept(*args, progress, **options):
        from pe_sim.studies.sweep import Progress as News

        progress(News(0, 0, 6, ""))
        progress(News(3, 1, 6, ""))
        heard.written.clear()
        assert heard.written.wait(PROMPT_SECONDS)
        raise InputError("heard enough")

    monkeypatch.setattr("pe_sim.studies.sweep.sweep", swept)
    call("sweep", "swept.yaml", "--out", "out")
    last = heard.getvalue().splitlines()[-1]
    assert last.startswith("pe-sim sweep: points (")
    assert last.endswith("/s, 1 failed): 3 of 6, 0 s")
