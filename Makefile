# Cairn's tasks. `make` lists them. The first two are all that a newcomer needs: `make run` and `make test`.
#
# Tools that are needed for the tests only are kept below target/ and nothing else of the machine is changed, except that
# missing Debian packages are installed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where `make run` listens and keeps its data.
LISTEN ?= 127.0.0.1:7171
ADMIN ?= 127.0.0.1:9464
RUN_DATA ?= target/run/data
# RUN_ONCE=1 stops the node once everything was shown.
RUN_ONCE ?=
QUESTION ?= How do I add my own documents?

# The binary. One given from outside is taken as it is; otherwise it is built.
CAIRN ?=
CARGO := cargo
TARGET_DIR := target
TOOLS := $(TARGET_DIR)/tools
NPM := $(TARGET_DIR)/npm
VENV := $(TARGET_DIR)/venv
PEERS := $(TARGET_DIR)/peers
# Of their own: checkov pins a hundred packages, which the MCP client must not be held to.
SCANNERS := $(TARGET_DIR)/scanners
GUEST := $(TARGET_DIR)/guest
KUBE := $(TARGET_DIR)/kube
CARGO_DENY_VERSION := 0.20.2
CARGO_NEXTEST_VERSION := 0.9.143
CARGO_FUZZ_VERSION := 0.13.1
CARGO_CYCLONEDX_VERSION := 0.5.9
export PATH := $(CURDIR)/$(TOOLS)/bin:$(PATH)

.PHONY: help
help: ## List the tasks
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 18

.PHONY: run
run: setup-build ## Build, start a node, put Cairn's own manual in, search it; Ctrl-C stops it
	@cairn='$(CAIRN)'
	if [ -z "$$cairn" ]; then
		$(CARGO) build --release
		cairn=$(built)
	fi
	cairn=$$(realpath "$$cairn")
	mkdir -p '$(RUN_DATA)'
	export CAIRN_DATA_DIR=$$(realpath '$(RUN_DATA)')
	ready=$$(mktemp -d)
	mkfifo "$$ready/line"
	"$$cairn" serve --listen '$(LISTEN)' --admin '$(ADMIN)' >"$$ready/line" 2>"$$CAIRN_DATA_DIR/../cairn.log" &
	node=$$!
	stop() { kill "$$node" 2>/dev/null || true; wait "$$node" || true; rm -rf "$$ready"; }
	trap stop EXIT
	trap 'exit 0' INT TERM
	# Blocks until the node answers; ends without a line when it does not start.
	if ! read -r line <"$$ready/line"; then
		echo "make run: the node did not start:" >&2
		cat "$$CAIRN_DATA_DIR/../cairn.log" >&2
		exit 1
	fi
	echo
	echo "$$line"
	echo
	echo '$$ cairn add docs -c manual'
	"$$cairn" add docs -c manual
	echo
	echo '$$ cairn search "$(QUESTION)" -c manual -n 3'
	"$$cairn" search "$(QUESTION)" -c manual -n 3
	echo 'For an MCP client that connects over HTTP:'
	echo '  {"mcpServers": {"cairn": {"type": "http", "url": "http://$(LISTEN)/mcp"}}}'
	echo 'For one that starts its servers itself:'
	echo "  {\"mcpServers\": {\"cairn\": {\"command\": \"$$cairn\", \"args\": [\"mcp\", \"--data-dir\", \"$$CAIRN_DATA_DIR\"]}}}"
	echo
	echo "Data is in $$CAIRN_DATA_DIR, the log in $$(realpath "$$CAIRN_DATA_DIR/..")/cairn.log."
	if [ -n '$(RUN_ONCE)' ]; then exit 0; fi
	echo 'Ctrl-C stops the node.'
	wait "$$node"

# Where cargo puts the binary: .cargo/config.toml builds for the machine's own triple by name.
built = $(TARGET_DIR)/$$(rustc -vV | sed -n 's/^host: //p')/release/cairn

