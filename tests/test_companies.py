"""The model on real companies whose outcome is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPANIES = ROOT.parent / "shared" / "data" / "polish" / "5year.arff"
