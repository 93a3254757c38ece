# Galley's own image: a static binary, certificates, and nothing else.
#
#   docker build -t galley .
#
# There is no shell in it. In a stage of a build, name what to run as an array;
# galley itself reads '$NAME' where a reference is expected:
#
#   FROM galley AS model
#   ARG MODEL
#   RUN --mount=type=secret,id=registry,target=/run/registry.json,uid=65532 \
#       ["galley", "pull", "$MODEL", "--registry-config", "/run/registry.json"]
#
# What is pulled lies in /artifact. To package a binary that is there already, give
# its root filesystem in the place of the first stage:
# --build-context build=DIR, with DIR/out/….
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /out/usr/local/bin/galley ./cmd/galley \
 && mkdir -p /out/etc/ssl/certs /out/artifact /out/tmp \
 && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/

FROM scratch
COPY --from=build /out/etc/ /etc/
COPY --from=build /out/usr/ /usr/
COPY --from=build --chown=65532:65532 /out/artifact/ /artifact/
COPY --from=build --chown=65532:65532 /out/tmp/ /tmp/
ENV PATH=/usr/local/bin HOME=/artifact
USER 65532:65532
WORKDIR /artifact
ENTRYPOINT ["galley"]
