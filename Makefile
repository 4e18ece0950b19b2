# Two commands set everything up on a machine with Python 3.11 or newer: `make simulate` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests side by side; each of them may start a server and two workers.
JOBS ?= 2
# What torch may use, for its own kernels, those of oneDNN and those of MKL. They read it when a process starts.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
LOWEST := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2

.PHONY: simulate test rounding check config bars families strategies bench scale centralized clean

# The main job: install, train, and end with the path of the report.
simulate: $(VENV)/installed
	$(BIN)/polyfed run simulations/configs/mnist.toml

# Everything that CI checks.
test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not bar"
	$(MAKE) rounding

# What depends on rounding, as other x86-64 processors round: those without AVX-512, and the plainest.
rounding: $(VENV)/installed-dev
ifeq ($(shell uname -m),x86_64)
	$(AVX2) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "rounding and not bar"
	$(LOWEST) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "rounding and not slow and not bar"
endif

# What a developer runs all day.
check: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow"

# Write the run config's keys, defaults and comments into pyproject.toml, from the config classes.
config: $(VENV)/installed
	$(BIN)/python -m simulations.config_block

# Train every family against its bar; this takes an hour or more.
bars: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m bar

# Every family untrained, local only, federated and centralized, in one table; one that was begun goes on.
families: $(VENV)/installed
	$(BIN)/python -m simulations.bench.families

# Every strategy where clients drift apart, three seeds each: rounds to 0.90 and final accuracy.
strategies: $(VENV)/installed
	$(BIN)/polyfed sweep simulations/configs/mnist-skewed.toml --arms simulations/bench/strategies.toml \
	    --seeds 1,2,3 --target 0.9 --folder runs/strategies

# Seconds a round, side by side: polyfed, a stock Flower app, a plain PyTorch loop.
bench: $(VENV)/installed
	$(BIN)/python -m simulations.bench.overhead

# Start-up, round time and memory with 100,000 clients against 1,000.
scale: $(VENV)/installed
	$(BIN)/python -m simulations.bench.scale

# The main job federated IID and centralized, side by side.
centralized: $(VENV)/installed
	$(BIN)/polyfed run simulations/configs/cnn.toml --run-dir runs/cnn
	$(BIN)/polyfed run simulations/configs/cnn-centralized.toml --run-dir runs/cnn-centralized
	$(BIN)/polyfed compare runs/cnn runs/cnn-centralized

clean:
	rm -rf $(VENV)

$(VENV)/installed: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
