#!/bin/sh
# Started by firmware from a disk: leaves a mark on it and reboots; the next time it finds the mark, and the machine is
# powered off behind it. The mark is between the partition table and the partition.
mark="dd if=/dev/vda bs=512 skip=40 count=1"
if [ "$($mark 2>/dev/null | head -c 6)" = marked ]; then
    echo "second boot: $(grep -c ^processor /proc/cpuinfo) CPUs, $(ls -d /sys/firmware/efi)"
    exit 0
fi
echo "first boot: $(cat /sys/class/dmi/id/sys_vendor 2>/dev/null || echo no DMI)"
echo marked | dd of=/dev/vda bs=512 seek=40 conv=notrunc,fsync 2>/dev/null
reboot -f
