#!/bin/bash
# Run a command in a user-mode Linux whose kernel knows FAT, on this machine's files (Debian: user-mode-linux, kmod,
# dosfstools), as root. /tmp is the guest's own. Exits with the command's status.
#
#     test/drive/on-uml.sh node dist/esm/test/drive/kill-campaign.js --type vfat --rounds 100
set -u
here=$(cd "$(dirname "$0")/../.." && pwd)
if [ "$$" != 1 ]; then
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  linux.uml mem=1024M rootfstype=hostfs hostfs=/ rw init="$here/test/drive/on-uml.sh" con=null con0=fd:0,fd:1 loglevel=1 \
    -- "$@" --end </dev/null 2>&1 | tee "$log"
  exit "$(sed -n 's/^on-uml: status \([0-9]*\).*/\1/p' "$log" | tail -1)"
fi
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs run /run
# The checkout may lie in /tmp.
mkdir /run/checkout
mount --bind "$here" /run/checkout
mount -t tmpfs tmp /tmp
mkdir -p "$here"
mount --bind /run/checkout "$here"
modules=/usr/lib/uml/modules/$(uname -r)/kernel
for module in fs/nls/nls_cp437 fs/nls/nls_iso8859-1 fs/nls/nls_ascii fs/fat/fat fs/fat/vfat drivers/block/loop; do
  insmod "$modules/$module.ko"
done
cd "$here" || halt -f
# The kernel adds words of its own behind ours.
command=()
for word; do
  [ "$word" = --end ] && break
  command+=("$word")
done
"${command[@]}"
echo "on-uml: status $?"
halt -f
