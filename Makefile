# make demo   people in the bundled clip, no GPU needed        make test    the tests
# make lint   ruff, without torch                              make types   mypy
# make docs   the documentation, into site/                    make gpu     a machine with an NVIDIA GPU
#
# Everything goes into .venv. PYTHON chooses the interpreter (3.11 to 3.13), and on Linux
# TORCH_INDEX=https://download.pytorch.org/whl/cpu fetches the small CPU build of torch for `make test`.
# pip is brought up to date first: older ones find no version of CUDA's wheels that suits both torch and numba-cuda.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest
SIMULATED := tests/kernels/cuda
SETTINGS := pyproject.toml constraints.txt

.PHONY: demo test test-slow faults audit lint types docs format gpu samples upgrade clean
.DELETE_ON_ERROR:

demo: $(VENV)/.default
	@mkdir -p $(OUT)
	$(BIN)/python run_video.py samples/crowd.mp4 --save $(OUT)/demo.mp4 --json $(OUT)/demo.jsonl
	@echo "Annotated video: $(OUT)/demo.mp4    people, one line a frame: $(OUT)/demo.jsonl"

test: $(VENV)/.test
	$(PYTEST)
	NUMBA_ENABLE_CUDASIM=1 $(PYTEST) $(SIMULATED)

# A Ray cluster of two nodes whose parts are killed, and what else takes minutes.
test-slow: $(VENV)/.test
	$(PYTEST) -m "slow and not gpu"

# Every bad input of tests/faults, some 900 of them: about ten minutes.
faults: $(VENV)/.test
	$(PYTEST) -m faults tests/faults --timeout 200

# Known vulnerabilities of the exact versions in constraints.txt; asks pypi.org, and fails if it does not answer.
audit: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip-audit>=2.9"
	$(BIN)/python -m commands.audit constraints.txt

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.types
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --quiet --strict

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gpu: $(VENV)/.default
	$(BIN)/python -m commands.setup_gpu
	$(BIN)/python -m commands.selfcheck

samples: $(VENV)/.default
	$(BIN)/python -m samples.make_crowd
	$(BIN)/python -m commands.make_demo

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 11) <= v <= (3, 13); \
	  sys.exit(0 if ok else f"$(PYTHON) is Python {v[0]}.{v[1]}; expected 3.11 to 3.13. Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv --upgrade-deps $(VENV)

$(VENV)/.default: $(SETTINGS) | $(VENV)/bin/python
	$(PIP) .
	@touch $@

$(VENV)/.test: $(SETTINGS) | $(VENV)/bin/python
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch)
	$(PIP) ".[test]"
	@touch $@ $(VENV)/.default

$(VENV)/.types: $(SETTINGS) | $(VENV)/.test
	$(PIP) ".[types]"
	@touch $@

$(VENV)/.lint $(VENV)/.docs: $(VENV)/.%: $(SETTINGS) | $(VENV)/bin/python
	$(PIP) ".[$*]"
	@touch $@

upgrade:
	rm -rf $(VENV)-upgrade && $(PYTHON) -m venv --upgrade-deps $(VENV)-upgrade
	$(VENV)-upgrade/bin/python -m pip install --quiet --upgrade ".[types,docs]"
	(sed -n '/^#/p' constraints.txt; $(VENV)-upgrade/bin/python -m pip freeze --exclude higherpose \
	  | grep -viE '^(nvidia-|cuda-toolkit|tensorrt_rtx_cu|pip|setuptools)' | sed 's/+cpu//') > constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-upgrade

clean:
	rm -rf $(VENV) $(OUT) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
