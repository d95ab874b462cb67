"""Hypothesis profiles: no deadline anywhere (machines differ), and the same examples every time in CI."""

import os

from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
# HYPOTHESIS_PROFILE=ci is set by .ci/run; pytest's own --hypothesis-profile still wins over it.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
