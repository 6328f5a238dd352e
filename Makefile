# `make help` lists what there is. Variables: PYTHON, ARGS (for ansible-playbook, kubectl, try), PHOTO, SYSTEM.
PYTHON ?= python3
SYSTEM ?= medical_inventory
VENV := .venv/bin
export PATH := $(CURDIR)/$(VENV):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
INVENTORY := inventories/local
PLAYBOOK := ansible-playbook -i $(INVENTORY)
.DEFAULT_GOAL := help
.PHONY: help prepare up down status logs shell kubectl try prepare-test test lint unit integration e2e catalogue bench molecule build lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

prepare:
	@$(PYTHON) tools/prepare.py up

up: prepare ## From a fresh machine to Medical Inventory running on a real Kubernetes
	@$(PLAYBOOK) site.yml $(ARGS)

down: prepare ## Remove the local cluster and everything that belongs to it
	@$(PLAYBOOK) playbooks/down.yml $(ARGS)

status: prepare ## What the local cluster runs, and whether it is healthy
	@$(PLAYBOOK) playbooks/status.yml $(ARGS)

logs: prepare ## The last logs of a system's pods (SYSTEM=..., ARGS="--follow")
	@python tools/cluster.py logs $(SYSTEM) $(ARGS)

shell: prepare ## A shell in which kubectl speaks to the local cluster
	@python tools/cluster.py shell

kubectl: prepare ## One kubectl command: make kubectl ARGS="get pods -A"
	@python tools/cluster.py kubectl $(ARGS)

try: prepare ## Have a system do a piece of its work (SYSTEM=..., PHOTO=file.jpg or ARGS for its own options)
	@python tools/try.py --system $(SYSTEM) $(PHOTO) $(ARGS)

prepare-test:
	@$(PYTHON) tools/prepare.py test

test: prepare-test lint unit integration e2e ## All checks and tests, as CI runs them

lint: prepare-test ## ansible-lint, yamllint, ruff, mypy, sanity
	@python tools/lint.py

unit: prepare-test ## Tests without a cluster, in seconds
	@pytest tests/unit --numprocesses=2 $(ARGS)

# Mostly waiting for controllers and servers: four processes keep two cores busy. Each has an API server of its own.
integration: prepare-test ## Tests against a real API server
	@$(PLAYBOOK) playbooks/build.yml
	@pytest tests/integration --numprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

e2e: prepare-test ## Tests on two whole embedded clusters, one of them driven by Molecule
	@pytest tests/e2e --numprocesses=2 $(ARGS)

molecule: prepare-test ## The Molecule scenario by itself
	@MOLECULE_EPHEMERAL_DIRECTORY=$(CURDIR)/.cache/molecule/default molecule test -s default

catalogue: prepare-test ## Make the broken releases on a cluster, and write docs/broken_releases.md
	@GROUNDWORK_WRITE_CATALOGUE=1 pytest tests/e2e/test_catalogue.py $(ARGS)

bench: prepare-test ## The table of figures: times to up, memory, latency
	@python tests/benchmarks/run.py $(ARGS)

build: prepare ## Compile the components and build the images, without a cluster
	@$(PLAYBOOK) playbooks/build.yml $(ARGS)

lock: prepare ## Refresh the locks of the Python packages
	@python tools/lock.py

clean: ## Remove the virtual environment and this checkout's caches (the cluster: make down)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
