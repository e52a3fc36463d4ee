# Image classification in three notebooks. Needs python3 (3.11 to 3.13) and make; everything else goes into .venv.
# `make` alone lists what there is.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TESTS_READY := .venv/.ready-for-tests
NOTEBOOKS := $(wildcard code/0*/*.ipynb)
NBCONVERT := $(BIN)/python -m nbconvert --log-level=WARN --to notebook
EXECUTE := $(NBCONVERT) --execute --inplace --ExecutePreprocessor.timeout=-1 --ExecutePreprocessor.record_timing=False \
	--ExecutePreprocessor.store_widget_state=False --NotebookExporter.preprocessors=tdsp_vision.committed.StaticOutputs
# uv installs the pinned packages in a seventh of pip's time.
UV := uv==0.13.9
# Tests that need an engine, a browser, a cluster, a second environment or real photos; .ci/run runs them too.
NEEDS_MORE := engine or browser or ray or older_tensorflow or torch or photos
SELECT ?= not ($(NEEDS_MORE))

# TensorFlow's start-up messages and the usage reports of libraries help nobody here.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
# Notebooks draw their figures inside, whatever backend the environment asks for.
unexport MPLBACKEND

.DEFAULT_GOAL := help
.PHONY: help setup run test lab history docs exercises lint notebooks lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## ?(.*)/  make \1|\2/' | column -t -s '|'

setup: $(READY)  ## make .venv with the pinned packages and its Jupyter kernel; a second call does nothing

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else \
		"Python 3.11 to 3.13 is needed, and $(PYTHON) is %d.%d; name another: make PYTHON=python3.12" % v)'
	@echo "installing into .venv (about 4 GB, half a minute on a fast line, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet $(UV)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (ipykernel)" >/dev/null
	@touch $(READY)

$(TESTS_READY): $(READY) requirements-test.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-test.lock
	@touch $(TESTS_READY)

run: $(READY)  ## the whole walkthrough, headless: data, SVM, refinement, service; about three minutes
	@$(BIN)/python -m tdsp_vision run

test: lint  ## ruff, pytest, and nbval on the three notebooks, which run in full once; .ci/run has every check
	@workspace=$$(mktemp -d) && trap 'rm -rf "$$workspace"' EXIT && export TDSP_NBVAL_WORKSPACE="$$workspace" && \
		TDSP_WORKSPACE="$$workspace" $(BIN)/python -m pytest -q -p no:cacheprovider --nbval-lax \
			--nbval-cell-timeout=600 $(NOTEBOOKS) && \
		$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 15 -m "$(SELECT)"
ifneq ($(SELECT),)
	@echo "left out: tests that need more than this machine may have ($(NEEDS_MORE)); .ci/run has them all"
endif

lab: $(READY)  ## open the notebooks in JupyterLab
	@$(BIN)/python -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir=. code/01_data_acquisition_and_understanding/data_acquisition.ipynb

docs: $(TESTS_READY)  ## build notebooks and pages into one book, links checked: build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open build/site/index.html"

exercises: $(READY)  ## derive the exercises from their solutions
	@$(NBCONVERT) --ClearOutputPreprocessor.enabled=True --TagRemovePreprocessor.enabled=True \
		--TagRemovePreprocessor.remove_cell_tags=solution --output-dir docs/exercises docs/exercises/solutions/*.ipynb

lint: $(TESTS_READY)  ## check style and format
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check --quiet .

WORKSPACE := $(or $(TDSP_WORKSPACE),.)
HISTORY ?= $(or $(MLFLOW_TRACKING_URI),sqlite:///$(WORKSPACE)/outputs/mlflow.db)
history: export MLFLOW_DISABLE_TELEMETRY = true
history: export MLFLOW_SERVER_ENABLE_JOB_EXECUTION = false
history: $(READY)  ## the run history in MLflow's page (choose "Model training", top left), until Ctrl-C
	@$(BIN)/python -m mlflow server --host 127.0.0.1 --port $(or $(PORT),5000) --workers 1 --no-serve-artifacts \
		--backend-store-uri "$(HISTORY)" --default-artifact-root "$(WORKSPACE)/outputs/mlflow-artifacts"

# In an empty workspace, so that nothing that lies in data/ or outputs/ leaks into them. The modeling notebook ends with
# a comparison, so another run goes before its own.
notebooks: $(READY)  ## run the committed notebooks with their defaults and store outputs and documents in place
	@workspace=$$(mktemp -d) && trap 'rm -rf "$$workspace"' EXIT && export TDSP_WORKSPACE="$$workspace" && \
		$(EXECUTE) code/01*/*.ipynb && \
		$(BIN)/python -m tdsp_vision run --stage model -p CLASSIFIER svm -p SVM_FEATURES last -p RUN_NAME svm-last-layer && \
		$(EXECUTE) code/02*/*.ipynb code/03*/*.ipynb && rm -rf docs/deliverable_docs/figures && \
		$(BIN)/python -m tdsp_vision report \
			--into "$(CURDIR)/docs/deliverable_docs" --answers docs/deliverable_docs/answers.yml

lock: $(READY)  ## pin all packages anew; the test of environment.yml says what to change there
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet \
		--no-emit-package opencv-python --output-file requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --generate-hashes --no-header \
		--quiet --no-emit-package opencv-python --constraints requirements.lock --output-file requirements-test.lock

clean:  ## remove .venv and caches; data/ and outputs/ stay
	@rm -rf .venv build .pytest_cache .ruff_cache .hypothesis code/*.egg-info
	@find code tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
