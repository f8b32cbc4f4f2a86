# Needs BuildKit (the default since Docker 23) for the cache mounts.

FROM rust:1.95-bookworm AS builder
WORKDIR /src
COPY . .
# The rust image has the headers of OpenSSL and of libcurl: TLS, SASL and OIDC link the libraries that
# the image below installs.
# The dependencies take most of the time (burn, wgpu, librdkafka): both caches outlive a change of
# our own sources. A cache mount is not part of the image, so the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin millrace \
    && install -D target/release/millrace /out/millrace

FROM debian:bookworm-slim
# libvulkan1 is the loader only. A GPU's driver comes from the host with the GPU; without one the
# trainer uses the CPU, which is faster than Mesa's software Vulkan, so Mesa is left out.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libcurl4 libssl3 libvulkan1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/millrace millrace \
    && install -d -o millrace -g millrace /var/lib/millrace /var/lib/millrace/checkpoints
COPY --from=builder /out/millrace /usr/local/bin/millrace
# Relative paths of a config (checkpoints) fall here; a new volume takes over its owner.
WORKDIR /var/lib/millrace
USER millrace
EXPOSE 9464
ENTRYPOINT ["millrace"]
CMD ["--help"]