.PHONY: test
test: ## Set up what the tests need and run all of them
	@# Go's part takes minutes and needs nothing of the others, which wait for networks and for single cores.
	$(MAKE) setup-kube &
	kube=$$!
	trap 'kill $$kube 2>/dev/null || true' EXIT
	$(MAKE) setup-build setup-test
	$(CARGO) nextest run --release --no-run
	wait $$kube
	export CAIRN_TEST_LEFT_OUT='$(CURDIR)/$(TARGET_DIR)/left-out.txt'
	rm -f "$$CAIRN_TEST_LEFT_OUT"
	# What did not run is counted also when something failed.
	left_out() {
		if [ -s "$$CAIRN_TEST_LEFT_OUT" ]; then
			echo
			echo "$$(wc -l <"$$CAIRN_TEST_LEFT_OUT") tests, or parts of them, were left out:"
			cut -f1 "$$CAIRN_TEST_LEFT_OUT" | sort | uniq -c | sort -rn
		fi
	}
	trap left_out EXIT
	# Half of their time the tests wait, for clocks and for each other, so there are more of them at once than processors.
	$(CARGO) nextest run --release --test-threads $$((($$(nproc) * 3 + 1) / 2))

# amd64: this machine's program, all journeys. arm64: the program for aarch64 on a board with pages of 16 KiB, the first journey of each kind.
ARCH ?= amd64
.PHONY: test-host
test-host: setup $(if $(filter arm64,$(ARCH)),setup-cross setup-guest-arm64) ## Run the long tests on an emulated host with systemd; ARCH=arm64 for an emulated board
	@if [ '$(ARCH)' = amd64 ]; then
		CAIRN_TEST_HOST=all $(CARGO) nextest run --release -E 'test(/^(host|install)::/)' --no-capture
		exit
	fi
	$(MAKE) dist-binary TARGET=$(CROSS_TARGET)
	CAIRN_TEST_GUEST=arm64 AARCH64_PROGRAM='$(CURDIR)/$(TARGET_DIR)/$(CROSS_TARGET)/dist/cairn' $(CARGO) nextest run --release --no-capture \
		-E 'test(/^aarch64::a_board/) | test(=host::a_node_lives_on_a_systemd_host) | test(=install::a_node_is_installed_without_a_network_upgraded_taken_back_and_removed)'

# Tests of this machine's own program that the emulated one passes too, and those that compare the two.
AARCH64_TESTS ?= test(/^(aarch64|bundle|durability|formats|snapshots)::/) | test(what_a_bundle_brings_arrives_in_an_image)
# What compares the program with the file of this machine's own.
AARCH64_NOT ?= test(/^bundle::(a_bundle_for_both|what_is_packed)/)
# dist: the release. emulated: without its GPU helper and without optimisation, which builds faster.
AARCH64_PROFILE ?= dist
.PHONY: test-aarch64
test-aarch64: setup-cross setup-test ## Build for aarch64, and test that program with qemu-user; AARCH64_PROFILE=emulated for a quick build
	@built=$(CURDIR)/$(TARGET_DIR)/$(CROSS_TARGET)
	if [ '$(AARCH64_PROFILE)' = dist ]; then
		$(MAKE) dist-binary TARGET=$(CROSS_TARGET)
		export AARCH64_GPU_HELPER=$$built/gpu-helper/$(CROSS_TARGET)/helper/cairn-gpu
	else
		$(MAKE) emulated-binary TARGET=$(CROSS_TARGET)
	fi
	AARCH64_PROGRAM=$$built/$(AARCH64_PROFILE)/cairn CAIRN_TEST_PROGRAM='$(CURDIR)/tests/aarch64/run' \
		$(CARGO) nextest run --release -E '($(AARCH64_TESTS)) - ($(AARCH64_NOT))'

# For every change: the quick build, and one test of each kind.
AARCH64_QUICK := test(/^(aarch64|formats)::/) \
	| test(=durability::a_killed_node_answers_as_before) | test(=bundle::each_damage_is_named) \
	| test(=snapshots::deleted_documents_come_back_and_are_found_as_before) | test(=snapshots::a_snapshot_travels_in_one_file) \
	| test(=install::what_a_bundle_brings_arrives_in_an_image)
