"""The tables for a person: right numbers, plain text, the same everywhere."""

import io
import re
import sys

import pytest

from pe_sim.config.step import Decode
from pe_sim.errors import InputError
from pe_sim.report.compare import Ranking
from pe_sim.report.step import GROUPS, group_of, parts
from pe_sim.report.table import WIDTH, print_report
from tests.helpers import render_comparison, render_report
from tests.report.samples import WORKFLOWS, simulate_tiny, tiny


def line_of(text: str, name: str, after: str = "") -> str:
    """The line whose first cell is `name`, or else begins so; blanks and the mark of the best aside."""
    lines = text[text.index(after) :].splitlines()
    cells = [re.split(r"\s{2,}", line.removeprefix("* ").strip())[0] for line in lines]
    found = [line for line, cell in zip(lines, cells, strict=True) if cell == name]
    return found[0] if found else next(line for line, cell in zip(lines, cells, strict=True) if cell.startswith(name))


def numbers(line: str) -> list[str]:
    return re.findall(r"[-+]?\d[\d,.]*", line)


def test_the_report_shows_what_was_simulated_and_its_figures() -> None:
    report = tiny("workflow-1", 16)
    text = render_report(report)
    assert f"{report.latency_cycles:,} cycles" in line_of(text, "latency")
    assert f"{report.tokens_per_second:,.2f} tokens/s" in line_of(text, "throughput")
    assert "tiny" in line_of(text, "model")
    assert "bus-tree-64: 16 PEs" in line_of(text, "array")
    assert "decode, batch_size 1, context_len 40" in line_of(text, "step")
    assert "fast, overlap 1" in line_of(text, "engine")
    for tag, use in report.traffic.items():
        if use.messages:
            line = line_of(text, tag, "Traffic")
            assert numbers(line)[0] == f"{use.messages:,}"
            assert f"{use.busy_cycles:,}" in numbers(line)
        else:
            assert tag not in text
    assert f"{report.utilization['pe_memory']:.1%}" in line_of(text, "PE memory ports", "Utilization")
    assert f"{report.bounds['memory_cycles']:,}" in line_of(text, "memory port of the busiest PE")
    assert f"{report.memory['largest_batch_size']:,} sequences" in line_of(text, "largest batch")
    assert f"{report.memory['longest_context_len']:,} tokens" in line_of(text, "longest context")


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_the_breakdown_adds_up(workflow: str) -> None:
    report = tiny(workflow)
    found = parts(report)
    assert sum(part.cycles for part in found) == report.latency_cycles
    text = render_report(report)
    section = text[text.index("Where the time goes") : text.index("\nTraffic")]
    for part in found:
        assert numbers(line_of(section, part.name))[0] == f"{part.cycles:,}"
    assert numbers(line_of(section, "latency"))[0] == f"{report.latency_cycles:,}"
    whole = sum(int(numbers(line_of(section, kind))[0].replace(",", "")) for kind in ("computation", "communication"))
    assert whole == report.latency_cycles


def test_operators_are_grouped_as_people_speak_of_them() -> None:
    groups = {operator.name: group_of(operator) for _, operator in tiny().graph.instances()}
    assert {groups[name] for name in ("q", "k", "v", "o")} == {"attention projections"}
    assert {groups[name] for name in ("rope", "kv_append", "scores", "softmax", "values")} == {"attention"}
    assert {groups[name] for name in ("gate", "up", "silu_mul", "down")} == {"FFN"}
    assert {groups[name] for name in ("attention_norm", "ffn_add", "final_norm")} == {"norms & adds"}
    assert groups["lm_head"] == "LM head"
    assert {groups[name] for name in ("embedding", "argmax", "select")} == {"embedding & argmax"}
    assert set(groups.values()) <= set(GROUPS)


