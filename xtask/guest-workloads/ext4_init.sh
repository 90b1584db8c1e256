#!/bin/sh
# The first process of a guest whose root is an ext4 file system: numbered lines for whoever connects.
export PATH=/usr/sbin:/usr/bin
mount -t proc proc /proc
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
exec perl /workload/numbered_lines.pl
