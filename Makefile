# What a person needs. `make demo`, `make test` and `make test-long` work from a fresh clone on Debian or Ubuntu.

CARGO ?= cargo
PREFIX ?= /usr/local
# mount(8) looks for helpers here, whatever the prefix.
MOUNT_HELPERS ?= /sbin

# What scripts/setup put in the user's home and below target/tools, where the system has none or an old one.
CARGO_BIN := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin
NODE_BIN := $(CURDIR)/target/tools/node_modules/node/bin
export PATH := $(CARGO_BIN):$(PATH)
WITH_NODE := PATH="$(NODE_BIN):$$PATH"

.PHONY: demo test test-long natlab bench setup toolchain check man-lint install

demo: toolchain
	$(CARGO) run --release --quiet -- demo

toolchain:
	@scripts/setup build

setup:
	@scripts/setup

test: setup
	$(WITH_NODE) $(CARGO) test --no-fail-fast

# Below an hour on two cores; LONG=5 does five per cent of it.
test-long: setup
	CARGO="$(CARGO)" scripts/test-long $(LONG)

check: man-lint
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

man-lint:
	mandoc -T lint -W warning man/hdrive.1

bench: setup
	$(CARGO) build --release
	$(CARGO) test --release --lib --no-run
	$(WITH_NODE) benches/table

# Who reaches whom behind which NAT, beside JavaScript; relays, loss, thin links, paths that die: TRIES of each. As root.
TRIES ?= 1
natlab: setup
	$(CARGO) build --release
	$(WITH_NODE) scripts/natlab $(TRIES)

install: toolchain
	$(CARGO) build --profile dist
	install -Dm755 target/dist/hdrive $(DESTDIR)$(PREFIX)/bin/hdrive
	install -Dm644 man/hdrive.1 $(DESTDIR)$(PREFIX)/share/man/man1/hdrive.1
	install -d $(DESTDIR)$(MOUNT_HELPERS) && \
		ln -sf $(PREFIX)/bin/hdrive $(DESTDIR)$(MOUNT_HELPERS)/mount.hdrive || \
		echo "note: without $(MOUNT_HELPERS)/mount.hdrive, a link to hdrive, fstab and mount(8) do not know it"
