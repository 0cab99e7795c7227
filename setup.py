"""The compiled extensions: every core/*.pyx. All else stands in pyproject.toml.

KYB_DEBUG_BUILD=1 compiles with bounds checks and sanitizers; run with LD_PRELOAD="$(cc -print-file-name=libasan.so)"
and ASAN_OPTIONS=detect_leaks=0. A module must not set these directives itself: its own would win over the switch.
"""

import os
from glob import glob
from multiprocessing import get_start_method
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("KYB_DEBUG_BUILD") == "1"
JOBS = os.cpu_count() or 1
# Contraction and fast-math would make the same sum differ between machines.
FLAGS = ["-O3", "-ffp-contract=off", "-fno-fast-math"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]

extensions = [
    Extension(
        f"core.{Path(source).stem}",
        [source],
        extra_compile_args=[*FLAGS, "-O1", "-g", "-fno-omit-frame-pointer", *SANITIZERS] if DEBUG else FLAGS,
        extra_link_args=SANITIZERS if DEBUG else [],
    )
    for source in sorted(glob("core/*.pyx"))
]
setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build/debug" if DEBUG else "build/release",
        nthreads=JOBS if get_start_method() == "fork" else 0,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": DEBUG,
            "initializedcheck": DEBUG,
            "cdivision": True,
        },
    ),
    options={"build_ext": {"parallel": JOBS}},
)
