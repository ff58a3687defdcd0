# make help lists the targets; PYTHON= names the interpreter that .venv is made with.

PYTHON ?= python3

# Without PYTHON= a finished .venv keeps the interpreter that made it.
made_by := $(shell sed -n 1p .venv/.installed-run 2>/dev/null)
maker := $(or $(if $(filter file,$(origin PYTHON)),$(shell [ -x '$(made_by)' ] && echo '$(made_by)')),$(PYTHON))

example := make $(or $(firstword $(MAKECMDGOALS)),train) PYTHON=python3.12

# Every Python since 2 can say its version; scripts/environment.py is for those that will do.
define environment
@version=$$("$(maker)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
case "$$version" in \
3.1[1-9] | 3.[2-9][0-9]) exec "$(maker)" scripts/environment.py $(1) ;; \
[23].*) echo "$(maker) is Python $$version, but Python 3.11 or later is needed:" \
    "install one and name it, as in $(example)" ;; \
*) echo "$(maker) does not run as a Python interpreter:" \
    "install Python 3.11 or later and name it, as in $(example)" ;; \
esac >&2; exit 2
endef

.NOTPARALLEL:
.PHONY: help train test test-peers test-minimums test-gpu lint types clean environment-run environment-test environment-peers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

train: environment-run ## install what running needs, then train: make train ARGS="--epochs 5"
	@.venv/bin/cnn train $(ARGS)

test: lint types ## install what testing needs, then run lint, types and all tests, without a GPU
	@-.venv/bin/cnn compile --dtype both # once for all processes of the tests; fails where Numba is missing
	CUDA_VISIBLE_DEVICES= .venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

test-peers: environment-peers ## install PyTorch, then compare with it on thousands of random examples
	CUDA_VISIBLE_DEVICES= .venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal \
	    --need-pytorch --hypothesis-profile peers tests/peers

test-minimums: environment-test ## run the core's tests with the lowest versions that pyproject.toml allows
	.venv/bin/python scripts/minimums.py

test-gpu: ## run all tests, those for a GPU too, with an interpreter that has CuPy: PYTHON=...
	"$(PYTHON)" -m pytest -q --need-gpu
	@if command -v compute-sanitizer >/dev/null; then set -x; "$(PYTHON)" scripts/sanitize_kernels.py; else \
	    echo "THE KERNELS WERE NOT SANITIZED: compute-sanitizer is not on the PATH" >&2; fi

lint: environment-test ## check style and format
	.venv/bin/python -m ruff check
	.venv/bin/python -m ruff format --check

types: environment-test ## check the type annotations
	.venv/bin/python -m mypy

clean: ## remove .venv and all that was built; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

environment-run environment-test environment-peers: environment-%:
	$(call environment,$*)
