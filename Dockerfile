# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=v0.1.0-dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /tallyman ./cmd/tallyman && \
    mkdir -p /data && chmod 0775 /data

FROM gcr.io/distroless/static:nonroot
LABEL org.opencontainers.image.title=tallyman \
      org.opencontainers.image.description="A container registry with the image.openshift.io/v1 API of what it holds" \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /tallyman /usr/bin/tallyman
COPY config/container.yml /etc/distribution/config.yml
COPY --from=build --chown=65532:0 /data /var/lib/registry
USER 65532
VOLUME /var/lib/registry
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/bin/tallyman", "healthcheck"]
ENTRYPOINT ["/usr/bin/tallyman"]
CMD ["serve", "/etc/distribution/config.yml"]
