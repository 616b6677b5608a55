# Each target sets up what it needs, from the lock files, on a fresh machine.
.PHONY: help demo run test check bench format lock clean
GATEWAY := .venv/bin/gateway
PYTEST := .venv/bin/python -m pytest

help:           ## what there is
	@grep -E '^[a-z]+: .*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

demo:           ## the main job, end to end, with everything embedded (ARGS=--auto decides by itself)
	@sh deploy/setup.sh run
	@$(GATEWAY) demo $(ARGS)

run:            ## serve with the bundle of ./policies/starter
	@sh deploy/setup.sh run
	@$(GATEWAY) serve $(ARGS)

test:           ## every test
	@sh deploy/setup.sh dev
	@sh deploy/setup.sh browser
	@sh deploy/setup.sh redis
	@.venv/bin/python -m compileall -q gateway
	$(PYTEST) -n 2 --dist worksteal $(ARGS)

check:          ## format, lint, types, import direction, unit tests: under a minute
	@sh deploy/setup.sh dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(PYTEST) -n 2 tests/unit tests/conformance $(ARGS)

bench:          ## speed and cost per request beside nginx, Envoy, LiteLLM and Portkey
	@sh deploy/setup.sh dev
	@sh deploy/setup.sh bench
	.venv/bin/python -m tests.bench $(ARGS)

format:         ## rewrite the sources in the house style
	@sh deploy/setup.sh dev
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lock:           ## resolve the lock files anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml --extra demo -o requirements/run.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml --extra demo --group dev -c requirements/run.lock -o requirements/dev.lock

clean:          ## remove what `make` made
	rm -rf .venv .gateway
