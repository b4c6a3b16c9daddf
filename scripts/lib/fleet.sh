# shellcheck shell=bash
# The programs of Forebay itself: built, given their model, started, and asked whether they are ready.

# The parts that are to run.
wanted_parts() {
    echo autoscaler
    seq -f 'worker-%g' "$workers"
}

# Those, and any other that runs.
fleet_parts() {
    { wanted_parts; running_parts | grep -E '^(autoscaler|worker-[0-9]+)$'; } | sort --version-sort --unique
}

ready() { alive "$1" && http_answers "$1" /readyz; }

fleet_answers() {
    local part
    for part in $(wanted_parts); do ready "$part" || return 1; done
}

up_fleet() {
    local part
    build release
    settings
    say "getting the model $model"
    "$(binaries release)/forebay" pull "$model"
    for part in $(wanted_parts); do
        ready "$part" || start_part "$part"
    done
    for part in $(wanted_parts); do
        wait_for "$part" 120 ready "$part" # loading the model takes a second or two
    done
}

start_part() {
    local part=$1 binary=forebay-autoscaler arguments=()
    if [[ $part == worker-* ]]; then
        binary=forebay-worker
        arguments=(--model "$model" --device cpu)
        # One worker uses every core by itself; several share them.
        ((workers == 1)) || arguments+=(--threads $(($(nproc) / workers > 0 ? $(nproc) / workers : 1)))
    fi
    stop 40 "$part"
    choose_ports "$part"
    start "$part" env FOREBAY_TELEMETRY__LISTEN="127.0.0.1:${port[$part]}" \
        "$(binaries release)/$binary" "${arguments[@]}"
}

# Points this shell, and what it starts, at the private servers.
settings() {
    export FOREBAY_AMQP_URL="amqp://forebay:$password@127.0.0.1:${port[amqp]}/%2f"
    export FOREBAY_MANAGEMENT_URL="http://forebay:$password@127.0.0.1:${port[management]}"
    export FOREBAY_REDIS_URL="redis://default:$password@127.0.0.1:${port[redis]}/0"
    export FOREBAY_CONFIG="${FOREBAY_CONFIG:-$root/forebay.toml}"
}

# The same settings for whoever sources .forebay/env.
write_env() {
    choose_ports gateway
    settings
    {
        echo "# Points programs at the private Forebay of this checkout. To be sourced; written by \`make up\`."
        printf 'export FOREBAY_AMQP_URL=%q\n' "$FOREBAY_AMQP_URL"
        printf 'export FOREBAY_MANAGEMENT_URL=%q\n' "$FOREBAY_MANAGEMENT_URL"
        printf 'export FOREBAY_REDIS_URL=%q\n' "$FOREBAY_REDIS_URL"
        echo "# The gateway's address; nothing answers there as long as the stack starts no gateway."
        printf 'export FOREBAY_GATEWAY_URL=%q\n' "http://127.0.0.1:${port[gateway]}"
        printf 'export FOREBAY_CONFIG=%q\n' "$FOREBAY_CONFIG"
        # shellcheck disable=SC2016 # the PATH of whoever sources it
        printf 'export PATH=%q:$PATH\n' "$(binaries release)"
    } >"$state/env"
    chmod 600 "$state/env"
}
