# Ends a cluster of the tests completely. usage: sh -c SCRIPT reap DIR [wait]
#
# With `wait` it first waits for the end of its standard input, whose other end is held by the process that started the
# cluster: when that process ends, in whatever way, the cluster does.
# Everything that a cluster is can be told from its id: processes carry it in their environment, containers' processes
# are in a cgroup named after it. Nothing else is touched, however late this runs. Mounts, firewall rules and pods'
# interfaces are in namespaces that end with the processes.
set -u
trap '' HUP INT QUIT TERM
dir=$1
id=${dir##*/gyrfalcon-e2e-}
case $dir in /*/gyrfalcon-e2e-?*) ;; *) echo "reap: not a cluster's folder: $dir" >&2; exit 2 ;; esac
if [ "${2-}" = wait ]; then cat >/dev/null; fi

processes() {
    grep -lsz "^GYRFALCON_E2E_CLUSTER=$id\$" /proc/[0-9]*/environ | cut -d/ -f3
    find /sys/fs/cgroup -path "*/gyrfalcon-e2e-$id/*" -name cgroup.procs -exec cat {} + 2>/dev/null
}

tries=0
while pids=$(processes) && [ -n "$pids" ] && [ $tries -lt 200 ]; do
    kill -9 $pids 2>/dev/null
    tries=$((tries + 1))
    sleep 0.05
done

tries=0
while [ -n "$(find /sys/fs/cgroup -depth -type d -path "*/gyrfalcon-e2e-$id*" -exec rmdir {} \; -print 2>/dev/null)" ] && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.05
done

if [ -s "$dir/link" ]; then ip link delete "$(cat "$dir/link")" 2>/dev/null; fi
rm -rf --one-file-system "$dir"
[ ! -e "$dir" ]
