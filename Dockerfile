# The image of oidc-bridge: one static program and the certificates of public CAs, nothing else. deploy/compose.yaml shows it at work.
#
#   docker build --build-arg VERSION=1.2.3 -t oidc-bridge .
#
# Configuration and rules are mounted at /etc/oidc-bridge, secrets come in the environment or as files. e2e/image_test.go carries out what
# stands below, step by step.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unreleased
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o bin/oidc-bridge ./cmd/oidc-bridge

FROM scratch
LABEL org.opencontainers.image.title="oidc-bridge" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/bin/oidc-bridge /
WORKDIR /etc/oidc-bridge
# A number, which Kubernetes' runAsNonRoot can judge. No file belongs to it.
USER 65532:65532
EXPOSE 8080
# It reads private_listen from config.yaml and asks /readyz there.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s CMD ["/oidc-bridge", "health"]
ENTRYPOINT ["/oidc-bridge"]
CMD ["serve"]
