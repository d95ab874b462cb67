"""The one place of the version; read by the build (hatchling) and by `pe_sim.__version__`."""

__version__ = "0.1.0"
