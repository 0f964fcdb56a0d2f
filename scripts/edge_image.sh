#!/bin/sh
# Makes a stand-in for the public Caddy image from Debian's caddy, for machines whose engine can
# pull nothing: a scratch image with the binary, the libraries it needs, and nothing else.
#
#   scripts/edge_image.sh [IMAGE]        IMAGE defaults to caddy:2
#
# Does nothing if the image is there already. Speaks to the engine that `docker` speaks to.
set -eu

image=${1:-caddy:2}
if docker image inspect "$image" >/dev/null 2>&1; then
    exit 0
fi
caddy=$(command -v caddy) || {
    echo "edge_image.sh: caddy is not installed; try: apt-get install caddy" >&2
    exit 1
}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/usr/bin" "$root/etc/caddy" "$root/config" "$root/data" "$root/tmp"
cp "$caddy" "$root/usr/bin/caddy"
# ldd names each library as «name => /path (address)», and the loader as «/path (address)».
ldd "$caddy" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done

tar -C "$root" -c . | docker import \
    --change 'ENV PATH=/usr/bin XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data' \
    --change 'CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile"]' \
    --change 'LABEL org.opencontainers.image.title="caddy, stand-in from Debian"' \
    - "$image" >/dev/null
echo "made $image from $(caddy version | cut -d' ' -f1) of this machine"
