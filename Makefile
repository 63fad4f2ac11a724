# make test: everything; gets redis-server when it is missing and leaves no server running.
.PHONY: test lint deny ci serve

test:
	scripts/redis-server.sh
	cargo test --workspace

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

# Licences, duplicates and origins of dependencies, by deny.toml. Needs cargo-deny.
deny:
	cargo fetch --locked
	cargo deny --offline --workspace check bans licenses sources

ci:
	.ci/run

serve:
	cargo run --release -- serve
