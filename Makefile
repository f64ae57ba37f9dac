# `make demo` does the whole job, `make test` runs the tests; both set up .venv first.
PYTHON ?= python3
RUNTIME ?= cpu
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup locks demo test lint bench gpu gpu-bundle soak fuzz container clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(RUNTIME),train,dev]'
	touch $@

# The hashes of what the container and a Bento may install, at the versions of constraints.txt.
LOCK := $(BIN)/uv pip compile --quiet --constraint constraints.txt --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate
locks: setup
	mkdir -p locks
	for extra in cpu gpu train; do $(LOCK) --extra $$extra --output-file locks/$$extra.txt \
		pyproject.toml || exit 1; done
	echo 'setuptools>=77' | $(LOCK) --output-file locks/build.txt -

# PHOTOS=dir trains on your photos from the base that ships with Catalogan, or from scratch with
# BASE=0; MINUTES=n for how long. BASE=1 without photos serves the base at once.
demo: setup
	$(BIN)/python bench/demo.py $(if $(BASE),$(if $(filter 0,$(BASE)),--no-base,--base)) $(if $(PHOTOS),--photos '$(PHOTOS)') \
		$(if $(MINUTES),--minutes $(MINUTES))

# A process for each core, a thread each: two threads on busy cores wait for each other.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run .ci/container
	$(BIN)/hadolint Dockerfile

bench: setup
	$(BIN)/python bench/bench.py

# Five minutes or more are kept in bench/results.json.
soak: setup
	$(BIN)/python bench/soak.py --minutes $(or $(MINUTES),60)

# What only a GPU can show, within MINUTES=9, on a machine with torch, torchvision, ONNX Runtime and
# no network: it takes this checkout and the folder BUNDLE, and leaves its findings in OUT.
# TRAIN=minutes trains a base of the photos' size or of TRAIN_SIZE px, WEIGHTS=folder from what an
# earlier call left, which may be of smaller images. PARTS, SIZES and SET (as of catalogan train)
# are for less or other than all; DEVICE=cpu is for trying it out.
BUNDLE ?= build/gpu-bundle
OUT ?= build/gpu
gpu:
	$(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target '$(BUNDLE)-packages' \
		$(wildcard $(BUNDLE)/*.whl)
	PYTHONPATH='$(BUNDLE)-packages:.' CUBLAS_WORKSPACE_CONFIG=:4096:8 $(PYTHON) bench/gpu.py \
		--out '$(OUT)' --bundle '$(BUNDLE)' $(if $(DEVICE),--device $(DEVICE)) \
		$(if $(PARTS),--parts $(PARTS)) $(if $(SIZES),--sizes $(SIZES)) $(if $(SET),--set $(SET)) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(TRAIN),--train $(TRAIN)) $(if $(WEIGHTS),--weights '$(WEIGHTS)') \
		$(if $(TRAIN_SIZE),--train-size $(TRAIN_SIZE))

# Gathers BUNDLE where there is a network. PHOTOS is a folder of categories to train on; WITH and
# WITHOUT name packages: those of some discriminators, those that the machine has.
gpu-bundle: setup
	$(BIN)/python bench/gpu_bundle.py --out '$(BUNDLE)' $(if $(PHOTOS),--photos '$(PHOTOS)') \
		$(if $(WITH),--with $(WITH)) $(if $(WITHOUT),--without $(WITHOUT))

# Mutates uploads and requests for so long each; what fails is written to build/fuzz.
SECONDS ?= 60
fuzz: setup
	mkdir -p build/fuzz
	for target in intake requests marks; do $(BIN)/python tests/fuzz/fuzz_$$target.py \
		-max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=1024 \
		-artifact_prefix=build/fuzz/$$target- -print_final_stats=1 || exit 1; done

# Needs Docker or Podman (CONTAINER=docker|podman chooses), or a BUILDER: see .ci/container.
container: setup
	CONTAINER='$(CONTAINER)' BUILDER='$(BUILDER)' RUNTIME='$(RUNTIME)' .ci/container $(BIN)/catalogan

clean:
	rm -rf demo demo-* build/lib build/bdist.* *.egg-info .pytest_cache .mypy_cache .ruff_cache
