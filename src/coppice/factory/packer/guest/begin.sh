# Read by each step, which runs as root in the machine that becomes the appliance.
set -eu
umask 022
export HOME=/root LC_ALL=C.UTF-8 LANG=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
here=/var/tmp/coppice-build
. "$here/settings.sh"

# The builder takes the last such line for the reason.
fail() {
  echo "appliance-failed: $*" >&2
  exit 9
}

installed() {
  case "$family" in
  debian) dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' ;;
  *) rpm --query --all --queryformat '%{NAME}\n' ;;
  esac | sort -u
}

missing() {
  printf '%s\n' "$@" | sort -u > "$here/wanted"
  installed > "$here/have"
  comm -23 "$here/wanted" "$here/have"
}

# A site's own mirror is for the build alone.
apt() {
  if [ -e "$here/sources.list" ]; then
    apt-get -o Dir::Etc::SourceList="$here/sources.list" -o Dir::Etc::SourceParts=/dev/null \
      -o Dpkg::Options::=--force-confold --yes "$@"
  else
    apt-get -o Dpkg::Options::=--force-confold --yes "$@"
  fi
}

install_packages() {
  [ $# -gt 0 ] || return 0
  names=$(missing "$@")
  [ -n "$names" ] || return 0
  echo "installing $(printf '%s' "$names" | tr '\n' ' ')"
  # Names are words of a-z, 0-9 and the like: they are meant to be split.
  case "$family" in
  debian)
    if [ ! -e "$here/updated" ]; then
      apt update || fail "the lists of packages cannot be fetched"
      : > "$here/updated"
    fi
    apt --no-install-recommends install -- $names || fail "the packages $(echo $names) cannot be installed"
    ;;
  red-hat) dnf --assumeyes --setopt=install_weak_deps=False install -- $names \
    || fail "the packages $(echo $names) cannot be installed" ;;
  suse) zypper --non-interactive install --no-recommends -- $names \
    || fail "the packages $(echo $names) cannot be installed" ;;
  esac
}

# State of a unit; fails where there is none of that name.
unit_state() {
  state=$(systemctl is-enabled -- "$1" 2>/dev/null | tail -n 1) || true
  case "$state" in
  enabled | enabled-runtime | alias | linked | linked-runtime | disabled | static | indirect | generated | masked | masked-runtime)
    printf '%s' "$state"
    ;;
  *) fail "there is no unit $1 in the appliance" ;;
  esac
}
