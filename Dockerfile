# syntax keeps to what Docker, BuildKit and buildah all know.
#
# A release pins the base by its digest: --build-arg BASE=debian:trixie-slim@sha256:…
# trixie's Python is built with PGO and LTO; a plain build takes 1.3 times the CPU for each review.
ARG BASE=debian:trixie-slim

# --- Python, the same in the stage that builds and in the one that runs: what is compiled here runs there
FROM ${BASE} AS python
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*.log /var/log/apt

# --- What is installed: hash-locked wheels alone, nothing is compiled but bytecode
FROM python AS build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends ca-certificates python3-venv
# The system's certificates: those of a company's proxy count too, mounted at /usr/local/share/ca-certificates/NAME.crt.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
WORKDIR /src
COPY requirements/build.txt requirements/run.txt requirements/tracing.txt requirements/sbom.txt requirements/
RUN python3 -m venv /pip \
 && python3 -m venv --without-pip /opt/client-ip \
 && /pip/bin/pip install --quiet --no-cache-dir \
      --no-deps --only-binary :all: --require-hashes -r requirements/build.txt \
 && /pip/bin/pip --python /opt/client-ip/bin/python install --quiet --no-cache-dir --no-compile \
      --no-deps --only-binary :all: --require-hashes -r requirements/run.txt -r requirements/tracing.txt \
 && /pip/bin/pip --python /opt/client-ip/bin/python check
# The bill of materials of what is installed here, before anything is taken away.
COPY pyproject.toml README.md LICENSE ./
RUN python3 -m venv --without-pip /sbom \
 && /pip/bin/pip --python /sbom/bin/python install --quiet --no-cache-dir --no-deps \
      --only-binary :all: --require-hashes -r requirements/sbom.txt \
 && mkdir -p /usr/share/client-ip-webhook \
 && /sbom/bin/cyclonedx-py environment --gather-license-texts --output-reproducible --output-format JSON --pyproject pyproject.toml \
      --mc-type application --output-file /usr/share/client-ip-webhook/sbom.cdx.json /opt/client-ip/bin/python
# Of the Kubernetes client only configuration and credentials are used: its model classes are most of the image.
RUN cd /opt/client-ip/lib/python3*/site-packages/kubernetes \
 && rm -r aio && find client/models client/api -type f ! -name __init__.py -delete
COPY certs certs
COPY webhook webhook
# Bytecode that is never compared with its source: nothing is stat'ed or written at start.
RUN /pip/bin/pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /pip/bin/pip --python /opt/client-ip/bin/python install --quiet --no-cache-dir --no-compile --no-deps --no-index \
      /wheels/*.whl \
 && /opt/client-ip/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/client-ip/lib

# --- What runs: Python and the wheels; no pip, no compiler, nothing that root owns is writable
FROM python
ARG VERSION=0.2.0
ARG REVISION=
ARG CREATED=
ARG SOURCE=
LABEL org.opencontainers.image.title="client-ip-webhook" \
      org.opencontainers.image.description="Preserves the client's IP address for applications behind Istio sidecars and gateways" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /opt/client-ip /opt/client-ip
COPY --from=build /usr/share/client-ip-webhook /usr/share/client-ip-webhook
ENV PATH=/opt/client-ip/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8443 8080
ENTRYPOINT ["client-ip"]
CMD ["serve"]
