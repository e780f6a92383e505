# Each target works on a fresh machine with Rust, make and root; it installs what the system lacks.

CARGO ?= cargo
SAGONG := target/release/sagong

.PHONY: demo test lint build bench soak soak-crash system-packages test-packages

## The main job: roll a Deployment from v1 to v2 under load, lose no request.
demo: build
	@$(SAGONG) demo

## Everything that is tested, end-to-end tests with real containers included.
test: system-packages test-packages lint
	$(CARGO) build -p sagong
	$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest
	$(CARGO) nextest run --workspace --no-fail-fast
	$(CARGO) test --workspace --doc --quiet

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

build: system-packages
	$(CARGO) build --release -p sagong

## Prints figures against the goals; see docs/performance.md.
bench: build test-packages
	@./.ci/install skopeo:skopeo umoci:umoci
	./benches/run

## Lives through simulated histories full of faults, as many as wanted: make soak SEEDS=100000
SEEDS ?= 10000
soak:
	$(CARGO) run --release --quiet -p sagong-simulation --example soak -- $(SEEDS)

## Kills Sagong and its helpers under load and at work, as often as wanted: make soak-crash KILLS=100
KILLS ?= 100
soak-crash: system-packages test-packages
	$(CARGO) build -p sagong
	SAGONG_KILLS=$(KILLS) $(CARGO) test -p sagong-tests --test crash -- --nocapture --test-threads=1

system-packages:
	@./.ci/install nft:nftables gcc:gcc curl:curl

test-packages:
	@./.ci/install docker-registry:docker-registry kubectl:kubernetes-client \
		busybox:busybox-static python3:python3 pip3:python3-pip node:nodejs npm:npm
