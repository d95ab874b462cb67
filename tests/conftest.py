"""Hypothesis profiles: no deadline anywhere (machines differ), and the same examples every time in CI.

Tests marked `rtl` are skipped on a machine that cannot build the RTL; where PE_SIM_REQUIRE_RTL is set they fail there.
"""

import os
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from hypothesis import settings

from tests.rtl.build import available

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
# HYPOTHESIS_PROFILE=ci is set by .ci/run; pytest's own --hypothesis-profile still wins over it.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = available() if item.get_closest_marker("rtl") else ""
    if reason and os.environ.get("PE_SIM_REQUIRE_RTL"):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture
def no_window() -> Iterator[None]:
    """Plots open no window, change no settings and are closed."""
    with mpl.rc_context():
        plt.switch_backend("agg")
        yield
        plt.close("all")
