# cyclecap: `make help` lists what there is. Every target gets what it lacks
# first, and is quick the second time.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup shim build test parity bench lint fmt demo fuzz references generate clean

SHIM := build/lib/libcyclecap_torch.so
GO_SOURCES := $(shell find cli data eval internal nets torch train weights -name '*.go' -o -name '*.c' -o -name '*.h' 2>/dev/null)
CPP := $(wildcard cpp/src/*.cpp cpp/src/*.h cpp/include/*.h)
C_SOURCES := $(CPP) $(wildcard data/*/*.c data/*/*.h)

# Two programs that compute at once must not spin while they wait for their
# threads: on 2 cores that costs a factor of 10 (docs/design.md).
export OMP_WAIT_POLICY ?= PASSIVE

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## get libtorch and the libraries; CUDA=1 adds CUDA's
	@scripts/setup.sh

build/libtorch:
	@scripts/setup.sh

shim: build/libtorch
	@$(MAKE) --no-print-directory $(SHIM)

# The path of libtorch is a prerequisite: another one means another shim.
$(SHIM): build/libtorch CMakeLists.txt $(CPP)
	cmake -S . -B build -DLIBTORCH="$$(cat build/libtorch)" >build/cmake.log || (cat build/cmake.log; exit 1)
	cmake --build build --parallel 2
	@touch $@

bin/cyclecap: $(SHIM) $(GO_SOURCES) go.mod
	go build -o bin/cyclecap ./cli/cyclecap

build: shim ## build bin/cyclecap
	@$(MAKE) --no-print-directory bin/cyclecap

test: build ## run every test
	go test -timeout 20m ./...

references: build/libtorch ## get the Python implementations to compare with (5 GB)
	@scripts/references.sh

parity: build references ## compare with Python at real sizes, fresh seeds
	go run ./internal/parity/cmd $(PARITY)

bench: build references ## time ours beside Python's; BENCH="-rounds 5 -only NAME"
	go run ./internal/bench $(BENCH)

demo: build ## caption sample photos (random weights of the real sizes)
	@scripts/demo.sh

lint: shim ## gofmt, go vet, staticcheck, clang-format
	@test -z "$$(gofmt -l .)" || { echo "gofmt is needed:"; gofmt -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	@scripts/clang-format.sh --dry-run -Werror $(C_SOURCES)

fmt: ## format Go and C++
	gofmt -w .
	scripts/clang-format.sh -i $(C_SOURCES)

generate: shim ## write torch/ops_gen.go from torch/ops.txt
	go generate ./torch

FUZZTIME ?= 10m
fuzz: build ## fuzz every reader of files, FUZZTIME (10m) each
	@scripts/fuzz.sh $(FUZZTIME)

clean: ## remove what was built (not .venv)
	rm -rf build bin
