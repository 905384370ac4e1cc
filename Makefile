# Two commands for a newcomer: `make demo` and `make test`; `make bench` measures speed. All set up .venv first, once.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := demo

.PHONY: demo test bench lint clean

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
	@echo
	@echo "The demo is done. Look at:"
	@echo "  $(DEMO)/samples_grid.png    digits that the network drew, one row a class"
	@echo "  $(DEMO)/confusion.png       which held-out digits it took for which"
	@echo "  $(DEMO)/predictions.csv     a label, a confidence and log p(image | class) for each of them"
	@echo "  $(DEMO)/run/curves.png      bits per dimension and accuracy while it learned"
	@echo "  $(DEMO)/run/best.pt         the trained network"

test: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest

bench: $(VENV)/.installed
	$(RUN) -m benchmarks.sampler
	$(RUN) -m benchmarks.classifier
	$(RUN) -m benchmarks.train_step

lint: $(VENV)/.installed
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) $(DEMO)
