# Two commands set everything up on a machine with Python 3.11 or newer: `make simulate` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests side by side; each of them may start a server and two workers.
JOBS ?= 2
# What torch may use, for its own kernels, those of oneDNN and those of MKL. They read it when a process starts.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
LOWEST := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2
# Files with tests of rounding: to collect all others takes as long as some of these tests.
ROUNDING = $(shell grep -rl 'mark\.rounding' tests --include='test_*.py')

# What writes the lock: for every platform and Python, one version of each package, no name of an index.
COMPILE := $(BIN)/uv pip compile pyproject.toml --group lock --quiet --universal --fork-strategy fewest \
    --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
    --custom-compile-command "make lock"

.PHONY: simulate test rounding check config coverage docs lock newest bars families strategies bench bench-docs \
    scale kills gpu centralized asynchronous clean

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
	$(AVX2) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "rounding and not bar" $(ROUNDING)
	$(LOWEST) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "rounding and not slow and not bar" $(ROUNDING)
endif

# What a developer runs all day.
check: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not bar"

# Write the run config's keys, defaults and comments into pyproject.toml, from the config classes.
config: $(VENV)/installed
	$(BIN)/python -m simulations.config_block

# The quick tests once more, with the lines that they do not reach.
coverage: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not bar" --cov --cov-report=term:skip-covered

# The pages of docs/ as a site, in build/site; a broken link fails.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Write the lock anew after a change of dependencies; with UPGRADE=--upgrade take the newest versions.
lock: $(VENV)/installed-dev
	$(COMPILE) $(UPGRADE) --output-file requirements.lock
	$(COMPILE) $(UPGRADE) --extra dev --constraints requirements.lock --output-file requirements-dev.lock

# Report what the newest versions would change in the lock; the lock stays as it is.
newest: $(VENV)/installed-dev
	@mkdir -p build
	@$(COMPILE) --upgrade --extra dev --output-file build/newest.lock
	@grep -o '^[^ ]*==[^ ]*' requirements-dev.lock > build/locked.txt
	@grep -o '^[^ ]*==[^ ]*' build/newest.lock > build/newest.txt
	@diff --unified=0 build/locked.txt build/newest.txt && echo "The lock holds the newest versions." || true

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

# Rounds that wait for slow clients against rounds that do not: simulated time to 0.90, three seeds each.
asynchronous: $(VENV)/installed
	$(BIN)/polyfed sweep simulations/configs/slow-clients.toml --arms simulations/bench/asynchronous.toml \
	    --seeds 1,2,3 --target 0.9 --folder runs/asynchronous

# Seconds a round of four workloads, side by side: polyfed, a stock Flower app, plain PyTorch. A quarter of an hour.
bench: $(VENV)/installed
	$(BIN)/python -m simulations.bench.rounds

# That, start-up in its parts, and how a round grows; then the tables and figures of docs/results.md anew.
bench-docs: bench
	$(BIN)/python -m simulations.bench.startup
	$(BIN)/python -m simulations.bench.scaling
	$(BIN)/python -m simulations.bench.page

# Start-up, round time and memory with 1,000,000 clients against 1,000.
scale: $(VENV)/installed
	$(BIN)/python -m simulations.bench.scale

# Kill short runs at random instants, and count what is left of them: processes, shared memory, temporary files.
kills: $(VENV)/installed
	$(BIN)/python -m simulations.bench.kills

# What a GPU does: the same hash again, families against the CPU, stacked clients, transfers, shared GPUs.
gpu: $(VENV)/installed
	$(BIN)/python -m simulations.bench.gpu

# The main job federated IID and centralized, side by side.
centralized: $(VENV)/installed
	$(BIN)/polyfed run simulations/configs/cnn.toml --run-dir runs/cnn
	$(BIN)/polyfed run simulations/configs/cnn-centralized.toml --run-dir runs/cnn-centralized
	$(BIN)/polyfed compare runs/cnn runs/cnn-centralized

clean:
	rm -rf $(VENV)

# The exact versions of the lock, each checked by its hash, and polyfed itself from this folder. The lock
# names every package, so pip follows no dependency: it would take the newest version of one asked for with
# an extra, such as coverage[toml], and refuse the lock on the day that a newer one is out.
$(VENV)/installed: pyproject.toml requirements.lock
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-dev.lock
	touch $@
