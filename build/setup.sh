#!/bin/bash
# Prepares a Debian machine and this checkout: packages, and a virtual environment in .venv.
#
#   build/setup.sh run        what running VM Babysitter and the demo needs
#   build/setup.sh package    that, and what makes the package for Unraid
#   build/setup.sh test       all that, and what the tests and linters need
#
# Does nothing, and needs neither root nor a network, where everything is there.
set -euo pipefail

readonly POLICY=/usr/sbin/policy-rc.d
readonly VENV=.venv
readonly STAMP=$VENV/.setup-stamp

RUN_PACKAGES=(
  libvirt-daemon
  libvirt-daemon-driver-qemu
  python3-libvirt
  python3-lxml
  python3-venv
  qemu-system-x86
  qemu-utils
)
PACKAGE_PACKAGES=(
  binutils
  gcc
  libc6-dev
  xz-utils
)
TEST_PACKAGES=(
  bindfs
  chromium
  curl
  e2fsprogs
  libnbd-bin
  libnginx-mod-nchan
  libvirt-clients
  libxml2-utils
  nbdkit
  nginx-light
  ovmf
  php-cli
  php-curl
  shellcheck
  virtnbdbackup
  swtpm
  swtpm-tools
)

say() { printf 'setup: %s\n' "$*"; }

die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# Prints the packages of "$@" that are not installed, one a line.
missing_packages() {
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
  local package
  for package in "$@"; do
    grep -qxF "installed $package" <<<"$installed" || printf '%s\n' "$package"
  done
}

has_candidates() {
  local package
  for package in "$@"; do
    apt-cache policy "$package" 2>/dev/null | grep -q '^ *Candidate: [^(]' || return 1
  done
}

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" </dev/null; }

# No package that we bring in may start a service. An administrator's own policy is left alone.
forbid_service_starts() {
  [[ -e $POLICY || -L $POLICY ]] && return
  trap 'rm -f "$POLICY"' EXIT
  trap 'exit 130' INT TERM HUP
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod 755 "$POLICY"
}

allow_service_starts() {
  if [[ -n $(trap -p EXIT) ]]; then
    rm -f "$POLICY"
    trap - EXIT INT TERM HUP
  fi
}

install_packages() {
  say "these Debian packages are missing and will be installed (no service is started): $*"
  if ((EUID != 0)); then
    die "that needs root; run this and try again: apt-get install --no-install-recommends $*"
  fi
  forbid_service_starts
  has_candidates "$@" || apt-get update -q </dev/null || say "apt-get update had complaints; going on"
  # Package lists may be older than the mirror: refresh them once and try again.
  apt_install "$@" || { apt-get update -q </dev/null && apt_install "$@"; }
  allow_service_starts
}

# libvirt looks its QEMU user up before it reads any configuration that names another one.
# Debian makes it in libvirt-daemon-system, which starts services and is not wanted here;
# this is the same user as made there.
create_qemu_user() {
  say "the system user libvirt-qemu, which libvirt insists on, is missing and will be created"
  ((EUID == 0)) || die "that needs root: install libvirt-daemon-system, or run this script as root"
  getent group kvm >/dev/null || groupadd --system kvm
  getent group libvirt-qemu >/dev/null || groupadd --gid 64055 libvirt-qemu
  useradd --uid 64055 --gid kvm --groups libvirt-qemu --home-dir /var/lib/libvirt \
    --no-create-home --shell /usr/sbin/nologin --comment 'Libvirt Qemu' libvirt-qemu
}

prepare_system() {
  if ! command -v dpkg-query >/dev/null; then
    say "this is not Debian: see that libvirt, QEMU and their Python bindings are there ($*)"
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
  { getent passwd libvirt-qemu && getent group libvirt-qemu; } >/dev/null || create_qemu_user
}

# What the environment is made from; the extras of `test` contain those of `run`.
fingerprint() { printf '%s %s' "$(sha256sum pyproject.toml | cut -d ' ' -f 1)" "$PWD"; }

environment_is_current() {
  [[ -x $VENV/bin/python && -e $STAMP ]] || return 1
  local stamp
  stamp=$(<"$STAMP")
  [[ $stamp == "$(fingerprint) test" || $stamp == "$(fingerprint) $1" ]]
}

prepare_environment() {
  environment_is_current "$1" && return
  local project=.
  [[ $1 == test ]] && project='.[dev]'
  say "installing VM Babysitter and its Python libraries into $PWD/$VENV"
  rm -f "$STAMP"
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$VENV"
    /usr/bin/python3 -m venv --system-site-packages "$VENV"
  fi
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$project" </dev/null
  printf '%s %s' "$(fingerprint)" "$1" >"$STAMP"
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1-}" in
  run) prepare_system "${RUN_PACKAGES[@]}" ;;
  package) prepare_system "${RUN_PACKAGES[@]}" "${PACKAGE_PACKAGES[@]}" ;;
  test) prepare_system "${RUN_PACKAGES[@]}" "${PACKAGE_PACKAGES[@]}" "${TEST_PACKAGES[@]}" ;;
  *) die "usage: build/setup.sh run|package|test" ;;
esac
case $1 in
  test) prepare_environment test ;;
  *) prepare_environment run ;;
esac
