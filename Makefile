# Every target starts from a fresh clone and installs what it needs. The work is done by the scripts in scripts/.

.DEFAULT_GOAL := help
.PHONY: help build model up down status demo test fuzz lint bench

MODEL ?= all-minilm-l6-v2

help: ## show this list
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

build: ## build every program, optimised
	@scripts/build

model: build ## get the model into the models folder, checked against its hash
	@"$${CARGO_TARGET_DIR:-target}/release/forebay" pull $(MODEL)

up: ## start RabbitMQ, Redis, the autoscaler and a worker, private to this checkout (FOREBAY_WORKERS=1)
	@scripts/stack up

down: ## stop all that `make up` started
	@scripts/stack down

status: ## say what runs where
	@scripts/stack status

demo: ## embed the example texts on a stack of its own, ask questions, stop everything
	@scripts/demo

test: ## run every test, against real servers
	@scripts/test

fuzz: ## feed every parser of outside bytes what nobody would write (SECONDS_EACH=60)
	@scripts/fuzz

lint: ## check formatting, clippy, licences and the scripts
	@scripts/lint

bench: ## measure the bare engine and the whole path
	@scripts/bench
