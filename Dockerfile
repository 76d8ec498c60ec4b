# Images of the sensor and the operator: docker build --target sensor -t gyrfalcon . (or: --target operator)
# Static programs in empty images. Without docker, `cargo xtask image` makes the same as archives.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# Installs the compiler and the linker for kernel programs that it needs, and says which.
RUN cargo xtask build-ebpf
RUN target="$(uname -m)-unknown-linux-gnu" && \
    GYRFALCON_EBPF_OBJECT=/src/target/bpf/gyrfalcon-ebpf RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=symbols \
    cargo build --release --target "$target" \
        --package gyrfalcon-sensor --bin gyrfalcon --package gyrfalcon-operator --bin gyrfalcon-operator && \
    mkdir -p /out/bin && cp "target/$target/release/gyrfalcon" "target/$target/release/gyrfalcon-operator" /out/bin/
RUN mkdir -p /out/root/etc/ssl/certs /out/root/tmp && chmod 1777 /out/root/tmp && \
    cp /etc/ssl/certs/ca-certificates.crt /out/root/etc/ssl/certs/ && \
    printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >/out/root/etc/passwd && \
    printf 'root:x:0:\nnonroot:x:65532:\n' >/out/root/etc/group

FROM scratch AS sensor
COPY --from=build /out/root/ /
COPY --from=build /out/bin/gyrfalcon /usr/bin/gyrfalcon
ENV PATH=/usr/bin
USER 65532:65532
ENTRYPOINT ["/usr/bin/gyrfalcon"]

FROM scratch AS operator
COPY --from=build /out/root/ /
COPY --from=build /out/bin/gyrfalcon-operator /usr/bin/gyrfalcon-operator
ENV PATH=/usr/bin
USER 65532:65532
ENTRYPOINT ["/usr/bin/gyrfalcon-operator"]