.PHONY: test-aarch64-quick
test-aarch64-quick: ## The same in a quarter of the time: a quick build, and one test of each kind
	@$(MAKE) test-aarch64 AARCH64_PROFILE=emulated AARCH64_TESTS='$(AARCH64_QUICK)'

# A Raspberry Pi 4, a Raspberry Pi 5, and all that the emulator knows.
AARCH64_CPUS ?= cortex-a72 cortex-a76 max
# What asks a GPU would wait for ever: the program is built without its helper.
AARCH64_KERNELS := test(/^(base::prefetch|embed|index::vector)::/) - test(/^index::vector::engine::tests::/) \
	| test(=index::vector::engine::tests::a_scan_answers_as_defined) \
	| test(=index::vector::engine::tests::the_graph_answers_as_defined_but_for_a_few_that_it_misses)
.PHONY: test-aarch64-kernels
test-aarch64-kernels: setup-cross setup-test ## Run the unit tests of vectors and models as if on ARM processors that have other instructions
	@$(MAKE) emulated-kernels TARGET=$(CROSS_TARGET)

.PHONY: emulated-kernels
emulated-kernels:
	@export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$$(command -v qemu-aarch64-static || command -v qemu-aarch64)
	for cpu in $(AARCH64_CPUS); do
		QEMU_CPU=$$cpu $(CARGO) nextest run --locked --cargo-profile emulated --target $(TARGET) --no-default-features $(REMAP) --lib \
			-E '$(AARCH64_KERNELS)'
	done

.PHONY: emulated-binary
emulated-binary:
	@# The kernels of vectors ask for optimisation of their own, whatever the profile says.
	CFLAGS=-O0 CXXFLAGS=-O0 $(CARGO) build --locked --profile emulated --target $(TARGET) --no-default-features $(REMAP)

.PHONY: test-k8s
test-k8s: setup ## The journey of tests/it/install_k3s.rs on this machine's K3s server, as root: KUBECONFIG=/etc/rancher/k3s/k3s.yaml
	@if [ ! -r '$(KUBECONFIG)' ]; then echo 'test-k8s: run this as root on a K3s server without Cairn, with KUBECONFIG=/etc/rancher/k3s/k3s.yaml' >&2; exit 1; fi
	CAIRN_TEST_K8S='$(KUBECONFIG)' $(CARGO) nextest run --release -E 'test(/install_k3s::.*real_server/)' --no-capture

.PHONY: test-cluster
test-cluster: setup-build setup-cluster ## Install Cairn on a whole Kubernetes node that is started here and removed after, as root
	@cairn='$(CAIRN)'
	if [ -z "$$cairn" ]; then
		$(CARGO) build --release
		cairn=$(built)
	fi
	tests/kube/cluster "$$cairn" $(KUBE)

.PHONY: bench
bench: setup-bench ## Measure ingest, search, start and idling; BENCH="--passages 10000" for a short one
	@$(CARGO) build --release
	python3 tests/bench/bench.py --cairn "$(built)" $(BENCH)

.PHONY: bench-snapshots
bench-snapshots: setup-bench ## Measure snapshots, restore and compaction; BENCH="--passages 700000" for a log of 1 GB
	@$(CARGO) build --release
	python3 tests/bench/snapshots.py --cairn "$(built)" $(BENCH)

# Passages are ten times this.
FILES ?= 10000
.PHONY: bench-parts
bench-parts: setup-bench ## Measure the vector part beside usearch itself, and the stages of a search; FILES=100000 for a million passages
	@$(CARGO) build --release
	rm -rf $(TARGET_DIR)/bench
	python3 tests/bench/corpus.py $(TARGET_DIR)/bench/corpus --files $(FILES) --sections 10
	$(CARGO) bench --bench vectors -- $(CURDIR)/$(TARGET_DIR)/bench/corpus $(FILES)0
	"$(built)" add $(TARGET_DIR)/bench/corpus/docs -c bench --data-dir $(TARGET_DIR)/bench/data --json >/dev/null
	$(CARGO) bench --bench stages -- $(CURDIR)/$(TARGET_DIR)/bench/data $(CURDIR)/$(TARGET_DIR)/bench/corpus/queries.txt

