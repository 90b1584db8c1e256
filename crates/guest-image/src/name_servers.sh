#!/bin/sh
# Writes the name servers that DHCP tells systemd-networkd to /etc/resolv.conf, unless that is somebody
# else's: a package for resolving makes it a link. `tail` waits for the next word without waking up, and
# misses none: a path unit does while its service still runs.
state=${1:-/run/systemd/netif/state} configuration=${2:-/etc/resolv.conf}
tail -n +1 -F "$state" 2> /dev/null | while read -r line; do
    case $line in DNS=?*) ;; *) continue ;; esac
    [ -L "$configuration" ] && continue
    for server in ${line#DNS=}; do echo "nameserver $server"; done > "$configuration.new"
    mv "$configuration.new" "$configuration"
done
