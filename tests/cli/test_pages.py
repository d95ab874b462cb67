"""--html and --trace-pes: files like the others, and wrong input told before anything is simulated."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import files


def test_run_writes_a_page(call, tiny):
    before = files()
    result = call("run", tiny, "--workflow", "megatron", "--html", "out.html", "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert files() - before == {Path("out.html"), Path("out.json")}
    page = Path("out.html").read_text(encoding="utf-8")
    cycles = json.loads(Path("out.json").read_text(encoding="utf-8"))["latency"]["cycles"]
    assert page.startswith("<!DOCTYPE html>")
    assert f"{cycles:,} cycles" in page


def test_compare_writes_a_page_with_what_failed(call, tiny):
    workflows = "megatron,workflow-2,batch-block"
    result = call("compare", tiny, "--workflows", workflows, "--batch", "3", "--html", "out.html")
    assert result.exit_code == 0, result.output
    page = Path("out.html").read_text(encoding="utf-8")
    told = "batch-block cannot do this step:"
    assert (told in page) == (told in result.stdout)
    assert page.count('class="timeline"') == 3 - (told in page)


def test_search_writes_the_page_of_the_best(call, tiny):
    result = call("search", tiny, "--simulations", "1", "--html", "out.html")
    assert result.exit_code == 0, result.output
    assert 'class="timeline"' in Path("out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["run", "compare", "search"])
def test_a_page_is_of_one_step(refused, tiny, command):
    message = refused(command, tiny, "--situation", "mixed", "--html", "out.html")
    assert message.startswith("--html: this file holds one step, and the situation mixed has")


@pytest.mark.parametrize("command", ["run", "compare", "search"])
def test_pages_go_where_files_can_go(refused, tiny, command):
    message = refused(command, tiny, "--html", "nowhere/out.html")
    assert message.startswith("--html: the folder of this file does not exist")
    assert refused(command, tiny, "--html", ".").startswith("--html: this is a folder")
    assert refused(command, tiny, "--html", "-").startswith("--html: not a file")
    message = refused(command, tiny, "--json", "out", "--html", "./out")
    assert message.startswith("--html: the same file as --json")


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_page_holds_one_step(refused, tiny, command):
    message = refused(command, tiny, "--situation", "mixed", "--html", "out.html")
    assert message.startswith("--html: this file holds one step, and the situation mixed has 5")


def test_nothing_is_left_when_a_page_cannot_be_made(call, tiny, monkeypatch):
    before = files()
    monkeypatch.setattr("pe_sim.report.html.page.report_html", lambda report: 1 / 0)
    assert call("run", tiny, "--html", "out.html", "--csv", "out.csv").exit_code == 1
    assert files() == before


def tracks(path: str) -> list[str]:
    events = json.loads(Path(path).read_text(encoding="utf-8"))["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    return [name for name in names if name.startswith("PE") and "memory port" not in name]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("0,5,8-10", ["PE 0", "PE 5", "PE 8", "PE 9", "PE 10"]),
        (" 3 , 1 ", ["PE 1", "PE 3"]),
        ("all", [f"PE {pe}" for pe in range(16)]),
    ],
)
def test_a_trace_of_chosen_pes(call, tiny, choice, expected):
    result = call("run", tiny, "--set", "num_pes=16", "--trace", "out.json", "--trace-pes", choice)
    assert result.exit_code == 0, result.output
    assert tracks("out.json") == expected


def test_classes_are_what_is_shown_by_default(call, tiny):
    named = call("run", tiny, "--trace", "classes.json", "--trace-pes", "classes")
    assert named.exit_code == call("run", tiny, "--trace", "default.json").exit_code == 0
    assert Path("classes.json").read_bytes() == Path("default.json").read_bytes()


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("alle", "no such choice of PEs\n  given:    'alle'"),
        ("", "not a whole number\n  given:    ''"),
        ("1,,2", "not a whole number\n  given:    '1,,2'"),
        ("5-", "not a whole number\n  given:    '5-'"),
        ("-5", "not a whole number\n  given:    '-5'"),
        ("9-5", "not a range of PEs\n  given:    '9-5'"),
        ("1-2-3", "not a range of PEs\n  given:    '1-2-3'"),
        ("0-99999999999999", "not a range of PEs\n  given:    '0-99999999999999'"),
        ("256", "there is no such PE\n  given:    256\n  expected: classes, all, or numbers of PEs, 0 to 255"),
    ],
)
def test_pes_that_cannot_be_chosen(refused, tiny, choice, told):
    assert refused("run", tiny, "--trace", "out.json", "--trace-pes", choice).startswith(f"--trace-pes: {told}")


def test_pes_are_chosen_for_a_trace(refused, tiny):
    assert refused("run", tiny, "--trace-pes", "0").startswith("--trace-pes: there is no trace to choose PEs for")
