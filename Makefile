# `make demo` and `make test` set up everything they need. Extras: make setup EXTRAS=gpu,train,dev
PYTHON ?= python3
VENV := .venv
EXTRAS ?= agents,cpu,data,export,hub,openvino,report,rtx,serve,train,dev
RUN := $(VENV)/bin
DEMO := demo
LOWEST := .venv-lowest
LEAN := .venv-lean
PLAY := .venv-play
RAY := .venv-ray

.PHONY: browser demo play test test-slow test-lean test-ray test-lowest test-gpu check setup clean-demo

demo: setup
	@echo "1/5 play a real game"
	$(RUN)/wmdeploy record $(GAME) -o $(DEMO)/data --frames $(FRAMES) --size 64 --seed 0
	@echo "2/5 train the tiny preset"
	$(RUN)/wmdeploy train --data $(DEMO)/data --preset tiny -o $(DEMO)/model
	@echo "3/5 export it"
	$(RUN)/wmdeploy export $(DEMO)/model -o $(DEMO)/bundle --clip $(DEMO)/data/clip-00000.mkv
	@echo "4/5 imagine: real frames on the left, imagined on the right"
	$(RUN)/wmdeploy rollout $(DEMO)/bundle $(DEMO)/data/clip-00000.mkv -o $(DEMO)/rollout.gif
	@echo "5/5 compare the backends"
	$(RUN)/wmdeploy bench $(DEMO)/bundle --clip $(DEMO)/data/clip-00000.mkv --json $(DEMO)/bench.json --html $(DEMO)/bench.html

GAME ?= boxing
FRAMES ?= 4000

# a world model in the browser, the real game beside it: EXAMPLE=pong or boxing; no torch
play:
	$(PYTHON) -m venv $(PLAY)
	$(PLAY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,serve]" ale-py gymnasium
	$(PLAY)/bin/wmdeploy play examples/$(EXAMPLE)

EXAMPLE ?= pong

# one thread for each of the workers: two times two threads on two cores would wait for each other
test: check
	OMP_NUM_THREADS=1 $(RUN)/pytest -n 2 --dist loadfile

# the slow third of the suite, which `make test` leaves out
test-slow: setup
	OMP_NUM_THREADS=1 $(RUN)/pytest -m slow -n 2 --dist loadfile

# Chromium and Node of Debian, for the tests of the page
browser:
	@missing=""; command -v chromium >/dev/null || missing="chromium"; command -v npm >/dev/null || missing="$$missing nodejs npm"; \
	[ -z "$$missing" ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing; }

# what runs without torch, in an environment without it, on bundles that the other one exports
test-lean: setup
	$(PYTHON) -m venv $(LEAN)
	$(LEAN)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu]" pytest hypothesis
	$(RUN)/python -m tests.lean.make_bundles $(LEAN)/bundles
	OMP_NUM_THREADS=1 $(LEAN)/bin/python -m pytest -q tests/lean --confcutdir=tests/lean --bundles=$(LEAN)/bundles

# replicas on a cluster of Ray, which is too large for the other environments
test-ray:
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,ray]" pytest
	OMP_NUM_THREADS=1 $(RAY)/bin/python -m pytest tests/cluster --confcutdir=tests/cluster

# the suite with the lowest versions that pyproject.toml allows; TORCH_INDEX: where torch comes from
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(if $(TORCH_INDEX),$(LOWEST)/bin/python -m pip install --quiet -c constraints-lowest.txt --index-url $(TORCH_INDEX) torch)
	$(LOWEST)/bin/python -m pip install --quiet -c constraints-lowest.txt -e ".[agents,cpu,data,export,hub,openvino,report,serve,train]" pytest pytest-xdist httpx hypothesis
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile

# on a machine with an NVIDIA GPU: make test-gpu EXTRAS=agents,data,export,gpu,hub,report,rtx,serve,train,dev
test-gpu: setup
	$(RUN)/pytest -m gpu

check: setup
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

setup: $(VENV)/.ready-$(EXTRAS)

$(VENV)/.ready-$(EXTRAS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python {v.major}.{v.minor}: 3.11 or newer is needed; use make PYTHON=python3.12" if v < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

clean-demo:
	rm -rf $(DEMO)
