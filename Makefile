# `make help` lists the targets. All of them first set up .venv, once.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal
FAST := $(addprefix tests/,utils layers model data plots evaluation test_imports.py)

DEMO := demo
HEADLINE := headline
DATA := $(if $(DATA_DIR),--data_dir "$(DATA_DIR)")

# torch, numpy and others need this version; Python 2 and 3 can run the check
CHOSEN = $(if $(wildcard $(RUN)),$(RUN),$(PYTHON))
CHECK = import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "error: Python 3.11 or later is needed, \
	and $(CHOSEN) is %d.%d: make clean, then make PYTHON=python3.11 TARGET" % (v[0], v[1]))

.DEFAULT_GOAL := help
.PHONY: help venv app demo test test-fast lint format bench gpu headline fid clean

help: ## list the targets
	@echo "make TARGET [PYTHON=python3.11], with one of these targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

# what users need
$(VENV)/.installed: requirements.txt
	@$(CHOSEN) -c '$(CHECK)'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# what the browser application needs on top
$(VENV)/.installed-app: requirements-app.txt $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-app.txt
	touch $@

# what tests and checks need on top
$(VENV)/.installed-dev: requirements-dev.txt requirements-app.txt $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

venv: $(VENV)/.installed ## set up .venv with the requirements of users

# ARGS="--checkpoint runs/NAME/best.pt --port 8000" gives it flags
app: $(VENV)/.installed-app ## classify, generate and complete images and compare runs, in the browser
	$(RUN) app.py $(ARGS)

demo: $(VENV)/.installed ## train on the embedded digits, classify and generate: a few minutes
	rm -rf $(DEMO)
	$(RUN) pcnn_train.py --config configs/digits.yaml --run_dir $(DEMO)/run
	$(RUN) -m data.export digits validation $(DEMO)/validation
	$(RUN) classify.py --checkpoint $(DEMO)/run/best.pt $(DEMO)/validation --out $(DEMO)/predictions.csv
	$(RUN) generate.py --checkpoint $(DEMO)/run/best.pt --per_class 10 --out $(DEMO)/samples
	$(RUN) classify.py examples --out $(DEMO)/examples.csv --explain $(DEMO)/explanations
	$(RUN) generate.py --per_class 5 --out $(DEMO)/drawn
	@echo
	@echo "The demo is done. Look at:"
	@echo "  $(DEMO)/samples_grid.png    digits sampled from the network, one row per class"
	@echo "  $(DEMO)/confusion.png       confusion matrix of the validation digits"
	@echo "  $(DEMO)/predictions.csv     a label, a confidence and log p(image | class) for each of them"
	@echo "  $(DEMO)/run/curves.png      learning curves: bits per dimension and accuracy"
	@echo "  $(DEMO)/run/best.pt         the trained network"
	@echo "and from the pretrained checkpoints (burger, panda, koala, pizza):"
	@echo "  $(DEMO)/drawn_grid.png      samples"
	@echo "  $(DEMO)/examples.csv        predictions for the images in examples/, which are earlier samples"
	@echo "  $(DEMO)/explanations/       their attribution maps"
	@echo
	@echo "Next: make app, the same in the browser, with your own photos."

test: $(VENV)/.installed-dev ## lint and run all tests: 15 to 30 minutes on two cores
	@echo "This takes 15 to 30 minutes on two cores; make test-fast takes under two minutes."
	$(MAKE) lint
	$(PYTEST)

test-fast: $(VENV)/.installed-dev ## fast tests, for use while editing: under two minutes
	$(PYTEST) -m "not slow and not integration" $(FAST)

lint: $(VENV)/.installed-dev ## check style, format and types; changes nothing
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(VENV)/.installed-dev ## fix style and format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(VENV)/.installed ## measure the speed of sampling, classifying and training
	$(RUN) -m benchmarks.sampler
	$(RUN) -m benchmarks.classifier
	$(RUN) -m benchmarks.train_step

# DEVICE=cpu rehearses it without a GPU; DATA_DIR=... names the images of cpen455. The logs go to runs/gpu-DATE.
gpu: $(VENV)/.installed-dev ## check and measure everything on a CUDA GPU
	PYTHON=$(RUN) DEVICE="$(or $(DEVICE),cuda)" $(if $(DATA_DIR),DATA_DIR="$(DATA_DIR)") benchmarks/gpu.sh

# Each run resumes where it stopped. DATA_DIR=... names the images where they are not in datasets/cpen455.
headline: $(VENV)/.installed ## train the published configuration, our stages and a wide one on a CUDA GPU
	$(RUN) pcnn_train.py --config configs/cpen455_published.yaml $(DATA) --device cuda --run_dir $(HEADLINE)/published --resume auto
	$(RUN) pcnn_train.py --config configs/cpen455.yaml $(DATA) --device cuda --run_dir $(HEADLINE)/ours --resume auto --max_epochs 60
	test -f $(HEADLINE)/teacher.pt || $(RUN) -m evaluation.baseline --config configs/cpen455_baseline.yaml $(DATA) --device cuda \
		--hold_out true --out $(HEADLINE)/teacher.pt
	$(RUN) pcnn_train.py --config configs/cpen455_hybrid.yaml $(DATA) --device cuda --run_dir $(HEADLINE)/hybrid --resume auto \
		--max_epochs 20 --load_params $(HEADLINE)/ours/best.pt --teacher $(HEADLINE)/teacher.pt
	$(RUN) pcnn_train.py --config configs/cpen455_distilled.yaml $(DATA) --device cuda --run_dir $(HEADLINE)/distilled \
		--resume auto --load_params $(HEADLINE)/hybrid/best.pt --teacher $(HEADLINE)/teacher.pt
	$(RUN) pcnn_train.py --config configs/cpen455_wide.yaml $(DATA) --device cuda --run_dir $(HEADLINE)/wide --resume auto
	$(RUN) -m training.results $(addprefix $(HEADLINE)/,published ours hybrid distilled wide)

# By the published protocol. DATA_DIR=... as above; CHECKPOINT=... for another network.
fid: $(VENV)/.installed ## measure the FID of the pretrained checkpoint for samples
	$(RUN) generate.py $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") --per_class 25 --temperature 1 --out fid_samples --overwrite true \
		--fid cpen455:test --fid_dims 192 $(DATA)

clean: ## remove .venv and the demo
	rm -rf $(VENV) $(DEMO)
