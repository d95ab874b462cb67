"""What the tests of all experiments share."""

import pytest

from tests.experiments.studies import quick_run


@pytest.fixture(scope="module")
def quick(request, tmp_path_factory):
    """Of the module's `experiment`: its table of a --quick run, what the command said, and the folder it wrote to."""
    folder = tmp_path_factory.mktemp("quick")
    return (*quick_run(request.module.experiment.STUDY, folder), folder)
