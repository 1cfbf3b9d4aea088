#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What the tests and the demo need on a bare Debian 12. Run twice it changes nothing.
#
#   bootstrap.sh packages   Debian packages, as root
#   bootstrap.sh venv       .venv with the project and its development tools, as anybody
#
# What it leaves on the machine is the packages, nothing else:
# - no apt source: Incus comes from bookworm-backports through lists in a temporary directory,
#   so not even a power cut leaves anything below /etc/apt;
# - no service: none is started while packages are installed (policy-rc.d), and none of a package
#   installed here will be started at the next boot. What was installed before is left alone.

set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
guard=/usr/sbin/policy-rc.d
saved=$guard.before-pycor-hooks
mark='# put here by pycor-hooks, for the time of one installation'
scratch=

# From bookworm. lxd brings its client, lxcfs, uidmap, rsync, attr and squashfs-tools; systemd is
# for systemd-analyze, and need not be what boots this machine.
wanted='acl attr btrfs-progs busybox-static dnsmasq-base iproute2 libcap2-bin lxcfs lxd
        lxd-client mmdebstrap nftables procps python3-venv rsync strace systemd uidmap xz-utils'
# From bookworm-backports. Not `incus`: that one brings QEMU and 100 packages for virtual machines.
wanted_backports='incus-base incus-client'

say() { printf 'bootstrap: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

installed() { # PACKAGE... -> is every one of them installed?
    [ "$(dpkg-query -W -f '${db:Status-Status}\n' "$@" 2>/dev/null | grep -c '^installed$')" -eq $# ]
}

all_installed() { dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort; }

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o APT::Keep-Downloaded-Packages=false -o Dpkg::Use-Pty=0 "$@"
}

# ---- no service starts while we install

guard_up() {
    if [ -e "$guard" ] || [ -L "$guard" ]; then mv "$guard" "$saved"; fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$guard.new"
    chmod 755 "$guard.new"
    mv "$guard.new" "$guard"
}

guard_down() {
    if grep -qsF "$mark" "$guard"; then rm -f "$guard"; fi
    if [ -e "$saved" ] || [ -L "$saved" ]; then mv -f "$saved" "$guard"; fi
}

# Names of the units and init scripts in packages $1.. that could start something by themselves.
units_of() {
    dpkg -L "$@" | sed -nE 's,^(/usr)?/lib/systemd/system/([^/@]+\.(service|socket|timer|path))$,\2,p' | sort -u
}
scripts_of() { dpkg -L "$@" | sed -nE 's,^/etc/init\.d/([^/]+)$,\1,p' | sort -u; }

# Packages $1.. are new here: nothing of them runs, now or after the next boot.
keep_quiet() {
    units=$(units_of "$@")
    if [ -n "$units" ] && command -v systemctl >/dev/null; then
        # shellcheck disable=SC2086 # a list of unit names
        systemctl --quiet disable $units >/dev/null 2>&1 || :
        if [ -d /run/systemd/system ]; then
            # shellcheck disable=SC2086
            systemctl --quiet stop $units >/dev/null 2>&1 || :
        fi
    fi
    if command -v update-rc.d >/dev/null; then
        for script in $(scripts_of "$@"); do update-rc.d "$script" disable >/dev/null 2>&1 || :; done
    fi
}

quiet_new_packages() {
    new=$(all_installed | comm -13 "$scratch/before" -)
    # shellcheck disable=SC2086
    [ -z "$new" ] || keep_quiet $new
}

# ---- bookworm-backports, for one command

# The machine's own mirror of bookworm and how it is trusted, as a deb822 entry for backports.
# apt itself is asked, so one-line lists, deb822, mirror+file: and the like are all the same.
backports_entry() {
    apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(SOURCESENTRY)' \
        'Created-By: Packages' |
        while read -r uri codename component entry; do
            [ "$codename $component" = "bookworm main" ] || continue
            printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\n' "$uri"
            signed_by "$entry"
            break
        done
}

# The Signed-By of source entry FILE:N, where it has one; apt's own keys serve otherwise.
signed_by() {
    file=${1%:*}
    [ -r "$file" ] || return 0
    case $file in
    *.sources) # the N-th paragraph; a key written out there continues on indented lines
        awk -v RS= -v n="${1##*:}" 'NR == n' "$file" |
            awk 'tolower($0) ~ /^signed-by:/ { on = 1; print; next } /^[^ \t]/ { on = 0 } on' ;;
    *) sed -nE 's/^deb[[:space:]]+\[[^]]*signed-by=([^] ]+).*[[:space:]]bookworm[[:space:]].*/Signed-By: \1/p' \
        "$file" | head -n 1 ;;
    esac
}

# Run apt with the machine's sources and backports, all lists kept in $scratch.
apt_with_backports() {
    apt -o Dir::Etc::sourceparts="$scratch/parts" -o Dir::State::lists="$scratch/lists" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "$@"
}

prepare_backports() {
    chmod 755 "$scratch" # apt fetches as the user _apt
    mkdir -p "$scratch/parts" "$scratch/lists"
    find /etc/apt/sources.list.d -maxdepth 1 \( -name '*.list' -o -name '*.sources' \) \
        -exec cp -p {} "$scratch/parts/" \;
    find /var/lib/apt/lists -maxdepth 1 -type f ! -name lock -exec cp -p {} "$scratch/lists/" \;
    backports_entry >"$scratch/parts/zz-backports.sources"
    [ -s "$scratch/parts/zz-backports.sources" ] ||
        die "no apt source for bookworm found: the packages come from its mirror, add one"
}

# ---- the two parts

finish() { # on every way out, Ctrl-C included
    status=$?
    trap - EXIT HUP INT TERM
    quiet_new_packages
    guard_down
    rm -rf "$scratch"
    exit "$status"
}

packages() {
    [ "$(id -u)" -ne 0 ] || guard_down # of a run that was killed
    # shellcheck disable=SC2086 # lists of package names, here and below
    if installed $wanted $wanted_backports; then return; fi
    [ "$(id -u)" -eq 0 ] || die "Debian packages are missing and only root can install them: run as root, or install sudo"
    grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release ||
        die "this installs packages on Debian 12 only; elsewhere install: $wanted $wanted_backports"
    scratch=$(mktemp -d)
    all_installed >"$scratch/before"
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    guard_up
    say "installing Debian packages"
    apt update
    apt install $wanted
    if ! installed $wanted_backports; then
        say "installing Incus from bookworm-backports"
        prepare_backports
        apt_with_backports update
        apt_with_backports install -t bookworm-backports $wanted_backports
    fi
}

venv() {
    cd "$here"
    digest=$(sha256sum pyproject.toml)
    if [ "$(cat .venv/made-from 2>/dev/null)" = "$digest" ]; then return; fi
    /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null ||
        die "/usr/bin/python3 cannot make a virtual environment: install python3-venv"
    say "making .venv"
    [ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --editable '.[dev]'
    printf '%s\n' "$digest" >.venv/made-from
}

case ${1-} in
packages | venv) "$1" ;;
*) die "usage: $0 packages|venv" ;;
esac
