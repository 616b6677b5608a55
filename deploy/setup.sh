#!/bin/sh
# Makes .venv from the lock file. Run by `make`; safe to run again. Installs Debian packages only when root.
set -eu
cd "$(dirname "$0")/.."
what="${1:-run}"   # run | dev | browser | redis

say() { printf '%s\n' "$*" >&2; }
apt() {
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return 1
    say "setup: apt-get install $*"
    # Packages of servers must not start them: the tests start their own, on ports of their own.
    guard=/usr/sbin/policy-rc.d; made=
    [ -e "$guard" ] || { printf '#!/bin/sh\nexit 101\n' > "$guard"; chmod +x "$guard"; made=1; }
    apt-get update -q >/dev/null 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null 2>&1 && ok=0 || ok=$?
    [ -z "$made" ] || rm -f "$guard"
    return "$ok"
}

case "$what" in
browser)
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || apt chromium fonts-dejavu-core || {
        say "setup: no Chromium found and it cannot be installed here; install the package \`chromium\`"; exit 1; }
    exit 0 ;;
redis)
    command -v redis-server >/dev/null || apt redis-server || {
        say "setup: no redis-server found and it cannot be installed here; install Redis 7 or newer"; exit 1; }
    exit 0 ;;
bench)
    command -v wrk >/dev/null && command -v nginx >/dev/null || apt wrk nginx-light || {
        say "setup: the benchmark needs \`wrk\` and \`nginx\`"; exit 1; }
    exit 0 ;;
esac

lock="requirements/$what.lock"
stamp=".venv/.ready-$what"
sum=$(cat "$lock" pyproject.toml | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && exit 0

pick() {
    for python in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$python" >/dev/null 2>&1 || continue
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$python"; return 0; }
    done
    return 1
}
python=$(pick) || { apt python3 python3-venv && python=$(pick); } || {
    say "setup: Python 3.11 or newer is needed; none was found"; exit 1; }
if [ ! -x .venv/bin/pip ]; then
    say "setup: making .venv with $($python --version)"
    "$python" -m venv .venv >/dev/null 2>&1 || { rm -rf .venv; apt python3-venv && "$python" -m venv .venv; } || {
        say "setup: \`$python -m venv\` failed; install python3-venv"; exit 1; }
fi
say "setup: installing the locked packages of $lock"
.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r "$lock"
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# The project itself: a path entry and a launcher, so that nothing outside the lock is ever fetched to build it.
pwd > "$site/agent_gateway.pth"
cat > .venv/bin/gateway <<'LAUNCH'
#!/bin/sh
exec "$(dirname "$0")/python" -m gateway "$@"
LAUNCH
chmod +x .venv/bin/gateway
.venv/bin/python -m compileall -q "$site" >/dev/null 2>&1 || true
printf '%s' "$sum" > "$stamp"
