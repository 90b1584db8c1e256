#!/usr/bin/busybox sh
# The first process of an Understudy guest. It has no udev and no modprobe to wait for: the modules
# are listed in the order in which they load. Words of the kernel's command line steer it; they are
# described in docs/guest-images.md.
export PATH=/usr/sbin:/usr/bin HOME=/root TERM=vt102
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
read -r command_line < /proc/cmdline

# Prints the value of "$1=" on the command line; a value with spaces stands in double quotes.
parameter() {
    case " $command_line" in
        *" $1=\""*) set -- " $command_line" "$1"; set -- "${1#*" $2=\""}"; echo "${1%%\"*}" ;;
        *" $1="*) set -- " $command_line" "$1"; set -- "${1#*" $2="}"; echo "${1%% *}" ;;
    esac
}

say() { echo "understudy: $*"; }

load_modules() {
    while read -r module; do
        insmod "$module" || say "$module could not be loaded"
    done < "/etc/understudy/modules/$1"
}

start_network() {
    ip link set lo up
    [ -e /sys/class/net/eth0 ] || return
    network=$(parameter understudy.network)
    case "${network:=dhcp}" in
        none) ;;
        dhcp)
            ip link set eth0 up
            udhcpc -i eth0 -b -t 5 -T 1 -A 3 -s /usr/lib/understudy/dhcp-event > /run/udhcpc.log 2>&1
            ;;
        *)
            # ADDRESS/PREFIX[,GATEWAY[,NAME SERVER]]
            ip link set eth0 up
            ip addr add "${network%%,*}" dev eth0
            rest=${network#*,}
            [ "$rest" = "$network" ] && return
            ip route add default via "${rest%%,*}"
            [ "${rest#*,}" = "$rest" ] || echo "nameserver ${rest#*,}" > /etc/resolv.conf
            ;;
    esac
}

# The machine is reset when nothing has reloaded the watchdog for so many seconds.
start_watchdog() {
    seconds=$(parameter understudy.watchdog)
    [ -n "$seconds" ] || return
    load_modules watchdog
    if [ -e /dev/watchdog ]; then
        watchdog -T "$seconds" -t $(((seconds + 2) / 3)) /dev/watchdog
    else
        say "there is no watchdog"
    fi
}

# A service is a script /etc/understudy/services/NAME; NAME.port holds the TCP port that it listens
# on when it is ready. When it ends, whenever that is, the console says so.
start_services() {
    services=$(parameter understudy.service)
    [ "$services" = none ] && return
    [ -n "$services" ] || read -r services < /etc/understudy/default-services
    mkdir -p /run/understudy
    for service in $(IFS=,; set -- $services; echo "$@"); do
        if [ ! -x "/etc/understudy/services/$service" ]; then
            say "there is no service $service"
            continue
        fi
        run_service "$service" &
        started="$started $service"
    done
}

run_service() {
    "/etc/understudy/services/$1" < /dev/null > "/var/log/$1.log" 2>&1 &
    echo $! > "/run/understudy/$1.pid"
    wait $!
    status=$?
    echo $status > "/run/understudy/$1.ended"
    say "$1 has ended with status $status; its log ends:"
    tail -n 20 "/var/log/$1.log"
}

# Waits for the power button, and then powers off. The first thing that is read of an input device is that
# its key goes down.
watch_power_button() {
    for name in /sys/class/input/event*/device/name; do
        [ -r "$name" ] && read -r button < "$name" || continue
        [ "$button" = "Understudy power button" ] || continue
        event=${name%/device/name}
        dd "if=/dev/input/${event##*/}" of=/dev/null bs=24 count=1 2> /dev/null && power_off
        return
    done
}

