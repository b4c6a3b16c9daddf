# One image with every program of Forebay. The compose file says which one a container runs.
# Plain enough for the classic builder: no BuildKit needed.

ARG BUILD_IMAGE=rust:1-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --workspace --bins

FROM ${RUNTIME_IMAGE}
# The certificates are for `forebay pull`. The user's numbers are fixed, so that volumes outlive rebuilt images.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 forebay \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/forebay --shell /usr/sbin/nologin forebay \
    && install -d -o forebay -g forebay /var/lib/forebay /var/lib/forebay/models
COPY forebay.toml /etc/forebay/forebay.toml
COPY --from=build /src/target/release/forebay /src/target/release/forebay-worker \
    /src/target/release/forebay-autoscaler /src/target/release/forebay-gateway /usr/local/bin/
# A container's own network is its boundary: on its loopback address no health check or Prometheus could reach it.
ENV FOREBAY_CONFIG=/etc/forebay/forebay.toml \
    FOREBAY_MODELS_DIR=/var/lib/forebay/models \
    FOREBAY_TELEMETRY__LISTEN=0.0.0.0:9100
USER 10001:10001
WORKDIR /var/lib/forebay
CMD ["forebay", "--help"]
