. /var/tmp/coppice-build/begin.sh
# What provisioners needed goes, but for what stays and what the appliance's own packages need by now.
give_back() {
  [ -e "$here/packages-after" ] && [ -n "$borrowed" ] || return 0
  added=$(comm -13 "$here/packages-before" "$here/packages-after")
  [ -n "$added" ] || return 0
  for name in $borrowed; do
    printf '%s\n' $staying | grep -Fxq -- "$name" || printf '%s\n' $added | grep -Fx -- "$name" || true
  done > "$here/passing"
  [ -s "$here/passing" ] || return 0
  apt-mark auto -- $(cat "$here/passing") > /dev/null
  options='-oAPT::AutoRemove::RecommendsImportant=false -oAPT::AutoRemove::SuggestsImportant=false'
  apt-get --yes $options --simulate autoremove | sed -n 's/^\(Remv\|Purg\) \([^ :]*\).*/\2/p' | sort -u > "$here/unneeded"
  printf '%s\n' $added | sort > "$here/added"
  gone=$(comm -12 "$here/added" "$here/unneeded")
  [ -n "$gone" ] || return 0
  others=$(apt-get --yes $options --simulate purge -- $gone | sed -n 's/^\(Remv\|Purg\) \([^ :]*\).*/\2/p' | sort -u | comm -13 "$here/added" -)
  [ -z "$others" ] || fail "what the provisioners needed cannot be removed without $(echo $others)"
  apt-get --yes $options purge -- $gone
  dpkg-statoverride --list | cut -d' ' -f4- | sort | comm -13 "$here/overrides-before" - | while read -r path; do
    dpkg-statoverride --remove "$path"
  done
  getent passwd | cut -d: -f1 | sort | comm -13 "$here/accounts-before" - > "$here/accounts-new"
  getent group | cut -d: -f1 | sort | comm -13 "$here/groups-before" - > "$here/groups-new"
  for name in $(cat "$here/accounts-new"); do
    printf '%s\n' $own_accounts | grep -Fxq -- "$name" || userdel -- "$name" || true
  done
  for name in $(cat "$here/groups-new"); do
    printf '%s\n' $own_accounts | grep -Fxq -- "$name" || ! getent group "$name" > /dev/null || groupdel -- "$name" || true
  done
}

switch_units() {
  for unit in $released; do
    systemctl unmask -- "$unit"
    systemctl preset -- "$unit" || true
  done
  for unit in $enabled $disabled $masked; do unit_state "$unit" > /dev/null; done
  for unit in $masked; do systemctl mask -- "$unit"; done
  for unit in $disabled; do systemctl disable -- "$unit"; done
  for unit in $enabled; do
    case "$(unit_state "$unit")" in masked*) systemctl unmask -- "$unit" ;; esac
    systemctl enable -- "$unit"
    case "$(unit_state "$unit")" in
    enabled | enabled-runtime | alias | linked) ;;
    *) fail "the unit $unit cannot be enabled: only others can start it" ;;
    esac
  done
}

set_boot_options() {
  [ "$sets_boot" = yes ] || return 0
  mkdir -p /etc/default/grub.d
  printf 'GRUB_TIMEOUT=%s\nGRUB_CMDLINE_LINUX="%s"\n' "$menu_seconds" "$kernel_options" > /etc/default/grub.d/95-appliance.cfg
  update-grub || fail "the boot menu cannot be written anew"
}

# Identity and traces of this one machine: each of the appliance's machines has its own.
clean() {
  case "$family" in
  debian)
    apt-get clean
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/lib/apt/periodic/*
    rm -f /var/lib/dpkg/*-old /var/cache/debconf/*-old
    ;;
  red-hat) dnf clean all && rm -rf /var/cache/dnf/* /var/cache/yum/* /var/lib/dnf/history.sqlite* ;;
  suse) zypper clean --all ;;
  esac
  [ ! -e "$here/own-policy" ] || rm -f /usr/sbin/policy-rc.d
  rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
  : > /etc/machine-id
  rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed /var/lib/random-seed
  rm -f /boot/efi/loader/random-seed /efi/loader/random-seed /etc/iscsi/initiatorname.iscsi
  rm -rf /var/lib/cloud
  rm -f /etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init /etc/NetworkManager/conf.d/99-cloud-init.conf
  rm -f /etc/NetworkManager/system-connections/cloud-init-* /etc/sysconfig/network-scripts/ifcfg-e*
  rm -rf /var/lib/dhcp/* /var/lib/dhcpcd/* /var/lib/NetworkManager/* /var/lib/systemd/network/* /var/lib/wicked/*
  rm -f /etc/udev/rules.d/70-persistent-net.rules /var/lib/systemd/timesync/clock
  rm -rf /root/.ansible /root/.puppetlabs /root/.cache /root/.bash_history /root/.wget-hsts /root/.viminfo /root/.lesshst
  rm -rf /var/lib/sudo/lectured /var/cache/ldconfig/aux-cache
  printf 'localhost\n' > /etc/hostname
  if [ -f /etc/resolv.conf ] && [ ! -L /etc/resolv.conf ]; then : > /etc/resolv.conf; fi
}

clean_after_installer() {
  [ "$was_installed" = yes ] || return 0
  rm -rf /var/log/installer /root/anaconda-ks.cfg /root/original-ks.cfg /root/initial-setup-ks.cfg /var/lib/autoinstall
  rm -f /etc/cloud/cloud.cfg.d/99-installer.cfg /etc/cloud/cloud.cfg.d/50-curtin-networking.cfg
  rm -f /etc/cloud/cloud.cfg.d/curtin-preserve-sources.cfg /etc/cloud/cloud.cfg.d/90-installer-network.cfg
  rm -f /etc/cloud/cloud.cfg.d/subiquity-disable-cloudinit-networking.cfg /etc/cloud/ds-identify.cfg
  rm -f /etc/netplan/00-installer-config.yaml /etc/NetworkManager/system-connections/*.nmconnection
  rm -f /var/lib/YaST2/* 2>/dev/null || true
  if [ -e /etc/network/interfaces ]; then
    printf 'source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n' > /etc/network/interfaces
  fi
  if grep -q '^[^#].*[[:space:]]swap[[:space:]]' /etc/fstab; then
    swapoff -a || true
    sed -i '/^[^#].*[[:space:]]swap[[:space:]]/d' /etc/fstab
    rm -f /swapfile /swap.img
  fi
}

# The appliance's access, firewall and contextualisation.
lay_over() {
  for path in $left_out; do rm -f -- "$path"; done
  tar --extract --file="$here/overlay.tar" --directory=/ --no-same-owner --preserve-permissions --overwrite
  [ "$own_firewall" != yes ] || systemctl disable firewalld.service > /dev/null 2>&1 || true
  # An sshd that does not read the folder is told in its own file.
  if [ -d /etc/ssh ] && ! grep -Eiq '^[[:space:]]*Include[[:space:]].*sshd_config\.d' /etc/ssh/sshd_config 2> /dev/null; then
    if [ -e /etc/ssh/sshd_config ]; then
      cat /etc/ssh/sshd_config.d/00-coppice.conf /etc/ssh/sshd_config > "$here/sshd_config"
      cat "$here/sshd_config" > /etc/ssh/sshd_config
    fi
  fi
}

give_back
switch_units
set_boot_options
clean
clean_after_installer
lay_over