# Services are told to end (SIGTERM to the script, or to the program that it has become) and have ten
# seconds; then everybody else, with two.
power_off() {
    say "the power button was pressed: powering off"
    for pid in /run/understudy/*.pid; do
        [ -r "$pid" ] && kill -TERM "$(cat "$pid")" 2> /dev/null
    done
    tries=0
    while services_run && [ $tries -lt 200 ]; do
        tries=$((tries + 1))
        usleep 50000
    done
    trap '' TERM
    kill -TERM -1
    read -r own rest < /proc/self/stat
    tries=0
    while others_run && [ $tries -lt 40 ]; do
        tries=$((tries + 1))
        usleep 50000
    done
    kill -KILL -1
    sync
    umount -a -r 2> /dev/null
    poweroff -f
}

services_run() {
    for pid in /run/understudy/*.pid; do
        [ -r "$pid" ] && [ ! -e "${pid%.pid}.ended" ] && return
    done
    return 1
}

# Whether there is a process besides this one and the first: one with a program, as the kernel's have none.
others_run() {
    for process in /proc/[0-9]*; do
        [ -e "$process/exe" ] || continue
        case $process in /proc/1 | "/proc/$own") ;; *) return ;; esac
    done
    return 1
}

# Sets $states to what is to be said of all services once those with a port listen, or have ended, or
# a minute is over. Most listen at once; whoever takes longer is named, and looked at twice a second.
await_services() {
    states=
    looks=0
    for service in $started; do
        port=
        [ -r "/etc/understudy/services/$service.port" ] &&
            read -r port < "/etc/understudy/services/$service.port"
        state=runs
        if [ -n "$port" ]; then
            pattern=$(printf ':%04X [0-9A-F]*:0000 0A ' "$port")
            state="listens on port $port"
            named=
            until grep -q "$pattern" /proc/net/tcp /proc/net/tcp6; do
                [ -e "/run/understudy/$service.ended" ] && break
                looks=$((looks + 1))
                if [ $looks -gt 216 ]; then
                    state="does not listen on port $port"
                    break
                elif [ $looks -lt 100 ]; then
                    usleep 20000
                else
                    [ -n "$named" ] || say "waiting for $service to listen on port $port"
                    named=yes
                    usleep 500000
                fi
            done
        fi
        if [ -e "/run/understudy/$service.ended" ]; then
            read -r status < "/run/understudy/$service.ended"
            state="has ended with status $status"
        fi
        states="$states, $service $state"
    done
    states=${states#, }
}

# Goes on in the Debian system on a disk, after its packages have been configured (once).
switch_to_disk() {
    load_modules disk
    mount -t ext4 -o rw "$1" /newroot || { say "no ext4 file system on $1"; return; }
    if [ -x /newroot/usr/lib/understudy/first-boot ]; then
        say "first boot: Debian configures its packages; this happens once and takes minutes"
        for tree in proc sys dev; do mount --bind "/$tree" "/newroot/$tree"; done
        mount -t tmpfs tmpfs /newroot/run
        chroot /newroot /usr/lib/understudy/first-boot
        umount /newroot/run /newroot/dev /newroot/sys /newroot/proc
    fi
    umount /sys /proc
    mount --move /dev /newroot/dev
    exec switch_root -c /dev/console /newroot /sbin/init
}

load_modules boot
root=$(parameter root)
[ -n "$root" ] && switch_to_disk "$root"

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
hostname -F /etc/hostname
echo 1 > /proc/sys/vm/overcommit_memory
start_watchdog
watch_power_button &
start_services
start_network
await_services
address="no network"
if [ -e /sys/class/net/eth0 ]; then
    address=$(ip -4 -o addr show dev eth0)
    address=${address#* inet }
    address=${address%% *}
fi
say "guest ready (${address:-no address})${states:+: $states}"

run=$(parameter understudy.run)
if [ -n "$run" ]; then
    sh -c "$run"
    say "exit status $?"
    poweroff -f
fi
# Another shell whenever one ends; the pause keeps a console without input from spinning.
while :; do
    setsid cttyhack sh -l
    sleep 1
done