.PHONY: bench-gpu
bench-gpu: setup-bench ## Measure this machine's GPU: its kernels, PyTorch beside them, a node over MCP; BENCH="--rows 100000" for less
	@$(CARGO) build --release
	python3 tests/bench/gpu.py --cairn "$(built)" $(BENCH)

.PHONY: bench-growth
bench-growth: setup-bench ## Measure the same at 10,000, 100,000 and 1,000,000 passages, and draw it; half an hour
	@$(CARGO) build --release
	python3 tests/bench/growth.py --cairn "$(built)" --out $(TARGET_DIR)/bench-growth $(BENCH)

.PHONY: bench-peers
bench-peers: setup-bench $(PEERS)/installed ## Measure beside hnswlib, faiss, usearch, lancedb, chromadb and two MCP servers; BENCH="--passages 20000" for a short one
	@$(CARGO) build --release
	rm -rf $(TARGET_DIR)/bench-peers
	$(PEERS)/bin/python tests/bench/peers/run.py --cairn "$(built)" --scratch $(TARGET_DIR)/bench-peers $(BENCH)

.PHONY: bench-agent
bench-agent: setup-bench ## Measure what an agent reads until it has the answer, with Cairn and with grep; CAIRN_EVAL_DATA adds k3s-docs
	@$(CARGO) build --release
	python3 -c 'import ensurepip' 2>/dev/null || { $(call packages,no-such-program:python3-venv); }
	python3 -m venv $(TARGET_DIR)/bench-agent/venv
	$(TARGET_DIR)/bench-agent/venv/bin/python tests/bench/agent/run.py --cairn "$(built)" --scratch $(TARGET_DIR)/bench-agent $(BENCH)

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# aarch64-unknown-linux-gnu is built on an x86_64 machine too, once `make setup-cross` has made the toolchain.
TARGET ?= $(HOST)
CROSS ?= $(CURDIR)/$(TARGET_DIR)/cross
CROSS_TARGET := aarch64-unknown-linux-gnu
DIST ?= dist
DIST_NAME = cairn-$(VERSION)-$(firstword $(subst -, ,$(TARGET)))-linux
# Paths of the machine that builds are no part of what is built: of Rust's messages, and of the C libraries' assertions.
REMAP = --config 'target."cfg(target_env = \"gnu\")".rustflags=["--remap-path-prefix=$(CURDIR)=cairn","--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo"]'
# Relocations in glibc's packed form, which a build machine's glibc must be 2.36 for, and functions of equal code only once: 3 MB
# less. Both are spelled for the linker that Rust brings along.
REMAP += --config 'target."cfg(target_env = \"gnu\")".rustflags=["-Clink-arg=-Wl,-z,pack-relative-relocs","-Clink-arg=-Wl,--icf=all"]'
# For x86_64 rustc takes that linker without being asked.
ifneq ($(filter aarch64-%-gnu,$(TARGET)),)
REMAP += --config 'target."cfg(target_env = \"gnu\")".rustflags=["-Clink-arg=-fuse-ld=lld","-Clink-arg=-B$(LLD)"]'
endif
ifneq ($(TARGET),$(HOST))
export CC_aarch64_unknown_linux_gnu := $(CROSS)/bin/aarch64-linux-gnu-gcc
export CXX_aarch64_unknown_linux_gnu := $(CROSS)/bin/aarch64-linux-gnu-g++
export AR_aarch64_unknown_linux_gnu := $(CROSS)/bin/aarch64-linux-gnu-ar
endif
# A compiler with the target's standard library, where the machine's own has it not.
ifneq ($(and $(filter-out $(HOST),$(TARGET)),$(wildcard $(CROSS)/bin/rustc)),)
export RUSTC := $(CROSS)/bin/rustc
LLD = $(CROSS)/bin
else
LLD = $(shell rustc --print sysroot)/lib/rustlib/$(HOST)/bin/gcc-ld
endif
MAP_C = -ffile-prefix-map=$(CURDIR)=cairn -ffile-prefix-map=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo

