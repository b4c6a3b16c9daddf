# shellcheck shell=bash
# The container images that this checkout names, in docker-compose.yml and in Dockerfile.

# image_of rabbitmq|redis|build|runtime: its name.
image_of() {
    case $1 in
        build) sed -n 's/^ARG BUILD_IMAGE=//p' "$root/Dockerfile" ;;
        runtime) sed -n 's/^ARG RUNTIME_IMAGE=//p' "$root/Dockerfile" ;;
        *) sed -n "s|^ *image: *\($1:.*\)|\1|p" "$root/docker-compose.yml" ;;
    esac
}

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

# Succeeds if the image is there or can be pulled.
get_image() { have_image "$1" || timeout 300 docker pull --quiet "$1"; }
