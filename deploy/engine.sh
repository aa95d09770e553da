#!/bin/sh
# Provides a container engine and a base image on a machine that may have neither of them nor access to a registry.
#
#     deploy/engine.sh start DIR    prints nothing if an engine answers; otherwise starts one with its files in DIR
#                                   (as root, from Debian's packages) and prints DOCKER_HOST=...
#     deploy/engine.sh base NAME    provides the image NAME with Python 3.11, which exists, is pulled, or is built from
#                                   Debian 12's packages; prints the name of the base image to use
#     deploy/engine.sh stop DIR     stops the engine of DIR, if there is one, and removes DIR
#
# If this machine has a certificate bundle for pip, the base image contains it as well.
set -eu

log() { printf 'engine: %s\n' "$*" >&2; }
fail() { log "$@"; exit 1; }
answers() { docker info >/dev/null 2>&1; }

install_packages() {
    [ "$(id -u)" = 0 ] || fail "$* must be installed. Run as root, or install them: apt install $*"
    command -v apt-get >/dev/null || fail "$* must be installed, and apt-get was not found. Install them."
    log "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }; } \
        >&2 </dev/null || fail "could not install $*"
}

start() {
    dir=$1
    if command -v docker >/dev/null && answers; then return; fi
    command -v dockerd >/dev/null || install_packages docker.io docker-compose iptables
    [ "$(id -u)" = 0 ] || fail "no engine answers, and only root can start one. Run as root, or start an engine."
    mkdir -p "$dir"
    # All files are in a separate folder, so that an engine that this machine may have is not affected.
    setsid nohup dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" \
        --host "unix://$dir/docker.sock" >"$dir/dockerd.log" 2>&1 </dev/null &
    export DOCKER_HOST="unix://$dir/docker.sock"
    waited=0
    until answers; do
        waited=$((waited + 1))
        if [ "$waited" -gt 60 ]; then
            tail -n 20 "$dir/dockerd.log" >&2
            stop "$dir"
            fail "dockerd did not answer within 60 s; the end of its log is above"
        fi
        sleep 1
    done
    log "started an engine in $dir"
    echo "DOCKER_HOST=$DOCKER_HOST"
}

stop() {
    dir=$1
    [ -e "$dir/docker.sock" ] || [ -e "$dir/dockerd.pid" ] || return 0
    pid=$(cat "$dir/dockerd.pid" 2>/dev/null || true)
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
        waited=0
        while [ -d "/proc/$pid" ] && [ "$waited" -lt 60 ]; do waited=$((waited + 1)); sleep 1; done
    fi
    # A killed engine leaves file systems mounted, with which the folder could not be removed.
    awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount 2>/dev/null || true
    rm -rf "$dir"
    log "stopped the engine of $dir"
}

# Debian 12 has Python 3.11, like the image that this one replaces.
build_substitute() {
    command -v debootstrap >/dev/null || install_packages debootstrap
    [ "$(id -u)" = 0 ] || fail "$1 cannot be pulled, and only root can build a substitute. Run as root."
    log "$1 cannot be pulled: building a substitute from Debian 12's packages (takes minutes)"
    root=$(mktemp -d)
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" \
        >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; rm -rf "$root"; fail "debootstrap failed; its last lines are above"; }
    ln -s python3 "$root/usr/bin/python"
    rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists" "$root"/usr/share/doc/* "$root"/usr/share/man/*
    tar -C "$root" -c . | docker import - "$1" >&2
    rm -rf "$root" "$root.log"
}

base() {
    name=$1
    docker image inspect "$name" >/dev/null 2>&1 || docker pull --quiet "$name" >&2 2>/dev/null || build_substitute "$name"
    bundle=${PIP_CERT:-${REQUESTS_CA_BUNDLE:-${SSL_CERT_FILE:-}}}
    if [ -z "$bundle" ] || [ ! -f "$bundle" ]; then
        echo "$name"
        return
    fi
    context=$(mktemp -d)
    cp "$bundle" "$context/bundle.pem"
    printf 'FROM %s\nCOPY bundle.pem /etc/ssl/machine.pem\nENV PIP_CERT=/etc/ssl/machine.pem\n' "$name" >"$context/Dockerfile"
    # Without --pull, which would request an image from a registry that only this machine has.
    docker build --quiet --tag downpour-base "$context" >&2 || { rm -rf "$context"; fail "could not build from $name"; }
    rm -rf "$context"
    echo downpour-base
}

[ $# = 2 ] || fail "usage: engine.sh start DIR | base NAME | stop DIR"
case $1 in
    start | stop | base) "$1" "$2" ;;
    *) fail "the command must be start, base or stop; received $1" ;;
esac
