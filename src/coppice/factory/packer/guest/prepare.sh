. /var/tmp/coppice-build/begin.sh
if [ "$waits_for_cloud_init" = yes ] && command -v cloud-init > /dev/null; then
  cloud-init status --wait > /dev/null 2>&1 || true
fi
# What packages bring is started in the appliance's own machines, not in this one.
if [ "$family" = debian ] && [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
  chmod 0755 /usr/sbin/policy-rc.d
  : > "$here/own-policy"
fi
[ ! -e "$here/mirror.gpg" ] || install -m 0644 "$here/mirror.gpg" /var/tmp/coppice-mirror.gpg
install_packages $packages
if [ -n "$borrowed$staying" ]; then
  installed > "$here/packages-before"
  getent passwd | cut -d: -f1 | sort > "$here/accounts-before"
  getent group | cut -d: -f1 | sort > "$here/groups-before"
  dpkg-statoverride --list | cut -d' ' -f4- | sort > "$here/overrides-before" || true
  install_packages $borrowed $staying
  installed > "$here/packages-after"
fi
