# make test: everything; gets redis-server when it is missing and leaves no server running.
.PHONY: test lint ci serve

test:
	scripts/redis-server.sh
	cargo test --workspace

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

ci:
	.ci/run

serve:
	cargo run --release -- serve
