#!/bin/bash
# boot_machine.sh ROOT CGROUP COMMAND...: runs COMMAND as process 1 of the system unpacked in ROOT, in
# namespaces of its own but with this machine's network. CGROUP is an empty group of cgroup v2.
set -euo pipefail

if [ "${1:-}" != --inside ]; then
    echo $$ > "$2/cgroup.procs"
    exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc "$0" --inside "$@"
fi
root=$2
shift 3

mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
    touch dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
pivot_root . mnt
umount --lazy /mnt
# Inside a container systemd expects to find it so, and hands on credentials by it.
mount --make-rshared /
hostname sessionwatch
exec env --ignore-environment container=sessionwatch PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
