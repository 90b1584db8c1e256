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
mkdir -p /run/lower /run/upper /run/work /run/merged
cp /var/tmp/disk /run/lower
mount -t overlay -o lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work overlay /run/merged
echo more >> /run/merged/disk
cmp -n 2097152 /run/lower/disk /run/upper/disk
umount /run/merged
loop=$(losetup --find --show /var/tmp/disk)
cmp "$loop" /run/lower/disk
mkswap "$loop" > /dev/null
swapon "$loop"
swapoff "$loop"
losetup --detach "$loop"
sync
ip link del left
ip link del lan
for module in veth bridge tun erofs squashfs overlay; do
    modprobe -r $module
done
for round in 1 2 3; do
    modprobe squashfs
    modprobe -r squashfs
done
