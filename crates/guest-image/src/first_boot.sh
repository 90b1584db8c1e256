#!/bin/sh
# Runs once, in the new system, before systemd: does what the Debian installer would have done after
# unpacking. Its marker is its own file: gone when all went well, tried again at the next boot if not.
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C HOME=/root
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# No service may start in here: systemd starts them afterwards.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
depmod -a
# Some scripts need what another package sets up without saying so: a second pass finds it there.
dpkg --force-confold --force-unsafe-io --configure -a || dpkg --force-confold --configure -a
configured=$?
rm -f /usr/sbin/policy-rc.d
systemctl enable systemd-networkd.service understudy-name-servers.service
# Nobody waits for the network, no screen is attached, and nothing rewrites the disk on a timer.
systemctl mask systemd-networkd-wait-online.service getty@tty1.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer

if [ -s /usr/lib/understudy/root-password ]; then
    chpasswd < /usr/lib/understudy/root-password
else
    passwd -d root > /dev/null
fi
rm -f /usr/lib/understudy/root-password
if [ $configured -eq 0 ]; then
    rm -f /usr/lib/understudy/first-boot
    echo "understudy: all packages are configured"
else
    echo "understudy: some packages are not configured yet (dpkg --audit names them)"
fi
sync
