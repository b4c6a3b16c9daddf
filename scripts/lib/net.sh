# shellcheck shell=bash
# Ports of this checkout's own, and probes that check whether a server really answers.
# Plain bash: a fresh machine has neither curl nor redis-cli.

declare -A port=()

# Reads the ports chosen by an earlier run: `name number` lines.
load_ports() {
    local name number
    [[ -e $state/ports ]] || return 0
    while read -r name number; do port[$name]=$number; done <"$state/ports"
}

# choose_ports NAME...: keeps those of an earlier run, unless something else took one meanwhile.
# Below 32768, where Linux starts to allocate ports for outgoing connections.
choose_ports() {
    local name
    for name; do
        while [[ -z ${port[$name]:-} ]] || listening "${port[$name]}" || shared_port "$name"; do
            port[$name]=$((20000 + RANDOM % 12000))
        done
    done
    for name in "${!port[@]}"; do echo "$name ${port[$name]}"; done | sort >"$state/ports"
}

shared_port() {
    local name
    for name in "${!port[@]}"; do
        [[ $name != "$1" && ${port[$name]} == "${port[$1]}" ]] && return 0
    done
    return 1
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# RabbitMQ answers the protocol header with its first frame, whose first byte is 1.
amqp_answers() (
    exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/${port[amqp]:-0}" || exit 1
    printf 'AMQP\0\0\11\1' >&3
    read -r -N 1 -t 2 byte <&3 && [[ $byte == $'\1' ]]
)

redis_ponged() (
    exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/${port[redis]:-0}" || exit 1
    printf 'AUTH %s\r\nPING\r\n' "$password" >&3
    read -r -t 2 auth <&3 && read -r -t 2 pong <&3 && [[ $auth == +OK* && $pong == +PONG* ]]
)

# http_answers NAME PATH: the server on that port answers 200.
http_answers() (
    exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/${port[$1]:-0}" || exit 1
    printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&3
    read -r -t 2 status <&3 && [[ $status == *' 200 '* ]]
)
