# shellcheck shell=bash
# The programs of Forebay itself: built, given their model, started, and probed for readiness.

# The parts to run. Workers are the autoscaler's: it launches them, and drains them when it stops.
fleet_parts() { echo autoscaler gateway; }

ready() { alive "$1" && http_answers "$1" /readyz; }

fleet_answers() { ready autoscaler && ready gateway; }

up_fleet() {
    build release
    settings
    say "getting the models $model and $generator"
    pull_models release
    ready autoscaler || start_autoscaler
    wait_for autoscaler 30 ready autoscaler
    ready gateway || start_gateway
    wait_for gateway 30 ready gateway
    make_keys
}

# Its own port answers /readyz too; its metrics have another.
start_gateway() {
    stop 30 gateway
    choose_ports gateway gateway_telemetry
    start gateway env FOREBAY_GATEWAY__LISTEN="127.0.0.1:${port[gateway]}" \
        FOREBAY_TELEMETRY__LISTEN="127.0.0.1:${port[gateway_telemetry]}" "$(binaries release)/forebay-gateway"
}

# One key for work and one for operating, made once and kept in files: Redis has no more than hashes of their secrets.
make_keys() {
    local name forebay
    forebay=$(binaries release)/forebay
    "$forebay" tenants show local >"$state/log/tenants.log" 2>&1 || {
        rm -f "$state/key" "$state/admin-key"
        "$forebay" tenants create local >"$state/log/tenants.log" 2>&1 || die "$(<"$state/log/tenants.log")"
    }
    for name in key admin-key; do
        [[ ! -s $state/$name ]] || continue
        "$forebay" keys create --tenant local --name "$name" --scope "$(scopes_of "$name")" \
            >"$state/$name.new" 2>"$state/log/tenants.log" || die "$(<"$state/log/tenants.log")"
        chmod 600 "$state/$name.new"
        mv "$state/$name.new" "$state/$name"
    done
}

scopes_of() { if [[ $1 == key ]]; then echo submit,read; else echo admin,submit,read; fi; }

# Always $workers; or, if that is 0, up to the number of processors, and none while there is nothing to do.
start_autoscaler() {
    local pool=FOREBAY_MODELS__${model^^}__POOL most=$workers
    ((most > 0)) || most=$(nproc)
    stop 60 autoscaler
    choose_ports autoscaler
    start autoscaler env FOREBAY_TELEMETRY__LISTEN="127.0.0.1:${port[autoscaler]}" \
        "${pool}__MIN=$workers" "${pool}__MAX=$most" ${idle_s:+"${pool}__IDLE_S=$idle_s"} \
        FOREBAY_AUTOSCALER__PROCESS__CPU_SLOTS="$most" \
        FOREBAY_AUTOSCALER__PROCESS__STATE_DIR="$state/workers" \
        "$(binaries release)/forebay-autoscaler"
}

# Points this shell, and everything it starts, at the private servers.
settings() {
    export FOREBAY_AMQP_URL="amqp://forebay:$password@127.0.0.1:${port[amqp]}/%2f"
    export FOREBAY_MANAGEMENT_URL="http://forebay:$password@127.0.0.1:${port[management]}"
    export FOREBAY_REDIS_URL="redis://default:$password@127.0.0.1:${port[redis]}/0"
    export FOREBAY_CONFIG="${FOREBAY_CONFIG:-$root/forebay.toml}"
}

# Writes the same settings to .forebay/env, to be sourced.
write_env() {
    settings
    {
        echo "# Points programs at the private Forebay of this checkout. To be sourced; written by \`make up\`."
        printf 'export FOREBAY_AMQP_URL=%q\n' "$FOREBAY_AMQP_URL"
        printf 'export FOREBAY_MANAGEMENT_URL=%q\n' "$FOREBAY_MANAGEMENT_URL"
        printf 'export FOREBAY_REDIS_URL=%q\n' "$FOREBAY_REDIS_URL"
        if [[ -s $state/key ]]; then
            printf 'export FOREBAY_GATEWAY_URL=%q\n' "http://127.0.0.1:${port[gateway]}"
            printf 'export FOREBAY_API_KEY=%q\n' "$(<"$state/key")"
            printf 'export FOREBAY_ADMIN_KEY=%q\n' "$(<"$state/admin-key")"
        fi
        printf 'export FOREBAY_CONFIG=%q\n' "$FOREBAY_CONFIG"
        # shellcheck disable=SC2016 # the PATH of the shell that sources it
        printf 'export PATH=%q:$PATH\n' "$(binaries release)"
    } >"$state/env"
    chmod 600 "$state/env"
}
