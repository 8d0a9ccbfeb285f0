# The end of the machine: the way in that this build made goes, and what its last minutes would have left.
. /var/tmp/coppice-build/begin.sh
systemctl stop rsyslog.service syslog.socket systemd-timesyncd.service chronyd.service chrony.service \
  systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journald.service \
  > /dev/null 2>&1 || true
rm -f /etc/sudoers.d/90-cloud-init-users /etc/cloud/cloud-init.disabled
if [ "$login" = root ]; then
  rm -rf /root/.ssh
else
  # It is in use by the very session that runs this.
  userdel --force --remove -- "$login" > /dev/null 2>&1 || true
  ! getent passwd "$login" > /dev/null || fail "the account $login is still there"
  rm -rf -- "/home/$login" "/var/mail/$login" "/var/spool/mail/$login"
fi
rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid- /etc/.pwd.lock
rm -f /etc/ssh/ssh_host_* /root/.bash_history
rm -rf /tmp/* /tmp/.[!.]* /var/tmp/* /var/tmp/.[!.]* /var/crash/*
# An ordinary shutdown would write logs, seeds and leases once more. What is freed is given back to the disk.
setsid sh -c '
  sleep 2
  find /var/log -type f ! -name README -delete
  rm -f /var/lib/systemd/random-seed /var/lib/systemd/timesync/clock
  sync
  fstrim --all
  sync
  echo s > /proc/sysrq-trigger
  sleep 1
  echo u > /proc/sysrq-trigger
  sleep 2
  echo o > /proc/sysrq-trigger
' < /dev/null > /dev/null 2>&1 &
