# cyclecap: `make help` lists the targets. Every target first gets what it needs, and
# is quick the second time.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup shim build test serve-test soak race sanitize parity parity-metrics bench bench-serve meteor-data lint fmt demo standins world-models fuzz torture references generate release-test gpu gpu-test clean FORCE
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

SHIM := build/lib/libcyclecap_torch.so
CPP := $(wildcard cpp/src/*.cpp cpp/src/*.h cpp/include/*.h cpp/testdevice/*.cpp cpp/testdevice/*.h)
C_SOURCES := $(CPP) $(wildcard data/*/*.c data/*/*.h torch/internal/shim/*.c)
SETUP = $(if $(filter setup,$(MAKECMDGOALS)),scripts/setup.sh,scripts/setup.sh --quiet)

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: build/libtorch ## install libtorch and the libraries; CUDA=1 adds CUDA's

# Checked every time, since LIBTORCH or the Python environment may have changed. The
# file is written only if the path changes.
build/libtorch: FORCE
	@$(SETUP)
FORCE:

shim: $(SHIM)

# The path of libtorch is a prerequisite, since the shim must be rebuilt for another
# libtorch. CMake refuses a cache that was copied from another folder.
$(SHIM): build/libtorch CMakeLists.txt cpp/CMakeLists.txt cpp/testdevice/CMakeLists.txt $(CPP)
	@grep -qsx 'CMAKE_HOME_DIRECTORY:INTERNAL=$(CURDIR)' build/CMakeCache.txt || rm -rf build/CMakeCache.txt build/CMakeFiles
	cmake -S . -B build -DLIBTORCH="$$(cat build/libtorch)" >build/cmake.log || (cat build/cmake.log; exit 1)
	cmake --build build --parallel 2
	@touch $@
	@go clean -testcache # Go does not notice that the shim has changed

build: $(SHIM) ## build bin/cyclecap
	go build -ldflags "-X cyclecap/cli.commit=$(shell git describe --always --dirty --exclude='*' --abbrev=12 2>/dev/null)" -o bin/cyclecap ./cli/cyclecap

# Threads of OpenMP that have nothing to do must not keep a core from the other packages'
# tests. A third package uses the cores while one waits for other processes.
test sanitize: export OMP_WAIT_POLICY ?= passive
test: build ## run every test, or some with TEST="-run NAME ./cli/..."
	go test -p 3 -timeout 30m $(or $(TEST),./...)

# Packages with libtorch are left out, since the race detector cannot see libtorch's
# threads. -short shortens long tests that run nothing in parallel.
race: build/libtorch ## run the tests of packages without libtorch under the race detector
	go test -race -short $$(go list -test -f '{{.ImportPath}} {{join .Deps " "}}' ./... | \
	  awk '$$1 ~ /\.test$$/ && !/\/torch( |$$)/ {sub(/\.test$$/, "", $$1); print $$1}')

SANITIZED := build/sanitize/lib/libcyclecap_torch.so
SANITIZERS := -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all

$(SANITIZED): build/libtorch CMakeLists.txt cpp/CMakeLists.txt cpp/testdevice/CMakeLists.txt $(CPP)
	@mkdir -p build/sanitize
	cmake -S . -B build/sanitize -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="$(SANITIZERS)" -DLIBTORCH="$$(cat build/libtorch)" >build/sanitize/cmake.log || (cat build/sanitize/cmake.log; exit 1)
	cmake --build build/sanitize --parallel 2 --target cyclecap_torch cyclecap_testdevice
	@touch $@

sanitize: build $(SANITIZED) ## run the tests of packages with libtorch under ASan, UBSan and the race detector
	@scripts/sanitize.sh

references: build/libtorch ## install the Python implementations to compare with (5 GB)
	@scripts/references.sh

parity: build references ## compare with Python at real sizes, with fresh seeds or PARITY="-seed 1"
	go run ./internal/parity/cmd $(PARITY)

bench: build references meteor-data ## compare the speed with Python's, or some of it with BENCH="-rounds 5 -only NAME"
	go run ./internal/bench $(BENCH)
	$(if $(BENCH),,go run ./internal/paritymetrics -bench)

serve-test: build ## try cyclecap serve with the real clients and a browser, which it installs; SEED=1 repeats schemathesis's requests
	@scripts/serve-clients.sh
	CYCLECAP_CLIENTS=$(CURDIR)/build/serve-clients CYCLECAP_SEED=$(SEED) go test -count=1 -timeout 20m -run Clients ./serve/...

bench-serve: build references ## compare the server's speed with infinity's and FastAPI's, or some of it with BENCH="-only texts"
	@scripts/bench-serve.sh
	go run ./internal/benchserve $(BENCH)

soak: MINUTES = 20
soak: build ## send mixed and broken traffic to cyclecap serve for MINUTES (20)
	CYCLECAP_SOAK=$(MINUTES)m go test -count=1 -timeout 0 -v -run 'TestSoak$$' ./serve

meteor-data: build/libtorch ## download and compile METEOR's data (100 MB, once)
	@scripts/meteor-data.sh

parity-metrics: build references meteor-data ## compare scores with pycocoevalcap (needs Java); METRICS="-seed 7"
	go run ./internal/paritymetrics $(METRICS)

demo: build ## run the whole experiment on a small rendered world (12 to 25 minutes)
	@scripts/meteor-data.sh || echo "demo: METEOR will not be computed" >&2
	@scripts/demo.sh

standins: build ## train the demo's CLIP and GPT-2 again; minutes on a GPU (STANDINS="--set device=cuda:0"), hours on two cores
	@scripts/standins.sh $(STANDINS)
	@$(MAKE) build

world-models: build ## embed the models of a finished demo, or of another run with RUN=folder
	@scripts/world-models.sh $(RUN)
	@$(MAKE) build

lint: shim ## check formatting (Go, C++), go vet, staticcheck, go.mod and generated files
	@test -z "$$(gofmt -l .)" || { echo "these files need gofmt (make fmt):"; gofmt -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	@scripts/clang-format.sh --dry-run -Werror $(C_SOURCES)
	go mod tidy -diff
	@d=$$(mktemp -d); trap 'rm -r $$d' EXIT; mkdir $$d/torch; \
	(cd torch && go run ./internal/gen -out $$d/torch -table $$d/table_gen.go -doc $$d/operators.md -differ ../internal/operators/differ.txt) && \
	cmp <(cat $$d/torch/*_gen.go $$d/table_gen.go $$d/operators.md) <(cat torch/*_gen.go internal/operators/table_gen.go docs/operators.md) || \
	  { echo "generated files do not match torch/ops.txt, torch/options.txt, the recorded calls and libtorch; run make generate"; exit 1; }
	go test -run TestDocs ./experiment/config # docs/config.md

fmt: ## format Go and C++
	gofmt -w .
	@scripts/clang-format.sh -i $(C_SOURCES)

generate: shim ## generate torch/*_gen.go, docs/operators.md and docs/config.md
	go generate ./torch ./experiment/config

FUZZTIME ?= 10m
fuzz: build ## fuzz every file reader, each for FUZZTIME (10m)
	@scripts/fuzz.sh $(FUZZTIME)

MINUTES ?= 30
torture: build ## disturb small experiments for MINUTES (30): kills, full disks, damage; TORTURE="-seed N -rounds 1" repeats one
	go run ./internal/torture -minutes $(MINUTES) $(TORTURE)

release-test: build ## make a release and use it as others would (about 4 minutes)
	@scripts/release-test.sh

gpu: build ## write build/gpu-bundle, which tests and measures on a machine with a GPU
	scripts/gpu-bundle.sh

gpu-test: gpu references ## run the bundle on the CPU, with small models (2 minutes)
	PYTHON=$(CURDIR)/.venv/bin/python bash build/gpu-bundle/run.sh build/gpu-report --quick --device cpu

clean: ## remove build products, but not .venv
	rm -rf build bin
