"""Hypothesis profiles: no deadline anywhere (machines differ), and the same examples every time in CI.

Tests marked `rtl` are skipped on a machine that cannot build the RTL; where PE_SIM_REQUIRE_RTL is set they fail there.
"""

import math
import os
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from hypothesis import settings

import pe_sim as ps
from pe_sim.cli.commands.search import search as search_command
from pe_sim.systems.search import search as systems_search
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


@pytest.fixture(scope="session", autouse=True)
def _searches_end_by_themselves() -> Iterator[None]:
    """What a test finds depends on no clock: a search that is given no time has as much as it needs."""
    with pytest.MonkeyPatch.context() as patch:
        for search in (ps.search, systems_search.search_system):
            patch.setitem(search.__kwdefaults__, "seconds", math.inf)
        patch.setattr(systems_search, "DEFAULT_SECONDS", math.inf)
        option = next(each for each in search_command.params if each.name == "seconds")
        patch.setattr(option, "default", "inf")
        yield


@pytest.fixture
def no_window() -> Iterator[None]:
    """Plots open no window, change no settings and are closed."""
    with mpl.rc_context():
        plt.switch_backend("agg")
        yield
        plt.close("all")