.PHONY: dist
dist: setup-build setup-dist $(if $(filter-out $(HOST),$(TARGET)),setup-cross) ## Make the release in dist/: the static binary, digests, an SBOM, completions, man pages
	@mkdir -p $(DIST)
	$(MAKE) dist-binary
	install -m 755 $(TARGET_DIR)/$(TARGET)/dist/cairn $(DIST)/$(DIST_NAME)
	# Without the build and test dependencies: what is in the binary.
	cargo-cyclonedx cyclonedx --quiet --format json --spec-version 1.5 --target $(TARGET) --no-build-deps --override-filename cairn.cdx
	mv cairn.cdx.json $(DIST)/$(DIST_NAME).cdx.json
	mv src/gpu_helper/cairn.cdx.json $(DIST)/$(DIST_NAME).gpu.cdx.json
	if [ '$(TARGET)' = '$(HOST)' ]; then
		cairn=$$(realpath $(DIST)/$(DIST_NAME))
		rm -rf $(DIST)/man $(DIST)/completions
		mkdir -p $(DIST)/completions
		"$$cairn" man $(DIST)/man
		for shell in bash zsh fish elvish powershell; do "$$cairn" completions $$shell >$(DIST)/completions/cairn.$$shell; done
		file "$$cairn" | grep -q 'static-pie linked' || { echo "dist: $$cairn is not static-pie" >&2; exit 1; }
	fi
	(cd $(DIST) && sha256sum $(DIST_NAME) $(DIST_NAME).cdx.json $(DIST_NAME).gpu.cdx.json >SHA256SUMS)
	bytes=$$(stat -c %s $(DIST)/$(DIST_NAME))
	echo "$(DIST)/$(DIST_NAME): $$bytes bytes"
	if [ "$$bytes" -gt 45000000 ]; then echo "dist: more than 45 MB" >&2; exit 1; fi

.PHONY: reproducible
reproducible: setup-build ## Build the release twice, in two places, and compare the bytes; takes a while
	@rm -rf $(TARGET_DIR)/reproducible
	# Of one commit, also when more are made meanwhile.
	commit=$$(git rev-parse HEAD)
	for place in one two; do
		git clone --quiet . $(TARGET_DIR)/reproducible/$$place
		git -C $(TARGET_DIR)/reproducible/$$place checkout --quiet --detach "$$commit"
		$(MAKE) -C $(TARGET_DIR)/reproducible/$$place dist-binary TARGET='$(TARGET)' CROSS='$(CROSS)'
	done
	cmp $(TARGET_DIR)/reproducible/{one,two}/$(TARGET_DIR)/$(TARGET)/dist/cairn
	echo "both builds are the same: $$(sha256sum <$(TARGET_DIR)/reproducible/one/$(TARGET_DIR)/$(TARGET)/dist/cairn | cut -d' ' -f1)"

.PHONY: dist-binary
dist-binary:
	@# What libraries say of the time that they were built at is the same for all of them. The commit's would not do: what was built for an
	@# earlier commit is used again.
	export SOURCE_DATE_EPOCH=0
	CFLAGS="$(MAP_C)" CXXFLAGS="$(MAP_C)" $(CARGO) build --locked --profile dist --target $(TARGET) $(REMAP)

