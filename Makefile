# make setup, then make main (the main job) or make test. No tool beyond Python and make is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OLDEST ?= $(VENV)-oldest
ENGINES ?= $(VENV)-engines
ECOSYSTEM ?= $(VENV)-ecosystem
# Tests start some hundred processes: what these import is compiled once, also where Python is told
# to write no bytecode.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup tools main check test test-torch test-threads test-page test-oldest test-engines test-ecosystem lint audit lock bench
.PHONY: quality proofs native sanitize wheels fresh-wheel
.PHONY: house docs release reproducible docs-offline clean

setup: $(VENV)/tested

# The package and what it needs, no more. If uv is installed, torch comes without libraries for GPUs; else as the
# index of pip has it.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	(command -v uv > /dev/null && uv pip install --python $(BIN)/python --torch-backend=cpu --editable .) \
		|| $(BIN)/python -m pip install --disable-pip-version-check --editable .
	touch $@

# What tests, style and types need as well.
$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --disable-pip-version-check --editable ".[test]"
	touch $@

main: $(VENV)/installed
	$(BIN)/python -m sklearn_din

# While one works: style, types, and the tests that take less than half a second each (tests/conftest.py
# names the others). Under two minutes on two processors.
check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow" tests

# One test per processor at a time, with one thread each: the tests are too small for more. The page is
# looked at by make test-page.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --ignore=tests/test_page.py

# What fits and predicts, once more by torch alone: as where no compiler is.
test-torch: setup
	SKLEARN_DIN_NATIVE=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/test_native.py \
		tests/test_estimator.py tests/test_net.py tests/test_summary.py \
		tests/test_ranking.py::test_rankings_by_every_model_equal_scoring_each_pair_alone

# What fits, once more by two threads, which share each step, by the code for this processor alone.
test-threads: setup
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -k "not plain- and not AVX2-" tests/test_native.py tests/test_net.py \
		tests/test_concurrency.py

# The native code, compiled anew after a change of its sources.
native: setup
	$(BIN)/python -m sklearn_din.native.build

# Its tests, while the compiler's own checks watch memory and undefined behaviour; they end a process that gets no
# memory, before anything is raised.
sanitize: setup
	CXXFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all" \
		$(BIN)/python -m sklearn_din.native.build build/sanitized/din.so
	SKLEARN_DIN_NATIVE=build/sanitized/din.so OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
		$(BIN)/python -m pytest -p no:faulthandler tests/test_native.py -k "not short_memory"

# Every test with the oldest release of each package that pyproject.toml allows. Old releases warn
# of what later Pythons and later dependencies of theirs drop: that alone is let pass. What is installed
# is compiled at once, which uv does not do by itself.
test-oldest: tools
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install --quiet --compile-bytecode \
		--python $(OLDEST)/bin/python --resolution lowest-direct --editable ".[test]"
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n auto -W ignore::DeprecationWarning

# What runs on Spark, Ray and Dask, in an environment of its own. Ray has no wheel for every
# Python; without it, its tests are skipped.
test-engines: $(ENGINES)/installed
	@command -v java > /dev/null || (apt-get update && apt-get install --yes default-jre-headless) \
		|| (echo "Spark needs Java 17 or later, and it could not be installed: do it by hand." && false)
	OMP_NUM_THREADS=1 $(ENGINES)/bin/python -m pytest -m "proof or not proof" tests/test_engines.py tests/test_scoring.py

$(ENGINES)/installed: pyproject.toml benchmarks/engines-requirements.txt
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]" \
		--requirement benchmarks/engines-requirements.txt
	$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check ray \
		|| echo "No ray for this Python: its tests are skipped."
	touch $@

# The page in a Chromium of the system; without one its tests are skipped.
test-page: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/test_page.py

# MLflow and SHAP, which people bring, in an environment of its own.
test-ecosystem: $(ECOSYSTEM)/installed
	OMP_NUM_THREADS=1 $(ECOSYSTEM)/bin/python -m pytest -m "proof or not proof" tests/test_ecosystem.py

