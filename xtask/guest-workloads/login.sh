# Typed at the console of a Debian with systemd, after the login.
set -e
systemctl is-system-running --wait || systemctl --failed
systemctl --no-pager list-units --type=service --state=running | tail -n 3
# Code that the kernel loads, links, runs and frees.
for module in loop overlay squashfs erofs vfat bridge veth tun nf_tables dm_mod; do
    modprobe $module
done
ip link add left type veth peer name right
ip link add name lan type bridge
ip link set left master lan
ip link set left up
ip link set right up
ip addr add 192.0.2.1/24 dev lan
ip link set lan up
dd if=/dev/urandom of=/var/tmp/disk bs=64k count=32 2> /dev/null
/sbin/mkfs.ext4 -q -F /var/tmp/disk
mkdir -p /mnt/disk
mount -o loop /var/tmp/disk /mnt/disk
cp /etc/passwd /mnt/disk
sync
umount /mnt/disk
losetup -D
ip link del left
ip link del lan
for module in veth bridge tun erofs squashfs overlay; do
    modprobe -r $module
done
for round in 1 2 3; do
    modprobe squashfs
    modprobe -r squashfs
done
