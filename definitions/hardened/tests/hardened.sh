#!/bin/sh
# The settings are in force, not only on disk.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

check() {
    found=$(cat "/proc/sys/$1")
    [ "$found" = "$2" ] || fail "$1 is $found, not $2"
}

check kernel/dmesg_restrict 1
check kernel/kptr_restrict 2
check fs/suid_dumpable 0
check net/ipv4/conf/all/accept_redirects 0
check net/ipv4/conf/all/rp_filter 1

sshd -T | grep --quiet --line-regexp "x11forwarding no" || fail "sshd forwards X11"
sshd -T | grep --quiet --line-regexp "passwordauthentication no" || fail "sshd takes passwords"

systemctl is-active --quiet auditd.service || fail "auditd does not run"
auditctl -l | grep --quiet /etc/shadow || fail "auditd does not watch the accounts"

systemctl is-active --quiet apparmor.service || fail "AppArmor is not active"
systemctl is-enabled --quiet apt-daily-upgrade.timer || fail "security updates do not install themselves"
nft list chain inet appliance input | grep --quiet "policy drop" || fail "the firewall is open"

if modprobe dccp 2>/dev/null; then
    fail "dccp was loaded"
fi
