# Two commands for a newcomer: `make demo` and `make test`. `make bench` measures speed, `make gpu` checks and measures
# everything on a CUDA GPU, `make headline` trains the published configuration and ours there, `make fid` measures FID.
# All set up .venv first, once.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := demo

HEADLINE := headline
DATA := $(if $(DATA_DIR),--data_dir "$(DATA_DIR)")

.PHONY: demo test bench gpu headline fid lint clean

$(VENV)/.installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or later is needed: make PYTHON=python3.11 ...")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: $(VENV)/.installed
	rm -rf $(DEMO)
	$(RUN) pcnn_train.py --config configs/digits.yaml --run_dir $(DEMO)/run
	$(RUN) -m data.export digits validation $(DEMO)/validation
	$(RUN) classify.py --checkpoint $(DEMO)/run/best.pt $(DEMO)/validation --out $(DEMO)/predictions.csv
	$(RUN) generate.py --checkpoint $(DEMO)/run/best.pt --per_class 10 --out $(DEMO)/samples
	$(RUN) classify.py examples --out $(DEMO)/examples.csv --explain $(DEMO)/explanations
	$(RUN) generate.py --per_class 5 --out $(DEMO)/drawn
	@echo
	@echo "The demo is done. Look at:"
	@echo "  $(DEMO)/samples_grid.png    digits that the network drew, one row a class"
	@echo "  $(DEMO)/confusion.png       which held-out digits it took for which"
	@echo "  $(DEMO)/predictions.csv     a label, a confidence and log p(image | class) for each of them"
	@echo "  $(DEMO)/run/curves.png      bits per dimension and accuracy while it learned"
	@echo "  $(DEMO)/run/best.pt         the trained network"
	@echo "and, by the network of burgers, pandas, koalas and pizzas that comes with this program:"
	@echo "  $(DEMO)/drawn_grid.png      what it draws"
	@echo "  $(DEMO)/examples.csv        what it takes the images in examples/ for"
	@echo "  $(DEMO)/explanations/       and why"

test: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal

bench: $(VENV)/.installed
	$(RUN) -m benchmarks.sampler
	$(RUN) -m benchmarks.classifier
	$(RUN) -m benchmarks.train_step

# DEVICE=cpu rehearses it without a GPU; DATA_DIR=... names the images of cpen455. The logs go to runs/gpu-DATE.
gpu: $(VENV)/.installed
	PYTHON=$(RUN) DEVICE="$(or $(DEVICE),cuda)" $(if $(DATA_DIR),DATA_DIR="$(DATA_DIR)") benchmarks/gpu.sh

# Both can be cut off and started again. DATA_DIR=... names the images where they are not in datasets/cpen455.
headline: $(VENV)/.installed
	$(RUN) pcnn_train.py --config configs/cpen455_published.yaml $(DATA) --device cuda --run_dir $(HEADLINE)/published --resume auto
	$(RUN) pcnn_train.py --config configs/cpen455.yaml $(DATA) --device cuda --run_dir $(HEADLINE)/ours --resume auto \
		--nr_resnet 2 --nr_filters 80 --nr_logistic_mix 10 --max_epochs 60
	$(RUN) pcnn_train.py --config configs/cpen455_hybrid.yaml $(DATA) --device cuda --run_dir $(HEADLINE)/hybrid --resume auto \
		--nr_resnet 2 --nr_filters 80 --nr_logistic_mix 10 --max_epochs 30 --load_params $(HEADLINE)/ours/best.pt
	$(RUN) -m training.results $(HEADLINE)/published $(HEADLINE)/ours $(HEADLINE)/hybrid

# Of the network that comes with this program, by the published protocol; CHECKPOINT=... for another.
fid: $(VENV)/.installed
	$(RUN) generate.py $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") --per_class 25 --out fid_samples --overwrite true \
		--fid cpen455:test --fid_dims 192 $(DATA)

lint: $(VENV)/.installed
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) $(DEMO)
