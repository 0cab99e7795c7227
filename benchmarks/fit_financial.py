"""Fits the points of the financial ratios of the default scorecard on companies with a known outcome.

    python benchmarks/fit_financial.py 5year.arff                         the ranking, cross-validated and in sample
    python benchmarks/fit_financial.py 5year.arff --stress                also on other readings, with fields left out
    python benchmarks/fit_financial.py 5year.arff --yaml characteristics  the fragment for the model file, or features

The method: see scorecard.py.
The companies: UCI 365, Zieba, Tomczak and Tomczak 2016, see companies.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from companies import read_arff, rebuild
from fragment import characteristics_yaml, features_yaml
from ratios import RATIOS
from scorecard import fit
from validation import other_readings, report, stress


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the points of the financial ratios.")
    parser.add_argument("arff", type=Path, help="a file of the Polish companies bankruptcy data (UCI 365)")
    parser.add_argument("--yaml", choices=("features", "characteristics"), help="print this fragment of the model file")
    parser.add_argument("--stress", action="store_true", help="how much of the ranking rests on what")
    options = parser.parse_args()
    ratios, failed = read_arff(options.arff)
    amounts = rebuild(ratios)
    if options.yaml == "features":
        print(features_yaml(RATIOS))
        return
    card = fit(RATIOS, amounts, failed)
    if options.yaml == "characteristics":
        print(characteristics_yaml(card))
        return
    report(card, amounts, failed)
    if options.stress:
        stress(card, amounts, failed, [rebuild(ratios, one) for one in other_readings()])


if __name__ == "__main__":
    main()
