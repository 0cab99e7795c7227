"""The KYB risk-assessment service around the compiled core."""

from importlib.metadata import version

__version__ = version("risk-assessment-service")