$(ECOSYSTEM)/installed: pyproject.toml benchmarks/ecosystem-requirements.txt
	$(PYTHON) -m venv $(ECOSYSTEM)
	$(ECOSYSTEM)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]" \
		--requirement benchmarks/ecosystem-requirements.txt
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# Known vulnerabilities of the packages that a user gets; fails where one could not be looked up.
audit: tools build/users.txt
	$(BIN)/pip-audit --strict --requirement build/users.txt --no-deps --disable-pip

# The newest releases that a user gets, with the extras that are for users.
build/users.txt: pyproject.toml
	mkdir -p build
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --extra onnx --extra plot --extra large --extra serve --extra postgres \
		pyproject.toml --output-file $@

# Versions for development, of this Python and later ones; no address of a registry is written, and
# no library of a GPU: those belong to torch's builds for GPUs, and come with them.
lock: tools
	$(BIN)/uv pip compile --quiet --universal --no-emit-index-url --no-annotate \
		--extra test --extra docs --extra release --upgrade \
		--custom-compile-command "make lock" pyproject.toml --output-file requirements-dev.lock
	sed -i '/^nvidia-/d;/^triton==/d' requirements-dev.lock

tools: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,release]"

bench: setup
	$(BIN)/python -m benchmarks.speed

docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -j auto -b html docs docs/_build/html

# The documentation, and not one question to a network while it is built.
docs-offline: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	$(BIN)/python -m tests.offline sphinx -W --keep-going -b html docs build/html

quality: setup
	$(BIN)/python -m benchmarks.quality

# Hostile columns, forks, short memory, Dask, too many connections; thousands of drawn frames and changed files, hundreds
# of fits and interruptions: each night, and before a release.
proofs: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m proof tests
	$(BIN)/python -m benchmarks.hostile_frames --frames 3000
	$(BIN)/python -m benchmarks.tampering --mutations 6000
	$(BIN)/python -m benchmarks.endurance
	MOMENTS=500 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_interruptions.py

# Lines of each part by kind: code, checks, imports, docstrings, blank.
house: setup
	$(BIN)/python -m benchmarks.house

# Wheel and sdist into dist/, checked, and a list of what the package is made of; nothing is
# uploaded.
release: tools reproducible wheels fresh-wheel docs-offline build/users.txt
	$(BIN)/python -m pytest --quiet tests/test_release.py tests/test_imports.py
	$(BIN)/python -m twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/cyclonedx-py requirements build/users.txt --pyproject pyproject.toml \
		--output-reproducible --output-file dist/sbom.cdx.json

# Wheels with native code for Linux, macOS and Windows, by one compiler.
ZIG = $(abspath $(BIN))/python -m ziglang c++ -target
wheels: tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ziglang
	for pair in manylinux_2_17_x86_64=x86_64-linux-gnu.2.17 manylinux_2_17_aarch64=aarch64-linux-gnu.2.17 \
		macosx_11_0_arm64=aarch64-macos win_amd64=x86_64-windows-gnu; do \
		SKLEARN_DIN_PLATFORM=$${pair%=*} CXX="$(ZIG) $${pair#*=}" $(BIN)/python -m build --wheel || exit 1; \
	done

# The Linux wheel in an environment of its own, which finds no compiler: it runs the README's first example.
fresh-wheel: wheels
	rm -rf build/fresh
	$(PYTHON) -m venv build/fresh
	build/fresh/bin/python -m pip install --disable-pip-version-check \
		"$$(echo dist/*manylinux*_$$(uname -m).whl)[serve]"
	cd build && CXX=none fresh/bin/python -I ../tests/wheel.py ../README.md

# The same bytes twice: files get the time of the last commit. This wheel is for any platform.
reproducible: export SKLEARN_DIN_NATIVE = 0
reproducible: tools
	rm -rf dist build/again
	mkdir -p build
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --outdir build/again
	cd dist && sha256sum *.whl *.tar.gz > ../build/SHA256SUMS
	cd build/again && sha256sum --check ../SHA256SUMS

clean:
	rm -rf $(VENV) $(OLDEST) $(ENGINES) $(ECOSYSTEM) build dist .pytest_cache .mypy_cache .ruff_cache
