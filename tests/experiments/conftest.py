"""What the tests of all experiments share."""

from pathlib import Path

import pytest

from tests.experiments.studies import quick_run

RUN_WITH_THE_QUICK_TESTS = ("collectives_against_n", "degradation")
RUNS = ("quick", "spots")  # fixtures that run an experiment


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Even a small part of most experiments takes many seconds: tests that need one are slow tests."""
    for item in items:
        ours = Path(__file__).parent in item.path.parents
        known = item.path.stem.removeprefix("test_") in RUN_WITH_THE_QUICK_TESTS
        if ours and not known and set(RUNS) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def quick(request, tmp_path_factory):
    """Of the module's `experiment`: its table of a --quick run, what the command said, and the folder it wrote to."""
    folder = tmp_path_factory.mktemp("quick")
    return (*quick_run(request.module.experiment.STUDY, folder), folder)
