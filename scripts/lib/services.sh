# shellcheck shell=bash
# The private RabbitMQ and Redis: from installed programs, from container images, or from Debian's packages.

# Sets how the servers are run here, `programs` or `containers`, installing the programs if need be.
choose_servers() {
    if have_servers; then
        servers=programs
    elif have_images; then
        servers=containers
    elif can_install && install_servers >&2 && have_servers; then
        servers=programs
    else
        die "RabbitMQ and Redis are missing. Install them (Debian: apt-get install rabbitmq-server redis-server)," \
            "or start a Docker engine that has the images $(image_of rabbitmq) and $(image_of redis)."
    fi
}

have_images() {
    have docker && docker info >/dev/null 2>&1 && get_image "$(image_of rabbitmq)" && get_image "$(image_of redis)"
}

# The process has to be ours, too: something else may have taken the port.
rabbitmq_answers() { alive rabbitmq && amqp_answers && http_answers management /; }
redis_answers() { alive redis && redis_ponged; }

start_rabbitmq() {
    choose_ports amqp management
    "rabbitmq_in_$servers"
    wait_for rabbitmq 120 rabbitmq_answers # 5 s on an idle machine
}

start_redis() {
    choose_ports redis
    "redis_in_$servers"
    wait_for redis 30 redis_answers
}

# An Erlang port mapper of our own keeps the node invisible to any other RabbitMQ on the machine.
start_epmd() {
    [[ $servers == programs ]] || return 0
    choose_ports epmd
    start epmd epmd -port "${port[epmd]}" -address 127.0.0.1
    wait_for epmd 10 listening "${port[epmd]}"
}

rabbitmq_in_programs() {
    local home=$state/rabbitmq
    mkdir -p "$home"
    choose_ports distribution
    echo '[rabbitmq_management].' >"$home/enabled_plugins"
    cat >"$home/rabbitmq.conf" <<-END
		listeners.tcp.1 = 127.0.0.1:${port[amqp]}
		management.tcp.ip = 127.0.0.1
		management.tcp.port = ${port[management]}
		default_user = forebay
		default_pass = $password
	END
    # HOME holds the Erlang cookie. Every file that a system-wide RabbitMQ would read is named, so none of them is.
    start rabbitmq env -C "$home" HOME="$home" \
        ERL_EPMD_PORT="${port[epmd]}" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_NODENAME=forebay@localhost \
        RABBITMQ_DIST_PORT="${port[distribution]}" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' \
        RABBITMQ_CONF_ENV_FILE="$home/rabbitmq-env.conf" \
        RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$home/advanced.config" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
        RABBITMQ_MNESIA_BASE="$home/data" \
        RABBITMQ_LOG_BASE="$state/log" \
        RABBITMQ_LOGS=- \
        "$(rabbitmq_sbin)/rabbitmq-server"
}

# Redis would write its title over its environment, where the mark is.
redis_in_programs() {
    mkdir -p "$state/redis"
    cat >"$state/redis/redis.conf" <<-END
		bind 127.0.0.1
		port ${port[redis]}
		requirepass $password
		dir "$state/redis"
		appendonly yes
		save ""
		set-proc-title no
	END
    start redis redis-server "$state/redis/redis.conf"
}

rabbitmq_in_containers() {
    container rabbitmq --hostname forebay \
        --env RABBITMQ_DEFAULT_USER=forebay --env RABBITMQ_DEFAULT_PASS="$password" \
        --volume "$(container_name rabbitmq):/var/lib/rabbitmq" \
        --publish "127.0.0.1:${port[amqp]}:5672" --publish "127.0.0.1:${port[management]}:15672" \
        "$(image_of rabbitmq)"
}

redis_in_containers() {
    container redis --volume "$(container_name redis):/data" --publish "127.0.0.1:${port[redis]}:6379" \
        "$(image_of redis)" redis-server --requirepass "$password" --appendonly yes --save ''
}

# Named after the checkout: the sum of its path keeps two of one name apart.
container_name() { echo "forebay-$(cksum <<<"$state" | cut -d' ' -f1)-$1"; }

# container PART ARGUMENT...: runs it in the foreground of a docker client, which forwards signals to it.
container() {
    local part=$1
    shift
    remove_containers "$part"
    touch "$state/containers"
    start "$part" docker run --rm --name "$(container_name "$part")" "$@"
}

# Removes containers that outlived their client. Their volumes stay.
remove_containers() {
    local part
    [[ -e $state/containers ]] || return 0
    for part; do
        docker stop --time 20 "$(container_name "$part")" >/dev/null 2>&1 || true
        docker rm --force "$(container_name "$part")" >/dev/null 2>&1 || true
    done
}
