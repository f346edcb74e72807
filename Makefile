# cyclecap: `make help` lists what there is. Every target gets what it lacks
# first, and is quick the second time.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup shim build test race parity parity-metrics bench meteor-data lint fmt demo fuzz references generate release-test clean FORCE
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

SHIM := build/lib/libcyclecap_torch.so
CPP := $(wildcard cpp/src/*.cpp cpp/src/*.h cpp/include/*.h)
C_SOURCES := $(CPP) $(wildcard data/*/*.c data/*/*.h torch/internal/shim/*.c)
SETUP = $(if $(filter setup,$(MAKECMDGOALS)),scripts/setup.sh,scripts/setup.sh --quiet)

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: build/libtorch ## get libtorch and the libraries; CUDA=1 adds CUDA's

# Asked every time, since LIBTORCH or the Python environment may be another
# one now. It is written only where the path changes.
build/libtorch: FORCE
	@$(SETUP)
FORCE:

shim: $(SHIM)

# The path of libtorch is a prerequisite: another one means another shim. CMake
# refuses a cache that was copied from another folder.
$(SHIM): build/libtorch CMakeLists.txt cpp/CMakeLists.txt $(CPP)
	@grep -qsx 'CMAKE_HOME_DIRECTORY:INTERNAL=$(CURDIR)' build/CMakeCache.txt || rm -rf build/CMakeCache.txt build/CMakeFiles
	cmake -S . -B build -DLIBTORCH="$$(cat build/libtorch)" >build/cmake.log || (cat build/cmake.log; exit 1)
	cmake --build build --parallel 2
	@touch $@
	@go clean -testcache # Go does not see that the shim is another one

build: $(SHIM) ## build bin/cyclecap
	go build -ldflags "-X cyclecap/cli.commit=$(shell git describe --always --dirty --exclude='*' --abbrev=12 2>/dev/null)" -o bin/cyclecap ./cli/cyclecap

test: build ## run every test; TEST="-run NAME ./cli/..." some
	go test -timeout 20m $(or $(TEST),./...)

# Those with libtorch are left out: its threads are beyond the race detector's
# sight. -short shortens what only counts characters or letters one by one.
race: build/libtorch ## run the tests of every package without libtorch under the race detector
	go test -race -short $$(go list -test -f '{{.ImportPath}} {{join .Deps " "}}' ./... | \
	  awk '$$1 ~ /\.test$$/ && !/\/torch( |$$)/ {sub(/\.test$$/, "", $$1); print $$1}')

references: build/libtorch ## get the Python implementations to compare with (5 GB)
	@scripts/references.sh

parity: build references ## compare with Python at real sizes, fresh seeds; PARITY="-seed 1"
	go run ./internal/parity/cmd $(PARITY)

bench: build references meteor-data ## time ours beside Python's; BENCH="-rounds 5 -only NAME" some
	go run ./internal/bench $(BENCH)
	$(if $(BENCH),,go run ./internal/paritymetrics -bench)

meteor-data: build/libtorch ## get METEOR's data and compile it (100 MB once)
	@scripts/meteor-data.sh

parity-metrics: build references meteor-data ## compare scores with pycocoevalcap, live (needs Java); METRICS="-seed 7"
	go run ./internal/paritymetrics $(METRICS)

demo: build ## the whole experiment on a small rendered world (about 10 minutes)
	@scripts/meteor-data.sh || echo "demo: METEOR will not be computed" >&2
	@scripts/demo.sh

lint: shim ## check format (Go, C++), go vet, staticcheck, go.mod, generated files
	@test -z "$$(gofmt -l .)" || { echo "gofmt is needed (make fmt):"; gofmt -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	@scripts/clang-format.sh --dry-run -Werror $(C_SOURCES)
	go mod tidy -diff
	go run ./torch/internal/gen -ops torch/ops.txt -out /dev/stdout | diff -u torch/ops_gen.go - || \
	  { echo "torch/ops_gen.go is not what torch/ops.txt and libtorch give (make generate)"; exit 1; }
	go test -run TestDocs ./experiment/config # docs/config.md

fmt: ## format Go and C++
	gofmt -w .
	@scripts/clang-format.sh -i $(C_SOURCES)

generate: shim ## write torch/ops_gen.go and docs/config.md
	go generate ./torch ./experiment/config

FUZZTIME ?= 10m
fuzz: build ## fuzz every reader of files, FUZZTIME (10m) each
	@scripts/fuzz.sh $(FUZZTIME)

release-test: build ## make a release and use it as others would (about 4 minutes)
	@scripts/release-test.sh

clean: ## remove what was built (not .venv)
	rm -rf build bin
