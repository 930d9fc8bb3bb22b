# Five targets a person needs. `make demo` and `make test` work from a fresh clone.

CARGO ?= cargo
PREFIX ?= /usr/local

.PHONY: demo test bench setup check man-lint install

demo:
	$(CARGO) run --release --quiet -- demo

setup:
	scripts/setup

test: setup
	$(CARGO) test --no-fail-fast

check: man-lint
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

man-lint:
	mandoc -T lint -W warning man/hdrive.1

bench: setup
	$(CARGO) build --release
	benches/table

install:
	$(CARGO) build --profile dist
	install -Dm755 target/dist/hdrive $(DESTDIR)$(PREFIX)/bin/hdrive
	install -Dm644 man/hdrive.1 $(DESTDIR)$(PREFIX)/share/man/man1/hdrive.1
