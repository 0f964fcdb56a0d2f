# The worker's image: `make image`, or any BuildKit: docker build -t helix-deploy/worker .
#
# Where pip needs a configuration or certificates of its own, they are handed in and do not stay:
#   docker build --secret id=pip-conf,src=/etc/pip.conf \
#                --secret id=ca-certificates,src=/etc/ssl/certs/ca-certificates.crt .

ARG BASE=python:3.11-slim-bookworm

# What the lock says, and nothing else: a change of the source does not come here.
FROM ${BASE} AS dependencies
RUN python3 -m venv /opt/helix
COPY requirements-worker.lock /
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/pip \
    /opt/helix/bin/pip install --require-hashes --only-binary :all: -r /requirements-worker.lock

FROM dependencies AS package
COPY . /source
RUN /opt/helix/bin/pip install --no-index --no-deps --no-build-isolation --root /package /source

# pip and setuptools have done their work.
FROM dependencies AS environment
RUN /opt/helix/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
# What the base installs packages with is not needed any more.
RUN rm -rf /usr/local/bin/pip* /usr/local/bin/wheel /usr/local/lib/python3*/site-packages/*

# The number stays the same in every version: volumes and policies may name it.
RUN echo 'helix:x:10001:10001:Helix Deploy:/var/lib/helix:/sbin/nologin' >> /etc/passwd \
    && echo 'helix:x:10001:' >> /etc/group \
    && mkdir -p /var/lib/helix \
    && chown 10001:10001 /var/lib/helix \
    && chmod 0700 /var/lib/helix
COPY --from=environment /opt/helix /opt/helix
COPY --from=package /package /

ENV PATH=/opt/helix/bin:${PATH} \
    HOME=/var/lib/helix \
    HELIX_STATE_DIR=/var/lib/helix \
    HELIX_HEALTH_ADDRESS=0.0.0.0:8080 \
    HELIX_LOG_FORMAT=json \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/helix
VOLUME /var/lib/helix
EXPOSE 8080

HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python3", "-m", "worker.ready"]

# SIGTERM lets running steps end, for HELIX_GRACEFUL_SHUTDOWN_SECONDS (300): stop it with a grace that
# is longer, such as `docker stop --time 330`, or set both shorter.
STOPSIGNAL SIGTERM
ENTRYPOINT ["helix"]
CMD ["worker"]

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Helix Deploy worker" \
      org.opencontainers.image.description="Carries out deployments for a Temporal server" \
      org.opencontainers.image.source="https://github.com/HelixDB/helix-deploy" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
