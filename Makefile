# Two commands set everything up: `make demo` shows the main job, and `make test` runs the tests.
# They need Python 3.11 or newer and git, but neither root nor Docker nor AWS.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Each test has one thread, because threads that wait for a busy core slow all of them down. Many tests wait for
# something, so three run at a time on two cores. The slow ones come first, so that no process is left with them.
TEST_PROCESSES ?= 3

.PHONY: demo up test test-long test-image lint format constraints lock clean

demo: $(VENV)/.local
	@$(BIN)/python -m local.demo.tour $(ARGS)

up: $(VENV)/.local
	@$(BIN)/tariff-registry up $(ARGS)

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder $(ARGS)

test-long: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long --timeout 3600 -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder $(ARGS)

# Provisions a bare Debian as Packer provisions the machine image. Needs root and debootstrap.
test-image: $(VENV)/.local
	.packer/test-image $${TMPDIR:-/tmp}/tariff-training-image $(BIN)/python

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/yamllint --strict -c .yamllint docker-compose.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml docs/examples/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml
	$(BIN)/zizmor --offline --no-progress --quiet .github action.yml docs/examples/*.yml
	$(BIN)/shellcheck .ci/run .packer/provision .packer/test-image

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch is installed first and alone, because everything else depends on which build of it is there.
$(VENV)/.torch: constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@touch $@

$(VENV)/.local: pyproject.toml constraints.txt $(VENV)/.torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[service,worker,training,local]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[service,worker,training,local,dev]'
	@touch $@ $(VENV)/.local

# Run this after a change of pyproject.toml, in an environment that has the versions to pin.
constraints:
	( echo "# Every version that was tested together. Made by: make constraints"; \
	  $(BIN)/pip freeze --exclude-editable | grep -v -e '^pip==' -e '@' | sed -E 's/\+cpu$$//' ) > constraints.tmp
	mv constraints.tmp constraints.txt

# The packages of the machine image, with their digests and the CUDA build of torch: run this after `constraints`.
lock: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --extra training --generate-hashes --python-version 3.11 \
	    --python-platform x86_64-manylinux_2_28 -c constraints.txt --no-annotate --no-header \
	    --quiet -o .packer/environment.lock

clean:
	rm -rf $(VENV) .tariff-registry
