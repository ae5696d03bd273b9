# docker build -t portcullis .
# docker run --rm -p 8443:8443 -v "$PWD/certs-example:/etc/portcullis:ro" portcullis serve \
#     --cert /etc/portcullis/server-cert.pem --key /etc/portcullis/server-key.pem \
#     --trust /etc/portcullis/trust

# Both stages are of one Debian: a binary may not run on an older glibc than it was linked with.
FROM rust:1.95-slim-trixie AS build
WORKDIR /src
# Never link an AWS-LC that happens to be in the image: the one in Cargo.lock, built from source.
ENV AWS_LC_SYS_USE_SYSTEM=0

# The dependencies by themselves: built again only when Cargo.toml or Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin portcullis

# Cargo compares times, and these files may be older than the layer above.
COPY README.md ./
COPY src src
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin portcullis

# glibc, libgcc and no shell. `nonroot` is 65532, a figure so that Kubernetes knows it is not root.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /src/target/release/portcullis /portcullis
USER 65532:65532
EXPOSE 8443
# No HEALTHCHECK: no request is answered without a client certificate, and no key to one belongs in
# here. Whoever runs the container can see whether the port accepts: that counts as no refusal.
ENTRYPOINT ["/portcullis"]
CMD ["serve"]
