# docker build -t portcullis .
# docker run --rm --read-only -p 8443:8443 -v "$PWD/certs-example:/etc/portcullis:ro" portcullis serve \
#     --cert /etc/portcullis/server-cert.pem --key /etc/portcullis/server-key.pem \
#     --trust /etc/portcullis/trust
#
# Behind a proxy with a CA of its own, beside HTTPS_PROXY:
#     --build-arg PROXY_CA="$(cat proxy-ca.pem)"

FROM rust:1.95-slim-trixie AS build
ARG FEATURES=aws,acme
ARG PROXY_CA=
WORKDIR /src
# Build the AWS-LC of Cargo.lock from source; never link one that is in the image.
ENV AWS_LC_SYS_USE_SYSTEM=0 CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt
RUN if [ -n "$PROXY_CA" ]; then \
        printf '%s\n' "$PROXY_CA" > /usr/local/share/ca-certificates/proxy.crt && update-ca-certificates; \
    fi
# jemalloc's build runs make.
RUN command -v make > /dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends make && rm -r /var/lib/apt/lists/*; }

# The dependencies by themselves: built again only when Cargo.toml or Cargo.lock changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin portcullis --features "$FEATURES"

# Cargo compares times, and these files may be older than the layer above.
COPY README.md ./
COPY src src
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin portcullis --features "$FEATURES"

# The binary and what it links to, the roots for AWS and ACME, and which Debian packages these are of,
# for scanners. The proxy's CA stays outside.
RUN set -eu; mkdir -p /out/etc/ssl/certs /out/var/lib/dpkg; \
    cp target/release/portcullis /out/; \
    ldd /out/portcullis | grep -o '/[^ ]*' > libraries; \
    xargs -I{} cp --parents --dereference {} /out < libraries; \
    find /usr/share/ca-certificates -name '*.crt' -exec cat {} + > /out/etc/ssl/certs/ca-certificates.crt; \
    cp /etc/os-release /out/etc/; \
    dpkg-query --status ca-certificates libc6 libgcc-s1 > /out/var/lib/dpkg/status; \
    echo 'hosts: files dns' > /out/etc/nsswitch.conf; \
    echo 'nonroot:x:65532:65532::/:/sbin/nologin' > /out/etc/passwd; \
    echo 'nonroot:x:65532:' > /out/etc/group; \
    /out/portcullis --version

FROM scratch
COPY --from=build /out /
# A number, so that Kubernetes knows that it is not root.
USER 65532:65532
EXPOSE 8443
# No HEALTHCHECK: no request is accepted without a client certificate, and the image must hold no
# client key. A connection that opens and closes is not counted as a rejection.
ENTRYPOINT ["/portcullis"]
CMD ["serve"]
