#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Does pycor-hooks work with the LXD snap of this host? For the owner of an Ubuntu host:
#
#   sudo tests/snap/real.sh [IMAGE]
#
# IMAGE is what the base is made from: images:alpine/edge, or a file that `lxc image import` takes.
# Everything is done in a project, a pool and a prefix of its own, and removed in the end, also
# after Ctrl-C. Instances, profiles, images and pools of yours are neither used nor changed, but if
# you use pycor-hooks already, its watcher and that of this check both refresh what is on a base.
# The daemon is not restarted; with REFRESH=1 in the environment it is, by the unit's reload, which
# leaves containers running as a refresh of the snap does (snap restart would stop them).

set -eu

image=${1:-images:alpine/edge}
here=$(cd "$(dirname "$0")/../.." && pwd)
name=pycor-hooks-check
prefix=${PREFIX:-/usr/local/lib/$name}
pycor=$here/.venv/bin/pycor-hooks
kept=/var/lib/pycor-hooks/var-snap-lxd-common-lxd/${name}_base
pidfile=/var/snap/lxd/common/lxd.pid
LXD_DIR=/var/snap/lxd/common/lxd
PATH=/snap/bin:$PATH
export LXD_DIR PATH
failed=0 watcher=

say() { printf '%s\n' "$*"; }
die() { say "$*" >&2; exit 1; }
check() { # WHAT COMMAND...: run it, and say how it went
    what=$1
    shift
    if "$@" >"$scratch/out" 2>&1; then say "ok    $what"; else
        say "FAIL  $what"
        sed 's/^/      /' "$scratch/out"
        failed=1
    fi
}
lxc() { command lxc --project "$name" "$@" </dev/null; }
overlays() { grep -c " $1 .* - overlay pycor-hooks " /proc/1/mountinfo || :; }
merged() { printf '/run/pycor-hooks/var-snap-lxd-common-lxd/%s_%s/merged' "$name" "$1"; }
mounted() { [ "$(overlays "$(merged "$1")")" = "$2" ]; }
sees() { [ "$(lxc exec "$1" -- cat /etc/pycor-hooks-check)" = "$2" ]; }
another_daemon() { [ "$(cat "$pidfile")" != "$1" ] && lxc list; }
within() { # SECONDS COMMAND...: until it succeeds
    left=$(($1 * 5))
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.2
    done
}
update() {
    lxc start base
    lxc exec base -- sh -c "echo $1 >/etc/new && mv /etc/new /etc/pycor-hooks-check"
    lxc stop base
}

[ "$(id -u)" = 0 ] || die "run it as root"
[ -S "$LXD_DIR/unix.socket" ] || die "no LXD snap here: there is no $LXD_DIR/unix.socket"
[ -x "$pycor" ] || die "no $pycor: run lab/bootstrap.sh venv first"
[ ! -e "$prefix" ] || die "$prefix exists already: remove it first"
if command lxc project show "$name" >/dev/null 2>&1; then die "project $name exists already"; fi
if command lxc storage show "$name" >/dev/null 2>&1; then die "pool $name exists already"; fi

scratch=$(mktemp -d)
clean_up() {
    status=$?
    trap - EXIT
    trap '' HUP INT TERM
    [ -z "$watcher" ] || { kill "$watcher" && wait "$watcher"; } 2>/dev/null || :
    exec 3>&1 >/dev/null
    lxc config set base security.protection.delete=false 2>/dev/null || :
    for one in web1 web2 web3 base; do lxc delete --force "$one" 2>/dev/null || :; done
    for one in $(lxc image list --format csv --columns f 2>/dev/null); do lxc image delete "$one" || :; done
    lxc profile delete overlay 2>/dev/null || :
    command lxc project delete "$name" 2>/dev/null || say "left: project $name" >&3
    command lxc storage delete "$name" 2>/dev/null || say "left: pool $name" >&3
    rm -rf "$scratch" "$kept"
    if grep -q "/${name}_.* - overlay pycor-hooks " /proc/1/mountinfo; then
        say "left: $prefix, as containers on it still run" >&3
        status=1
    else
        rm -rf "$prefix"
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' HUP INT TERM

say "LXD $(command lxc version | sed -n 's/^Server version: //p'), snap $(snap list lxd | awk 'END { print $3, $4 }')"
say "kernel $(uname -r), $(/usr/bin/python3 --version)"

# Hooks alone: no unit, no profile of the default project.
check "hooks are installed" "$here/.venv/bin/python" -c \
    "from pycor_hooks.install import install_hooks; print(*install_hooks('$prefix'))"
command lxc storage create "$name" dir >/dev/null
command lxc project create "$name" -c features.profiles=true -c features.images=true >/dev/null
lxc profile device add default root disk path=/ pool="$name" >/dev/null
say "making a base from $image"
if [ -f "$image" ]; then
    check "the image is imported" lxc image import "$image" --alias "$name"
    image=$name
fi
lxc launch "$image" base >/dev/null
lxc stop base --force
check "profile and image are made" "$pycor" profile --project "$name" --prefix "$prefix"
lxc profile show overlay >"$scratch/profile"
check "the hook lines lead to the host" grep -q 'nsenter -t 1 -m' "$scratch/profile"

"$pycor" watch >"$scratch/watch.log" 2>&1 &
watcher=$!
check "the watcher follows the daemon" within 10 grep -q 'following its events' "$scratch/watch.log"

for one in web1 web2; do
    check "$one starts" lxc launch overlay "$one"
    check "$one has one overlay on the host" mounted "$one" 1
done
update first
check "web1 sees an update of the base" within 10 sees web1 first
check "web1 restarts" lxc restart --force web1
check "web1 still has one overlay" mounted web1 1
lxc exec web1 -- sh -c 'sleep 3600 </etc/pycor-hooks-check >/dev/null 2>&1 &'
check "web1's own files are told" "$pycor" diff "$name/web1"
update held
check "web1 sees an update of what it has open" within 15 sees web1 held
check "and nothing of it is stale" "$pycor" stale "$name/web1"
lxc start base
check "what a stop of the base would bring is told" "$pycor" impact --base "$name/base"
lxc stop base
check "a snapshot of web1 is taken" lxc snapshot web1 one
check "web2 is copied" lxc copy web2 web3
check "the copy starts" lxc start web3
check "the copy is deleted" lxc delete --force web3
check "status" "$pycor" status
"$pycor" doctor --prefix "$prefix" >"$scratch/doctor" 2>&1 || :
sed 's/^/      /' "$scratch/doctor"

if [ "${REFRESH:-}" = 1 ]; then
    pid=$(lxc list web1 --format csv --columns p)
    daemon=$(cat "$pidfile")
    check "the daemon restarts" systemctl reload snap.lxd.daemon
    check "another one has taken over" within 60 another_daemon "$daemon"
    check "web1 has run on" [ "$(lxc list web1 --format csv --columns p)" = "$pid" ]
    check "web1 has its overlay" mounted web1 1
    update second
    check "web1 sees an update after that" within 15 sees web1 second
fi

for one in web1 web2; do
    check "$one is deleted" lxc delete --force "$one"
    check "$one has left no overlay" within 5 mounted "$one" 0
done
daemon=$(cat "$pidfile")
check "nor in the snap's namespace" sh -c "! grep -q '/${name}_.* - overlay pycor-hooks ' /proc/$daemon/mountinfo"

if [ "$failed" = 0 ]; then say "all is well"; else say "something failed: please report the lines above"; fi
exit "$failed"
