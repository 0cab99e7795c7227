# Everything happens in .venv, which `make build` makes from PYTHON (3.11 or later). The package is installed in place, so
# that Python sources need no step and only a changed extension is compiled again.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
EXTENSIONS := $(wildcard core/*.pyx)
ARGS ?=
# A Redis that is named is one that tests empty, each for itself.
PROCESSES ?= $(if $(TEST_REDIS_URL),0,auto)
PARALLEL := --numprocesses=$(PROCESSES) --maxprocesses=4 --dist=worksteal

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help build run test test-slow check check-deploy bench bench-check bench-baseline image test-image clean

help:
	@echo "make run     start the service on 127.0.0.1:8080 (ARGS=... are passed to kyb serve)"
	@echo "make build   make .venv, install the package, compile the core"
	@echo "make test    run the test suite (ARGS=... are passed to pytest)"
	@echo "make test-slow   run the long proofs, such as 50 crashes of the database"
	@echo "make image   build the container image (BASE=... names its base, BASE=local has one made here)"
	@echo "make test-image   build it, and run it hardened in podman: as root"
	@echo "make check   lint, types, stubs, layers"
	@echo "make check-deploy   what checkov, hadolint and the Prometheus Operator say of deploy/"
	@echo "make bench   run the benchmarks"
	@echo "make bench-check      fail where something has become more than 15 % slower against its yardstick"
	@echo "make bench-baseline   measure anew what bench-check holds against (ARGS='-k name' for some)"
	@echo "make clean   remove everything that was made; data stays"

build: $(VENV)/.compiled

run: build
	@exec $(VENV)/bin/kyb serve $(ARGS)

test: build $(VENV)/.group-test
	$(PY) -m pytest -m "not slow and not image" $(PARALLEL) $(ARGS)

test-slow: build $(VENV)/.group-test
	$(PY) -m pytest -m slow $(ARGS)

check: build $(VENV)/.group-dev $(VENV)/.group-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy.stubtest $(EXTENSIONS:core/%.pyx=core.%)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint $(EXTENSIONS) $(wildcard core/*.pxd)
	$(VENV)/bin/shellcheck -x -a scripts/deploy_10k_scale.sh
	$(PY) -m pytest -q tests/test_layers.py

# The pins of checkov do not go with those of the service.
check-deploy: build $(VENV)/.group-test $(VENV)/deploy/.installed
	@$(VENV)/deploy/bin/python deploy/check.py $(VENV)/bin/kubectl

bench: build $(VENV)/.group-bench
	$(PY) -m pytest benchmarks $(ARGS)

bench-check: build $(VENV)/.group-bench
	$(PY) benchmarks/check_ratios.py $(ARGS)

bench-baseline: build $(VENV)/.group-bench
	$(PY) benchmarks/check_ratios.py --keep $(ARGS)

image: $(VENV)/.made
	PYTHON=$(PY) BASE="$(BASE)" scripts/build_image.sh

test-image: image build $(VENV)/.group-test $(VENV)/.group-image
	$(PY) -m pytest -m image $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info core/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@command -v "$(PYTHON)" >/dev/null || { echo "make: $(PYTHON) is not installed; install Python 3.11 or later, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$("$(PYTHON)" --version 2>&1) is too old; name a Python of version 3.11 or later: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make environments; install its venv package (Debian: apt-get install python3-venv)"; exit 1; }
	@cc=$$("$(PYTHON)" -c 'import os, sysconfig; print((os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0])'); \
	  command -v "$$cc" >/dev/null || { echo "make: there is no C compiler ($$cc); install one (Debian: apt-get install gcc libc6-dev), or name it in CC"; exit 1; }
	@"$(PYTHON)" -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())' || { echo "make: the C headers of $(PYTHON) are missing; install them (Debian: apt-get install python3-dev)"; exit 1; }
	@echo "making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing the package and what it needs, compiling the core"
	@$(PIP) setuptools Cython
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.compiled: $(VENV)/.installed setup.py $(EXTENSIONS) $(wildcard core/*.pxd)
	@$(PY) setup.py --quiet build_ext --inplace $(if $(filter setup.py,$?),--force)
	@touch $@

$(VENV)/deploy/.installed: $(VENV)/.made pyproject.toml deploy/constraints.txt
	@echo "making $(VENV)/deploy with the packages of the group deploy"
	@$(PY) -m venv --clear $(VENV)/deploy
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["deploy"], sep="\n")' > $(VENV)/deploy/requirements.txt
	@$(VENV)/deploy/bin/python -m pip install --quiet --disable-pip-version-check --constraint deploy/constraints.txt --requirement $(VENV)/deploy/requirements.txt
	@touch $@

$(VENV)/.group-%: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing the packages of the group $*"
	@$(PY) -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")' $* > $@
	@$(PIP) --requirement $@
