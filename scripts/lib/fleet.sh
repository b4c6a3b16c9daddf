# shellcheck shell=bash
# The programs of Forebay itself: built, given their model, started, and probed for readiness.

# The parts to run. Workers are the autoscaler's: it launches them, and drains them when it stops.
fleet_parts() { echo autoscaler; }

ready() { alive "$1" && http_answers "$1" /readyz; }

fleet_answers() { ready autoscaler; }

up_fleet() {
    build release
    settings
    say "getting the model $model"
    "$(binaries release)/forebay" pull "$model"
    ready autoscaler || start_autoscaler
    wait_for autoscaler 30 ready autoscaler
}

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
        # shellcheck disable=SC2016 # the PATH of the shell that sources it
        printf 'export PATH=%q:$PATH\n' "$(binaries release)"
    } >"$state/env"
    chmod 600 "$state/env"
}
