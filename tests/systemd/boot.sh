#!/bin/bash
# Boots a systemd of its own as PID 1 of private namespaces, over a copy-on-write view of this machine, so that a unit can be
# tried for real in a container or on a developer's machine. Nothing outside DIR changes.
#
#   boot.sh start DIR          what lies in DIR/root is seen over the machine's own files; units in DIR/root/etc/systemd/system
#   boot.sh exec DIR COMMAND…  runs a command inside; /run/written there holds what was written so far, and nothing of the machine's
#   boot.sh stop DIR
#
# Needs root, systemd, util-linux, iproute2, procps, and a kernel with overlayfs and cgroup2.
set -euo pipefail
umask 022

verb=${1:?start, exec or stop}
dir=$(realpath -m -- "${2:?a directory}")
shift 2

inside() { nsenter --target "$(<"$dir/pid")" --mount --uts --ipc --net --pid --cgroup -- "$@"; }

start() {
  mkdir -p "$dir/root/etc/systemd/system" "$dir/over"
  unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child --propagation private \
    bash "$0" become-init "$dir" </dev/null >"$dir/console.log" 2>&1 &
  local outer=$! child i
  echo "$outer" >"$dir/outer"
  for ((i = 0; i < 120; i++)); do
    # The only child of `unshare` is PID 1 of the new namespace.
    if child=$(pgrep --parent "$outer"); then
      echo "$child" >"$dir/pid"
      case $(inside systemctl is-system-running 2>/dev/null || true) in running | degraded) return ;; esac
    elif ! kill -0 "$outer" 2>/dev/null; then
      break
    fi
    sleep 0.5
  done
  echo "systemd did not come up:" >&2
  tail -n 30 "$dir/console.log" >&2
  stop
  return 1
}

become_init() {
  local over=$dir/over root=$dir/over/root
  mount -t tmpfs -o mode=0755 tmpfs "$over"
  mkdir "$over"/{work,root}
  cp -a "$dir/root" "$over/upper"
  mount -t overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" overlay "$root"
  # The machine's own units are none of the test's business: they are hidden, and those for devices and clocks masked.
  mount -t tmpfs -o mode=0755 tmpfs "$root/etc/systemd/system"
  cp -a "$dir"/root/etc/systemd/system/. "$root/etc/systemd/system/"
  local unit
  for unit in systemd-udevd.service systemd-udev-trigger.service systemd-timesyncd.service systemd-modules-load.service \
    systemd-sysctl.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-remount-fs.service; do
    ln -s /dev/null "$root/etc/systemd/system/$unit"
  done
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount -t sysfs sysfs "$root/sys" 2>/dev/null || mount --rbind /sys "$root/sys"
  # What is mounted there may be another generation of control groups; it is covered to make room for the one systemd wants.
  mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
  umount "$root/sys/fs/cgroup"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=0755 tmpfs "$root/run"
  mkdir "$root/run/written"
  mount --bind "$over/upper" "$root/run/written"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  ip link set lo up
  cd "$root"
  mkdir .before
  pivot_root . .before
  umount --lazy /.before
  # Without sharing, what systemd mounts for a unit (LoadCredential=) stays invisible to the unit.
  mount --make-rshared /
  exec env -i container=namespaces PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=false
}

stop() {
  [[ -s $dir/outer ]] || return 0
  # The end of PID 1 is the end of everything in its namespaces.
  pkill -KILL --parent "$(<"$dir/outer")" || true
  rm -f "$dir/outer" "$dir/pid"
}

case $verb in
  start) start ;;
  exec) inside "$@" ;;
  stop) stop ;;
  become-init) become_init ;;
  *) echo "start, exec or stop" >&2; exit 2 ;;
esac
