# Build:  docker build -t tidegate .
# Run:    docker run -p 8080:8080 tidegate serve --upstream https://api.example.com/v1 --rpm 40 --concurrency 5 --listen 0.0.0.0:8080
#   or:   docker run -p 8080:8080 -v "$PWD/tidegate:/etc/tidegate:ro" tidegate     (with tidegate/tidegate.toml)

# At least `rust-version` of Cargo.toml. Both stages are of the same Debian, so that their glibc is the same.
ARG RUST=1.94.1
FROM rust:${RUST}-bookworm AS build

# libz-ng-sys is built by cmake, in whatever version; compiler and make are there already.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build

# Line tables make four fifths of the binary; the names of functions stay.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
# As in .cargo/config.toml: memory that nobody uses is given back after a second.
ENV JEMALLOC_SYS_WITH_MALLOC_CONF=dirty_decay_ms:1000,muzzy_decay_ms:0

# First what we depend on: this layer is built again only when manifest or lock change. Every target that the manifest
# names by its path has to be there; these do nothing.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && for file in src/main.rs $(sed -n 's/^path = "\(.*\)"$/\1/p' Cargo.toml); do \
         mkdir -p "$(dirname "$file")" && echo 'fn main() {}' > "$file"; \
       done \
    && cargo build --release --locked \
    && rm -r src

# Then what we write. cargo goes by the time of a file, and that of a checkout is older than what was just built.
COPY src src
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked \
    && mkdir /state

# glibc, libgcc and the certificates of the authorities, which TLS to a provider needs; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot

COPY --from=build /build/target/release/tidegate /usr/local/bin/tidegate
COPY --from=build --chown=65532:65532 /state /var/lib/tidegate

# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532

# `server.state_dir` is `state` in here, unless the settings name another place.
WORKDIR /var/lib/tidegate
VOLUME /var/lib/tidegate

EXPOSE 8080 9091

# tidegate is process 1 and handles its signals: SIGTERM drains, SIGHUP reads the settings again. Give it more time than
# `server.drain_timeout` before it is killed (`docker stop -t 40`).
STOPSIGNAL SIGTERM

# Asks 127.0.0.1:9091, which is where `server.admin_listen` is by default, and with 0.0.0.0:9091, too.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/local/bin/tidegate", "health"]

# A flag overrides the file: the port of a container has to be open to its outside. The operators' port stays inside
# until the file says `admin_listen = "0.0.0.0:9091"`, which needs an `admin_token`.
ENTRYPOINT ["/usr/local/bin/tidegate"]
CMD ["serve", "--config", "/etc/tidegate/tidegate.toml", "--listen", "0.0.0.0:8080"]