def test_bound_by_names_the_largest_part_of_the_path() -> None:
    assert "local memory" in line_of(render_report(tiny("workflow-1", 1)), "bound by")
    slow = simulate_tiny("all-row", 16, network__bus__bytes_per_cycle=1, network__bus__overhead_cycles=50)
    assert "the bus: " in line_of(render_report(slow), "bound by")


def test_the_text_is_plain_narrow_and_independent_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = render_report(tiny("workflow-1", 16))
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert render_report(tiny("workflow-1", 16)) == text
    assert text.isascii()
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_a_name_in_brackets_is_not_taken_for_markup() -> None:
    assert "[red]x" in render_report(simulate_tiny("megatron", 2, name="[red]x"))


def test_a_batch_of_many_lengths_shows_their_range() -> None:
    report = simulate_tiny("megatron", 2, Decode(context_len=[5, 90, 30]))
    assert "batch_size 3, context_len 5..90" in line_of(render_report(report), "step")


def test_print_goes_to_the_file_or_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    print_report(tiny(), file)
    assert capsys.readouterr().out == ""
    tiny().print()
    assert capsys.readouterr().out == file.getvalue() == render_report(tiny())
    tiny().print(sys.stderr)
    assert capsys.readouterr().err == file.getvalue()


def test_the_comparison_marks_the_best_and_explains_the_difference() -> None:
    reports = [tiny(workflow, 16) for workflow in WORKFLOWS]
    best = Ranking.of(reports, WORKFLOWS, {}).best
    assert reports[best].latency_cycles == min(report.latency_cycles for report in reports)
    text = render_comparison(reports)
    overview = text[: text.index("Why")]
    marked = [line for line in overview.splitlines() if line.startswith("* ")]
    assert len(marked) == 1
    assert marked[0].startswith(f"* {WORKFLOWS[best]} ")
    for workflow, report in zip(WORKFLOWS, reports, strict=True):
        line = line_of(overview, workflow)
        assert f" {report.latency_cycles:,} " in line
        assert f"{sum(use.messages for use in report.traffic.values()):,}" in line
    latency = line_of(text, "latency", "Why").split()[1:]
    for index, report in enumerate(reports):
        difference = report.latency_cycles - reports[best].latency_cycles
        expected = f"{report.latency_cycles:,}" if index == best else f"{difference:+,}" if difference else "="
        assert latency[index] == expected
    section = text[text.index("Why: where") : text.index("Why: messages")]
    for part in parts(reports[best]):
        assert f" {part.cycles:,}" in line_of(section, part.name)
    broadcast = reports[0].traffic["broadcast"]
    assert f"{broadcast.messages:,} / " in line_of(text, "broadcast", "Why: messages")


def test_the_differences_of_a_column_add_up() -> None:
    reports = [tiny(workflow, 16) for workflow in WORKFLOWS]
    best = Ranking.of(reports, WORKFLOWS, {}).best
    text = render_comparison(reports)
    section = text[text.index("Why: where") : text.index("Why: messages")].splitlines()
    rows = [line for line in section if re.search(r"[\d=]$", line)]
    table = [re.split(r"\s{2,}", line.strip())[1:] for line in rows]
    assert len(table) > 6
    for column in range(len(reports)):
        if column != best:
            values = [0 if row[column] == "=" else int(row[column].replace(",", "")) for row in table]
            assert sum(values[:-1]) == values[-1]


def test_one_report_needs_no_explanation_and_none_is_refused() -> None:
    assert "Why" not in render_comparison([tiny()])
    with pytest.raises(InputError, match="0 reports cannot be compared"):
        render_comparison([])
    with pytest.raises(InputError, match="2 reports cannot be compared under 1 labels"):
        render_comparison([tiny(), tiny()], ["a"])


def test_repeated_workflows_are_told_apart_by_their_arrays() -> None:
    reports = [simulate_tiny("megatron", 4, name=name) for name in ("left", "right")]
    text = render_comparison(reports)
    assert "* megatron on left" in text
    assert "megatron on right" in text
