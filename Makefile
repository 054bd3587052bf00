# Each target does all its own set-up in .venv; nothing has to be run before it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A thread for each process, and a file's tests in one process for their fixtures. One that crashes ends the run, which
# would wait for its tests for ever.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0
SOURCES := setup.cfg pyproject.toml constraints.txt

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.device
	$(BIN)/edgeser demo

test: $(VENV)/.dev
	$(PYTEST)

test-slow: $(VENV)/.dev  # what takes minutes more: published sizes and every variant, exported; nearly all in one file
	$(PYTEST) -m slow --dist load

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/lint && $(BIN)/pip install --quiet --no-deps --target build/lint .
	cd build/lint && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p edgeser
	cd build/lint && ../../$(BIN)/mypy --config-file ../../pyproject.toml ../../examples/*.py  # as users see the package

# What a device needs: no PyTorch, nothing to train or export with.
$(VENV)/.device: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[asr]'
	touch $@

$(VENV)/.dev: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	if test -e /usr/include/portaudio.h; then $(BIN)/pip install --quiet -e '.[mic]'; fi  # PyAudio is built from source
	touch $@ $(VENV)/.device

clean:
	rm -rf $(VENV) build *.egg-info
