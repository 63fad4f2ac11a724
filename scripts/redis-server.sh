#!/bin/sh
# Prints the path of a redis-server, getting one when there is none: with apt as root, otherwise unpacked under
# target/redis without touching the system. Says on stderr what it does, and leaves no server running.
set -eu

say() { echo "redis-server.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

root=$(cd "$(dirname "$0")/.." && pwd)
unpacked=$root/target/redis

found=${REDIS_SERVER:-$(command -v redis-server || true)}
if [ -n "$found" ]; then
    [ -x "$found" ] || fail "REDIS_SERVER is $found, which is no program: correct or unset it"
    echo "$found"
    exit 0
fi
if [ -x "$unpacked/redis-server" ] && "$unpacked/redis-server" --version >/dev/null 2>&1; then
    echo "$unpacked/redis-server"
    exit 0
fi
command -v apt-get >/dev/null || fail "no redis-server here, and no apt-get to get one: install redis 7.0 or newer, or set REDIS_SERVER"

if [ "$(id -u)" = 0 ]; then
    say "installing the package redis-server with apt-get"
    # A policy of 101 keeps the package from starting its service; one that is already there is not replaced.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends redis-server >&2 || {
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends redis-server >&2
    }
    if [ -d /run/systemd/system ]; then
        say "disabling the service that the package brings"
        systemctl disable --now redis-server >&2 || say "could not disable it: systemctl disable --now redis-server"
    fi
    command -v redis-server || fail "the package is installed, and there is still no redis-server"
    exit 0
fi

say "unpacking redis-server and its libraries under $unpacked"
rm -rf "$unpacked.new"
mkdir -p "$unpacked.new/packages"
cd "$unpacked.new/packages"
# Follows the libraries only. The system's libc stays: a second one beside its loader would not run.
todo="redis-server redis-tools"
names=
while [ -n "$todo" ]; do
    name=${todo%% *}
    todo=$(echo "${todo#"$name"}" | sed 's/^ *//')
    case " $names " in *" $name "*) continue ;; esac
    names="$names $name"
    more=$(apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$name" |
        sed -n 's/^ *|*\(Pre\)*Depends: \(lib[a-z0-9.+-]*\)$/\2/p' | grep -vE '^libc6$' | tr '\n' ' ') || true
    todo=$(echo "$todo $more" | sed 's/^ *//; s/ *$//')
done
# Some are alternatives of each other, and not all exist everywhere: the server tells in the end whether one is missing.
for name in $names; do
    apt-get download -q "$name" >/dev/null 2>&1 || say "leaving out $name"
done
for package in *.deb; do
    [ -e "$package" ] || fail "apt-get download brought nothing: is the network there?"
    dpkg -x "$package" ../root
done
cd "$unpacked.new"
# In newer releases the program is a link to redis-check-rdb of redis-tools, which comes along.
[ -e root/usr/bin/redis-server ] || fail "the packages hold no redis-server"
cat >redis-server <<'WRAPPER'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
libraries=$(find "$here/root" -name '*.so*' -exec dirname {} + | sort -u | tr '\n' ':')
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:-} exec "$here/root/usr/bin/redis-server" "$@"
WRAPPER
chmod +x redis-server
rm -rf packages
./redis-server --version >&2 || fail "the unpacked redis-server does not run"
rm -rf "$unpacked"
mv "$unpacked.new" "$unpacked"
echo "$unpacked/redis-server"
