# Every target starts from a fresh clone and installs what it needs. The work is done by the scripts in scripts/.

.DEFAULT_GOAL := help
.PHONY: help build model up down status demo test chaos soak adversarial fuzz lint kernels cuda gpu-check bench scaling
.PHONY: compose-check checks compat mutants examples

MODEL ?= all-minilm-l6-v2

help: ## show this list
	@sed -n 's/^\([a-z-]*\): .*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

build: ## build every program, optimised
	@scripts/build

model: build ## get the model into the models folder, checked against its hash
	@"$${CARGO_TARGET_DIR:-target}/release/forebay" pull $(MODEL)

up: ## start RabbitMQ, Redis, autoscaler and gateway, private to this checkout (FOREBAY_WORKERS=2: always two)
	@scripts/stack up

down: ## stop everything that `make up` started
	@scripts/stack down

status: ## show what runs where
	@scripts/stack status

demo: ## embed the example texts on a stack of its own, ask questions, stop everything
	@scripts/demo

examples: ## run a publisher of each language whose library Debian or Python has, and check its answer
	@scripts/examples

test: ## run every test, against real servers
	@scripts/test

chaos: ## disturb a fleet by seeded schedules, run after run (FOREBAY_CHAOS_RUNS=20 FOREBAY_CHAOS_JOBS=2000)
	@scripts/chaos

compat: ## run the service and fault suites on other versions of RabbitMQ, Redis and Valkey (needs root once)
	@scripts/compat

soak: ## a million small jobs, a million generated tokens; watch memory (FOREBAY_SOAK_JOBS, FOREBAY_SOAK_TOKENS)
	@scripts/soak

adversarial: ## attack a gateway in every known way, and show what is left afterwards (FOREBAY_ADVERSARIAL_POLLS=10000)
	@scripts/adversarial

fuzz: ## fuzz every parser of outside bytes (SECONDS_EACH=60)
	@scripts/fuzz

mutants: ## make mistakes one at a time in the pure modules, and list those that no unit test notices
	@scripts/mutants

lint: ## check formatting, clippy, licences and the scripts
	@scripts/lint

kernels: ## compile every CUDA kernel for every architecture and hold it to its limits
	@scripts/kernels

cuda: ## build the worker for NVIDIA GPUs; needs neither a GPU nor a driver (slow the first time)
	@scripts/cuda

gpu-check: ## check and measure this machine's GPU: kernels, model, peers, a worker behind its broker
	@scripts/gpu-check

bench: ## measure the bare engine, the whole path, and other engines where they are installed
	@scripts/bench

scaling: ## run the scaling policy and its peers over traces, into docs/scaling.md
	@scripts/scaling

compose-check: ## verify docker-compose.yml on this machine's Docker engine, with substitutes for unreachable images
	@scripts/compose-check

checks: ## run in turn what .ci/run does not, at small sizes, into the table of docs/checks.md (FOREBAY_CHECKS=soak)
	@scripts/checks
