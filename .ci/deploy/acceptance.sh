#!/bin/bash
# Runs in a Debian that boot started: installs the package, uses it as an operator does, removes it.
set -uo pipefail
exec 2>&1
version=$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')
. /etc/os-release
echo "== $PRETTY_NAME, systemd $version"

fail() {
    echo "FAILED: $*"
    systemctl status --no-pager --full portcullis | head -n 20
    journalctl --no-pager --unit portcullis --lines 20
    exit 1
}
try() { "$@" > /tmp/out 2>&1 || { cat /tmp/out; fail "$*"; }; }
ok() { echo "ok: $*"; }
# What the log of the running process says; the journal may be a moment behind.
logged() {
    local invocation; invocation=$(systemctl show --value --property InvocationID portcullis)
    for _ in $(seq 100); do
        journalctl --no-pager --output cat _SYSTEMD_INVOCATION_ID="$invocation" > /tmp/journal
        grep -q -- "$1" /tmp/journal && return
        sleep 0.1
    done
    cat /tmp/journal
    fail "the log does not say: $1"
}
ask() { curl --silent --show-error --fail --max-time 10 --cacert /certs/root.pem "$@"; }
accepted() { ask --cert "/certs/$1.pem" --key "/certs/$1-key.pem" "https://localhost:$2/"; }

try dpkg --install /portcullis.deb
id portcullis > /dev/null || fail "no user"
systemctl is-active --quiet portcullis && fail "it runs before anybody configured it"
ok "the package installs"
for unit in portcullis.service portcullis.socket portcullis-fetch.service portcullis-rotate.service portcullis-rotate.timer; do
    said=$(systemd-analyze verify "$unit" 2>&1) || fail "$unit: $said"
    [ -z "$said" ] || fail "$unit: $said"
done
for unit in portcullis portcullis-fetch portcullis-rotate; do
    try systemd-analyze security --offline=true --threshold=15 "/lib/systemd/system/$unit.service"
done
ok "systemd-analyze finds nothing in the units"

install -m 0644 /certs/server-cert.pem /etc/portcullis/server.pem
install -m 0640 -g portcullis /certs/server-key.pem /etc/portcullis/server.key
install -m 0644 /certs/trust/client-1.pem /etc/portcullis/trust/
try systemctl start portcullis
logged 'sandboxed.*is_whole.*true'
try accepted client-1 8443
accepted client-2 8443 > /dev/null 2>&1 && fail "a client that is not trusted is accepted"
accepted stranger 8443 > /dev/null 2>&1 && fail "a stranger is accepted"
ask https://localhost:8443/ > /dev/null 2>&1 && fail "a client without a certificate is accepted"
ok "it starts in its sandbox, accepts the trusted client and no other"

install -m 0644 /certs/trust/client-2.pem /etc/portcullis/trust/
try systemctl reload portcullis
logged reloaded
try accepted client-2 8443
ok "it reloads"

try systemctl stop portcullis
[ "$(systemctl show --value --property Result portcullis)" = success ] || fail "it did not stop cleanly"
try systemctl enable --now portcullis.socket portcullis
try accepted client-1 443
load() {
    while [ ! -e /tmp/enough ]; do
        if accepted client-1 443 > /dev/null 2>> /tmp/lost; then echo >> /tmp/served; else echo "a request" >> /tmp/lost; fi
    done
}
rm -f /tmp/enough /tmp/lost /tmp/served
for _ in 1 2 3; do load & done
for _ in 1 2 3; do sleep 1; try systemctl restart portcullis; done
sleep 1
touch /tmp/enough
wait
[ -s /tmp/lost ] && { cat /tmp/lost; fail "requests were lost"; }
ok "three restarts under load lost none of $(wc -l < /tmp/served) requests"

mkdir -p /etc/systemd/system/portcullis.service.d
install -m 0600 /certs/server-key.pem /etc/ssl/private/server.key
install -m 0644 /certs/server-cert.pem /etc/ssl/private/server.pem
rm /etc/portcullis/server.key
cp /usr/share/doc/portcullis/examples/credentials.conf /etc/systemd/system/portcullis.service.d/
try systemctl daemon-reload
try systemctl restart portcullis
try accepted client-1 443
ok "LoadCredential gives it a key that only root can read"

if [ "$version" -ge 253 ]; then
    cp /usr/share/doc/portcullis/examples/notify-reload.conf /etc/systemd/system/portcullis.service.d/
    try systemctl daemon-reload
    try systemctl restart portcullis
    try systemctl reload portcullis
    journalctl --no-pager --unit portcullis --lines 3 | grep -q reloaded || sleep 1
    logged reloaded
    ok "notify-reload waits for the reload"
fi

# Hardening that others wrote: the filter refuses Landlock, or kills.
for errno in EPERM ''; do
    printf '[Service]\nSystemCallFilter=\nSystemCallFilter=@system-service\nSystemCallFilter=~landlock_create_ruleset\nSystemCallErrorNumber=%s\n' \
        "$errno" > /etc/systemd/system/portcullis.service.d/filter.conf
    try systemctl daemon-reload
    try systemctl restart portcullis
    if [ -n "$errno" ]; then logged 'not_sandboxed.*a seccomp filter refuses'; else logged 'not_sandboxed.*a seccomp filter kills'; fi
    try accepted client-1 443
done
ok "it survives a filter that refuses Landlock, and one that kills, and says so"

try dpkg --remove portcullis
systemctl is-active --quiet portcullis && fail "it runs on"
[ -e /usr/bin/portcullis ] && fail "the binary stays"
[ -e /etc/portcullis/portcullis.env ] || fail "removing took the configuration"
try dpkg --purge portcullis
[ -e /etc/portcullis/portcullis.env ] && fail "purging left the configuration"
[ -e /etc/portcullis/server.pem ] || fail "purging took a certificate"
ok "the package is removed"
echo "all good"
