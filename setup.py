"""The compiled extensions: every core/*.pyx. All else stands in pyproject.toml.

KYB_DEBUG_BUILD=1 with `build_ext --inplace --force` builds them with bounds checks and sanitizers; to run such a build,
set LD_PRELOAD="$(cc -print-file-name=libasan.so)" and ASAN_OPTIONS=detect_leaks=0.
"""

import os
import re
from multiprocessing import get_start_method
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("KYB_DEBUG_BUILD") == "1"
BUILD = Path("build/debug" if DEBUG else "build/release")
JOBS = os.cpu_count() or 1
# Contraction and fast-math would let the same sum differ between machines.
EXACT = ["-ffp-contract=off", "-fno-fast-math"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
COMPILE = ["-O1", "-g", "-fno-omit-frame-pointer", *SANITIZERS] if DEBUG else ["-O3"]


def source(path: Path) -> str:
    """The file to compile. A module's `# cython:` line wins over ours, so a debug build compiles a copy without it."""
    if not DEBUG:
        return str(path)
    copy = BUILD / "sources" / path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(re.sub(r"^# cython:.*$", "#", path.read_text(), flags=re.MULTILINE))
    return str(copy)


setup(
    ext_modules=cythonize(
        [
            Extension(
                f"core.{path.stem}",
                [source(path)],
                extra_compile_args=[*COMPILE, *EXACT],
                extra_link_args=SANITIZERS if DEBUG else [],
            )
            for path in sorted(Path("core").glob("*.pyx"))
        ],
        build_dir=str(BUILD),
        nthreads=JOBS if get_start_method() == "fork" else 0,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "initializedcheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
        },
    ),
    options={"build_ext": {"parallel": JOBS}},
)
