#!/bin/sh
# It is the release that it says, nothing failed while it started, SELinux is in force, and it took its whole disk.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

. /etc/os-release
[ "$ID ${VERSION_ID%%.*}" = "rocky 10" ] || fail "this is $ID $VERSION_ID"

failed=$(systemctl list-units --failed --plain --no-legend)
[ -z "$failed" ] || fail "failed while it started: $failed"

[ "$(cat /sys/fs/selinux/enforce)" = 1 ] || fail "SELinux is not in force"

# Free room on the disk behind the last partition: cloud-init has left it out.
disk=/dev/$(lsblk --noheadings --output PKNAME "$(findmnt --noheadings --output SOURCE /)")
sectors=$(sfdisk --list-free --output Sectors --quiet "$disk" | awk '$1 ~ /^[0-9]+$/ { sum += $1 } END { print sum + 0 }')
[ "$sectors" -lt 65536 ] || fail "$sectors sectors of $disk are left over"

[ -s /etc/machine-id ] || fail "there is no machine-id"
