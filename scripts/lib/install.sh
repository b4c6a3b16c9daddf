# shellcheck shell=bash
# Installs missing programs from Debian's packages, and leaves no service running.

# Runs a command as root: directly, or through sudo where that needs no password.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

can_install() { have apt-get && as_root true; }

apt_install() {
    say "installing $* from Debian's packages"
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Makes sure of a C compiler: Rust programs are linked by it, and some dependencies have C sources.
need_c_compiler() {
    have cc && return
    can_install || die "A C compiler is missing (Debian: apt-get install gcc libc6-dev)."
    apt_install gcc libc6-dev
}

# The folder with RabbitMQ's own scripts. Debian's wrapper in /usr/sbin switches to the user `rabbitmq`,
# who may not write to a checkout; these run as their caller.
rabbitmq_sbin() {
    local folder
    for folder in /usr/lib/rabbitmq/lib/*/sbin "$(dirname "$(command -v rabbitmq-server || echo /)")"; do
        [[ -x $folder/rabbitmq-server ]] && echo "$folder" && return
    done
    return 1
}

have_servers() { rabbitmq_sbin >/dev/null && have redis-server; }

# Installs RabbitMQ and Redis for their programs only: nothing of them is started, now or at the next boot.
# A policy that the machine already has stays in force.
install_servers() (
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    apt_install rabbitmq-server redis-server || exit 1
    if [[ -d /run/systemd/system ]]; then
        as_root systemctl disable --quiet rabbitmq-server redis-server
    fi
)

# Installs promtool alone, out of the package of Prometheus, without its server and its web pages.
install_promtool() (
    say "installing promtool from Debian's packages"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    as_root apt-get update -qq || exit 1
    cd "$folder" || exit 1
    apt-get download -qq prometheus && dpkg -x prometheus_*.deb . &&
        as_root install -m 755 usr/bin/promtool /usr/local/bin/promtool
)
