# shellcheck shell=bash
# Starts, finds and stops the parts of a stack.
#
# Every process of a part carries `part_of_forebay_stack=STATE:PART` in its environment, and so do the processes that it
# starts. That is the whole record: a recycled process id never matches, and nothing is forgotten after a crash.

mark=part_of_forebay_stack

# The ids of a part's processes.
pids_of() {
    grep -lszxF -- "$mark=$state:$1" /proc/[0-9]*/environ | tr -dc '0-9\n' || true
}

# The names of all parts that have a process.
running_parts() {
    grep -hszF -- "$mark=$state:" /proc/[0-9]*/environ | tr '\0' '\n' | sed -n "s|^$mark=.*:||p" | sort -u || true
}

# The processes of a part that no other of its processes started: they end their own children in good order.
roots_of() {
    local pid parent pids
    pids=" $(pids_of "$1" | tr '\n' ' ')"
    for pid in $pids; do
        parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null) || continue
        [[ $pids == *" $parent "* ]] || echo "$pid"
    done
}

alive() { [[ -n $(pids_of "$1") ]]; }

# start PART COMMAND...: runs it in a session of its own, its output in log/PART.log; returns once it can be found.
start() {
    local part=$1
    shift
    env "$mark=$state:$part" setsid "$@" >"$state/log/$part.log" 2>&1 </dev/null 9>&- &
    until alive "$part" || ! kill -0 $! 2>/dev/null; do sleep 0.05; done
}

# stop GRACE_S PART...: asks them all to end, and kills what is left after the grace period.
stop() {
    local grace_s=$1 part pids
    shift
    for part; do signal TERM "$(roots_of "$part")"; done
    for part; do
        await_end "$part" $((SECONDS + grace_s)) && continue
        say "$part did not stop within $grace_s s: killing it"
        pids=$(pids_of "$part")
        signal KILL "$pids"
        await_end "$part" $((SECONDS + 5)) || die "$part cannot be killed; its process ids: ${pids//$'\n'/ }"
    done
}

# signal NAME PIDS: a process that ended meanwhile is no error.
signal() {
    local pid
    for pid in $2; do kill -"$1" "$pid" 2>/dev/null || true; done
}

await_end() {
    while alive "$1"; do
        ((SECONDS < $2)) || return 1
        sleep 0.1
    done
}

# wait_for PART LIMIT_S PROBE...: until the probe succeeds. Fails with the end of the part's log.
wait_for() {
    local part=$1 limit_s=$2 begun=$SECONDS reported=$SECONDS unseen=0
    shift 2
    until "$@"; do
        # While a process executes another program its environment can't be read for a moment: look again.
        if alive "$part"; then unseen=0; else unseen=$((unseen + 1)); fi
        ((unseen < 5)) || fail_with_log "$part" "ended before it was ready"
        ((SECONDS - begun < limit_s)) || fail_with_log "$part" "was not ready within $limit_s s"
        if ((SECONDS - reported >= 5)); then
            reported=$SECONDS
            say "  waiting for $part, $((SECONDS - begun)) s of at most $limit_s s"
        fi
        sleep 0.2
    done
    say "$part is ready"
}

fail_with_log() {
    printf '%s\n' "the end of $state/log/$1.log:" >&2
    tail -n 20 "$state/log/$1.log" >&2 || true
    die "$1 $2. Everything else keeps running: \`make up\` tries again, \`make down\` stops it."
}
