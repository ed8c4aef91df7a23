# libmmopt. `make demo` and `make test` need nothing but this checkout, Rust, a C compiler and
# python3 with pip (to download two packages; nothing is installed into it).

CARGO ?= cargo
CC ?= cc
CFLAGS ?= -O2
RUNTIME := .runtime
TARGET := $(or $(CARGO_TARGET_DIR),target)/release
BUILD := build
C_FLAGS := -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Iinclude $(CFLAGS)

# The name that programs look for at run time, which build.rs puts into the library; and where they
# look. Windows knows neither: programs find mmopt.dll beside themselves or in PATH.
RPATH := -Wl,-rpath,$(abspath $(TARGET))
ifeq ($(OS),Windows_NT)
RPATH :=
EXE := .exe
else ifeq ($(shell uname -s),Darwin)
SHARED := libmmopt.dylib
SONAME := libmmopt.0.dylib
else
SHARED := libmmopt.so
SONAME := libmmopt.so.0
endif
LINK := -L$(TARGET) -lmmopt $(RPATH) -lm

# Examples for MPI are compiled by test-mpi.
C_SOURCES := $(filter-out %_mpi.c,$(wildcard examples/c/*.c))
C_EXAMPLES := $(C_SOURCES:examples/c/%.c=$(BUILD)/examples/%$(EXE))

.PHONY: all lib runtime examples install uninstall demo test lint check-targets format header clean bench bench-step bench-load bench-checkpoint fuzz bench-abi test-abi abi-dump test-runtimes test-arm test-gpu test-report test-torch test-peft test-backend bench-train bench-torch bench-growth experiments experiments-quick experiments-ranks docs fuzz-abi test-crash test-sanitizers test-go-race test-mpi test-nccl

all: lib runtime

lib:
	$(CARGO) build --release --locked
	$(if $(SONAME),ln -sf $(SHARED) $(TARGET)/$(SONAME))

runtime:
	scripts/fetch_runtime.sh $(RUNTIME)

examples: lib $(C_EXAMPLES)

$(BUILD)/examples/%$(EXE): examples/c/%.c include/mmopt.h $(wildcard examples/c/*.h) | lib
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $< -o $@ $(LINK)

# To where programs find it with pkg-config or CMake; DESTDIR stands for / while packaging.
PREFIX ?= /usr/local
LIBDIR ?= lib
install: lib
	LIBDIR="$(LIBDIR)" scripts/install.sh $(TARGET) "$(PREFIX)" $(DESTDIR)

uninstall:
	LIBDIR="$(LIBDIR)" scripts/install.sh --uninstall $(TARGET) "$(PREFIX)" $(DESTDIR)

# Trains a BERT-, a GPT-2- and a RoBERTa-style model together on real sentences.
demo: runtime examples
	scripts/demo.sh $(BUILD)

# Release mode: the debug build makes the numerical tests several times slower.
test: runtime
	$(CARGO) test --release --locked --workspace
	$(MAKE) examples test-nccl

# The same gradients on the oldest, a middle and the newest supported ONNX Runtime; fetches them.
test-runtimes:
	CARGO="$(CARGO)" scripts/test_runtimes.sh $(RUNTIME)/versions $(BUILD)/runtimes

# The optimizer's kernels on 64-bit Arm, emulated.
test-arm:
	scripts/test_arm.sh

# Gradients, rules and the trainer on an NVIDIA GPU; MMOPT_ORT_LIB names a GPU build of the runtime.
test-gpu:
	CARGO="$(CARGO)" scripts/test_gpu.sh $(DEVICE)

# The report page in headless Chromium, from logs of runs that never were; screenshots are in
# build/report. Says so where there is no Chromium.
test-report: examples
	scripts/test_report.sh $(BUILD)

# Adapters against Python's peft, both ways. Says so where there is none and none can be fetched.
test-peft: runtime lib
	scripts/test_peft.sh $(abspath $(TARGET)) $(abspath $(BUILD))/peft

# Modules of libtorch under mmopt against torch::optim::AdamW. Says so where there is no libtorch.
test-torch: lib
	scripts/test_torch.sh $(abspath $(TARGET)) $(abspath $(BUILD))/torch

# The standard's own node tests and converted models; fetches the package `onnx`. Six minutes.
test-backend: runtime lib
	MMOPT_ORT_LIB="$${MMOPT_ORT_LIB:-$(abspath $(RUNTIME))/lib/libonnxruntime.so}" \
		scripts/test_backend.sh $(abspath $(TARGET)) $(abspath $(BUILD))/backend

format:
	$(CARGO) fmt --all -- --check

lint:
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

# The library compiles for Windows, macOS and 64-bit Arm; of a target that is not installed it says so.
check-targets:
	CARGO="$(CARGO)" scripts/check_targets.sh

# Regenerates include/mmopt.h from src/ffi; a test fails when it is stale.
header:
	MMOPT_UPDATE_HEADER=1 $(CARGO) test --release --locked --test abi -- header_file::

# The exported symbols, types and signatures against tests/data/abi; the header in every mode of
# gcc and clang; each function's calls and comment. A part of `make test`.
test-abi: runtime
	$(CARGO) test --release --locked --test abi -- --nocapture dump:: calls:: header_file::

# After a deliberate change of src/ffi: writes the header, tests/data/abi and docs/abi_coverage.md
# anew, and prints what breaks programs that exist.
abi-dump: runtime header lib
	MMOPT_UPDATE_ABI=1 $(CARGO) test --release --locked --test abi -- --nocapture dump:: calls::

# The header's documentation, in build/docs/html. A warning is an error.
docs:
	@command -v doxygen >/dev/null || { echo "docs: please install doxygen" >&2; exit 1; }
	@mkdir -p $(BUILD)/docs
	doxygen Doxyfile

# Random calls of every function: make fuzz-abi SECONDS=1800 SEED=7
SECONDS ?= 60
SEED ?= 1
fuzz-abi: runtime lib
	scripts/fuzz_abi.sh $(TARGET) $(SECONDS) $(SEED)

# C and C++ tests under AddressSanitizer, ThreadSanitizer and valgrind: half an hour. Needs a
# nightly Rust with rust-src, clang and valgrind; says what it does not run.
test-sanitizers: runtime
	scripts/sanitize.sh

# The Go package under its race detector, with a collection at every opportunity, and with all checks
# of pointers that are passed to C.
test-go-race: runtime lib
	scripts/go_race.sh $(TARGET)

# Ranks of MPI: Open MPI and MPICH, where they are installed; says so where they are not.
test-mpi: lib runtime
	scripts/test_mpi.sh $(TARGET)

# Compiles mmopt_nccl.h against an nccl.h of NCCL_INCLUDE, of the system or fetched; says so where
# there is none.
test-nccl:
	scripts/test_nccl.sh $(BUILD)/nccl

# Checkpoints under kills, failing system calls and power cuts; Linux. Minutes.
KILLS ?= 1000
test-crash: runtime lib
	scripts/test_crash.sh $(TARGET) $(KILLS)

bench-step: runtime
	$(CARGO) bench --locked --bench step

# A joint step of three base-size models, passes and optimizer; BENCH_DEVICE=cuda:0 on a GPU.
bench-train: runtime
	$(CARGO) bench --locked --bench train

# The same steps in PyTorch beside ours, in turn; PYTHON has torch, else our side is measured alone.
# scripts/torch_venv.sh makes one.
PYTHON ?= $(BUILD)/torch-venv/bin/python
bench-torch: runtime
	BENCH_TORCH="$(PYTHON)" $(CARGO) bench --locked --bench train

# Step, optimizer and memory for 1 to 8 models and widths from 128 to 768, and the exponents.
bench-growth: runtime
	BENCH_GROWTH=1 $(CARGO) bench --locked --bench train

# A step with each teacher of mutual learning against one without.
bench-mutual: runtime
	$(CARGO) bench --locked --bench mutual

# A checkpoint of 1.3 GB against a plain write, and a step that begins one beside the training.
bench-checkpoint: runtime
	$(CARGO) bench --locked --bench checkpoint

# From an exported BERT-base to a training session: seconds and memory.
bench-load: runtime
	$(CARGO) run --release --locked -p mmopt-tools --bin load_base -- $(or $(ROUNDS),5)

# A step of a tiny model through C, C++ and Go against Rust.
bench-abi: lib
	$(CARGO) bench --locked --bench abi

bench: bench-step bench-abi
	$(CARGO) bench --locked --bench kernels
	$(CARGO) bench --locked --bench muon
	$(MAKE) bench-torch

# Joint against independent training on real text, see docs/results.md: hours. DATA names the folder
# of the labelled files; without it only what a script can fetch is run. May be killed, and goes on
# where it was. ONLY=regime/task/arm/seed (any of them `*`) picks cells. RENEW=1 also runs those again
# that other sources of the library ran.
EXPERIMENTS = $(CARGO) run --release --locked -p mmopt-tools --bin experiments --
experiments: runtime examples
	DATA="$(DATA)" $(EXPERIMENTS) run $(if $(ONLY),--only '$(ONLY)') $(if $(JOBS),--jobs $(JOBS)) $(if $(RENEW),--renew)
	DATA="$(DATA)" $(EXPERIMENTS) examples
	$(EXPERIMENTS) report

# A part of the grid for one epoch, end to end, in a folder of its own: minutes.
experiments-quick: runtime examples
	DATA= $(EXPERIMENTS) run --quick --work $(BUILD)/experiments/quick --runs $(BUILD)/experiments/quick/runs.jsonl
	DATA= $(EXPERIMENTS) examples --work $(BUILD)/experiments/quick --runs $(BUILD)/experiments/quick/runs.jsonl
	$(EXPERIMENTS) report --runs $(BUILD)/experiments/quick/runs.jsonl --out $(BUILD)/experiments/quick

# Replicas that meet now and then against summed gradients, on 2 ranks of Open MPI, see docs/ranks.md:
# hours. DATA as above. May be killed, and goes on where it was.
experiments-ranks: runtime lib
	DATA="$(DATA)" $(EXPERIMENTS) data --only fresh/sst2/independent/1
	DATA= scripts/ranks_accuracy.sh $(TARGET) docs/results/ranks.jsonl
	$(EXPERIMENTS) ranks --runs docs/results/ranks.jsonl

# Needs a nightly toolchain and cargo-fuzz, which it installs; SECONDS are shared by all targets.
# (The shell sets a SECONDS of its own, so only the command line's counts.)
fuzz: runtime
	scripts/fuzz.sh $(if $(filter command line,$(origin SECONDS)),$(SECONDS),1800) $(TARGETS)

clean:
	$(CARGO) clean
	rm -rf $(BUILD)
