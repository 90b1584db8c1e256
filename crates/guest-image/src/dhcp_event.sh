#!/usr/bin/busybox sh
# Called by udhcpc with the event in $1 and the lease in the environment.
case "$1" in
    deconfig)
        ip addr flush dev "$interface"
        ;;
    bound | renew)
        ip addr replace "$ip/${mask:-24}" dev "$interface"
        [ -n "$router" ] && ip route replace default via "${router%% *}" dev "$interface"
        for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
        ;;
esac