# Seconds for each target.
FUZZ_SECONDS ?= 600
# RUSTC_BOOTSTRAP: the coverage that the fuzzer steers by is an unstable option of the stable compiler. No sanitizer: Cairn's own
# readers are safe Rust, and panics and hangs are what is looked for.
.PHONY: fuzz
fuzz: setup-fuzz ## Fuzz all that reads bytes of others: documents, segments, logs, manifests, snapshot files, bundles, stacks; FUZZ_SECONDS=60 for a short run
	@for target in $$(basename -s .rs tests/fuzz/fuzz_targets/*.rs); do
		# What is found goes into the first folder; the other is where it begins.
		mkdir -p tests/fuzz/corpus/$$target
		seeds=tests/fuzz/seeds/$$target
		case $$target in
			pdf) seeds=tests/data/pdf ;;
			segment|log) seeds=tests/data/store_v1/log ;;
			manifest|archive|bundle) seeds= ;;
		esac
		# With names, for the traces of what is found.
		RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_STRIP=none CARGO_TARGET_DIR=$(CURDIR)/$(TARGET_DIR)/fuzz cargo fuzz run -O --fuzz-dir tests/fuzz -s none "$$target" \
			tests/fuzz/corpus/$$target $$seeds -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=20 -max_len=65536
	done

.PHONY: fmt
fmt: ## Format the code
	@$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check: ## Check that the code is formatted
	@$(CARGO) fmt --all --check

# --release: what the build made is used again.
.PHONY: lint
lint: ## Clippy; warnings are errors
	@$(CARGO) clippy --release --all-targets -- -D warnings
	@$(CARGO) clippy --release --package cairn-gpu -- -D warnings
	@$(CARGO) clippy --release --manifest-path tests/fuzz/Cargo.toml --target-dir $(TARGET_DIR) -- -D warnings

.PHONY: doc
doc: ## Build the code's documentation; warnings are errors
	@RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --release --no-deps

# Advisories are not checked: their database is a Git repository on GitHub, which builders without internet cannot reach, and
# an old copy would only seem to say that all is well. Where it can be reached: `cargo deny check advisories`.
.PHONY: deny
deny: setup-deny ## Check licences, sources and banned dependencies
	@cargo-deny --locked check bans licenses sources

.PHONY: clean
clean: ## Remove everything that was built or installed here
	@$(CARGO) clean

# What a fresh Debian 12 with Rust lacks. Each part looks before it does anything, so that a second run takes no time and
# needs no network.
.PHONY: setup
setup: setup-build setup-test setup-kube ## Install what building and testing need

# $(call packages,PROGRAM:PACKAGE …): installs the packages whose programs are missing. PROGRAM is one that no smaller package has.
define packages
missing=()
for pair in $(1); do command -v "$${pair%%:*}" >/dev/null || missing+=("$${pair##*:}"); done
if [ $${#missing[@]} -gt 0 ]; then
	echo "setup: installing $${missing[*]}"
	as_root=(); if [ "$$(id -u)" -ne 0 ]; then as_root=(sudo); fi
	if ! { "$${as_root[@]}" apt-get update -qq && "$${as_root[@]}" apt-get install -qq -y --no-install-recommends "$${missing[@]}"; }; then
		echo "setup: these Debian packages are missing and could not be installed: $${missing[*]}. Install them, then run this again." >&2
		exit 1
	fi
fi
endef

# A busybox that runs in images and in the emulated host, where there are no libraries: Debian's other one is linked to them.
define static_busybox
if ! { ldd "$$(command -v busybox)" 2>&1 || true; } | grep -E 'not a dynamic|statically linked' >/dev/null; then
	$(call packages,no-such-program:busybox-static)
fi
endef

# $(call cargo_tool,PROGRAM,VERSION): one of tests/tools/requirements.txt as it was built by others, in a second; where there is none
# for this machine it is built here, which takes ten minutes of processor time.
define cargo_tool
if ! command -v $(1) >/dev/null; then
	$(call packages,python3:python3)
	python3 -c 'import ensurepip' 2>/dev/null || { $(call packages,no-such-program:python3-venv); }
	mkdir -p $(TOOLS)/bin
	wheel=$$(grep -A2 '^astral-dev-toolchain-$(1)==$(2) ' tests/tools/requirements.txt) || { echo 'setup: tests/tools/requirements.txt lacks $(1) $(2)' >&2; exit 1; }
	if python3 -m venv $(TOOLS)/wheels && $(TOOLS)/wheels/bin/pip install --quiet --disable-pip-version-check --no-deps \
		--only-binary :all: --require-hashes -r <(echo "$$wheel"); then
		ln -sf ../wheels/bin/$(1) $(TOOLS)/bin/$(1)
	else
		echo 'setup: building $(1), because PyPI could not be reached or has none for this machine'
		$(CARGO) install --locked --root $(TOOLS) --target-dir $(TOOLS)/build $(1)@$(2) ||
			{ echo "setup: $(1) is missing and the package registry could not be reached to install it." >&2; exit 1; }
		rm -rf $(TOOLS)/build
	fi
fi
endef

.PHONY: setup-build
setup-build:
	@command -v $(CARGO) >/dev/null || { echo "setup: Rust is missing; install it from https://rustup.rs" >&2; exit 1; }
	# usearch and mimalloc are C and C++.
	$(call packages,g++:g++)

.PHONY: setup-test
setup-test: $(VENV)/installed $(SCANNERS)/installed $(NPM)/released/installed $(NPM)/coming/installed setup-guest
	@# gropdf: groff itself is in Debian's groff-base too, which writes no PDF.
	$(call packages,age:age curl:curl openssl:openssl containerd:containerd skopeo:skopeo minisign:minisign file:file ip:iproute2 mount:mount \
		gropdf:groff gs:ghostscript pdftotext:poppler-utils \
		systemd-analyze:systemd systemd-sysusers:systemd systemd-tmpfiles:systemd unshare:util-linux)
	# A GPU for the tests: Mesa's rasteriser. grep reads to the end: with -q the other program can fail of a closed pipe.
	if ! ls /usr/share/vulkan/icd.d/lvp_icd*.json >/dev/null 2>&1 || ! /sbin/ldconfig -p | grep 'libvulkan\.so\.1' >/dev/null; then
		$(call packages,no-such-program:mesa-vulkan-drivers no-such-program:libvulkan1)
	fi
	$(call cargo_tool,cargo-nextest,$(CARGO_NEXTEST_VERSION))

# The API server for tests/it/kube_apiserver.rs. What it is made of comes as Go modules, once.
.PHONY: setup-kube
setup-kube:
	@tests/kube/build $(KUBE) api

# What `make test-cluster` runs besides.
.PHONY: setup-cluster
setup-cluster:
	@$(static_busybox)
	$(call packages,containerd:containerd ip:iproute2 iptables:iptables mount:mount openssl:openssl \
		sysctl:procps unshare:util-linux)
	if [ ! -x /usr/lib/cni/bridge ]; then
		$(call packages,no-such-program:containernetworking-plugins)
	fi
	tests/kube/build $(KUBE) node

# The machine for tests/it/host.rs. What it is made of comes from Debian's archive, once.
.PHONY: setup-guest
setup-guest: $(GUEST)/complete
	@$(call packages,qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils)

$(GUEST)/complete: tests/guest/build tests/guest/agent tests/guest/agent.service tests/guest/init
	@if [ "$$(id -u)" -ne 0 ]; then
		echo "setup: the emulated host is left out, and with it the tests that need it: it takes root to make. Run: sudo make setup-guest" >&2
		exit 0
	fi
	$(static_busybox)
	$(call packages,debootstrap:debootstrap depmod:kmod qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs)
	echo "setup: making the emulated host, which takes two minutes"
	tests/guest/build $(GUEST)

.PHONY: setup-guest-arm64
setup-guest-arm64: $(GUEST)-arm64/complete
	@$(call packages,qemu-system-aarch64:qemu-system-arm qemu-img:qemu-utils)

$(GUEST)-arm64/complete: tests/guest/build tests/guest/agent tests/guest/agent.service tests/guest/init
	@if [ "$$(id -u)" -ne 0 ]; then echo "setup: it takes root to make the emulated board. Run: sudo make setup-guest-arm64" >&2; exit 1; fi
	$(static_busybox)
	$(call packages,debootstrap:debootstrap depmod:kmod mke2fs:e2fsprogs qemu-aarch64-static:qemu-user-static unshare:util-linux xz:xz-utils)
	echo "setup: making the emulated board, which takes five minutes"
	tests/guest/build $(GUEST)-arm64 arm64

$(VENV)/installed: tests/clients/requirements.txt
$(SCANNERS)/installed: tests/scanners/requirements.txt
$(PEERS)/installed: tests/bench/peers/requirements.txt
$(VENV)/installed $(SCANNERS)/installed $(PEERS)/installed:
	@$(call packages,python3:python3)
	python3 -c 'import ensurepip' 2>/dev/null || { $(call packages,no-such-program:python3-venv); }
	mkdir -p $(TARGET_DIR)
	if ! { python3 -m venv $(@D) && $(@D)/bin/pip install --quiet --disable-pip-version-check -r $<; }; then
		echo "setup: the Python packages of $< ($$(paste -sd' ' $<)) are missing and PyPI could not be reached to install them." >&2
		exit 1
	fi
	touch $@

# --ignore-scripts: nothing that is installed runs before a test runs it. Node.js itself is one of the packages, because
# Debian's is too old for the clients; Debian's npm is good enough to fetch it.
$(NPM)/%/installed: tests/clients/%/package.json
	@$(call packages,npm:npm)
	mkdir -p $(@D)
	cp $< $(@D)/
	if ! (cd $(@D) && npm install --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error); then
		echo "setup: the npm packages of $< are missing and the npm registry could not be reached to install them." >&2
		exit 1
	fi
	touch $@

# The toolchain for the other target. rustup has the standard library; where it cannot be reached, Debian's next release has a compiler
# with it. The GPU helper is linked by the machine's own cross compiler.
.PHONY: setup-cross
setup-cross: setup-build ## Make the toolchain that builds for aarch64 on an x86_64 machine
	@# qemu-user runs what is built.
	$(call packages,aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu patchelf:patchelf qemu-aarch64-static:qemu-user-static)
	# The C library that the GPU helper is linked with; the compiler only recommends it. An aarch64 machine has its own.
	if [ "$$(uname -m)" = x86_64 ] && [ ! -e /usr/aarch64-linux-gnu/lib/Scrt1.o ]; then
		$(call packages,no-such-program:libc6-dev-arm64-cross)
	fi
	rust=
	if ! rustup target list --installed 2>/dev/null | grep '^$(CROSS_TARGET)$$' >/dev/null && ! rustup target add $(CROSS_TARGET) 2>/dev/null; then
		echo "setup: rustup cannot add $(CROSS_TARGET); Debian's testing suite has a compiler for it"
		rust=rust
	fi
	.cargo/cross-toolchain '$(CROSS)' $$rust

.PHONY: setup-deny
setup-deny:
	@$(call cargo_tool,cargo-deny,$(CARGO_DENY_VERSION))

.PHONY: setup-dist
setup-dist: setup-build
	@$(call packages,file:file)
	if ! command -v cargo-cyclonedx >/dev/null; then
		$(CARGO) install --locked --root $(TOOLS) --target-dir $(TOOLS)/build cargo-cyclonedx@$(CARGO_CYCLONEDX_VERSION) ||
			{ echo "setup: cargo-cyclonedx is missing and the package registry could not be reached to install it." >&2; exit 1; }
		rm -rf $(TOOLS)/build
	fi

.PHONY: setup-fuzz
setup-fuzz: setup-build
	@if ! cargo fuzz --version >/dev/null 2>&1; then
		$(CARGO) install --locked --root $(TOOLS) --target-dir $(TOOLS)/build cargo-fuzz@$(CARGO_FUZZ_VERSION) ||
			{ echo "setup: cargo-fuzz is missing and the package registry could not be reached to install it." >&2; exit 1; }
		rm -rf $(TOOLS)/build
	fi

.PHONY: setup-bench
setup-bench: setup-build
	@$(call packages,wrk:wrk python3:python3)
