# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The first process of a node. It stands in namespaces of its own, builds the node's file system over the machine's,
# moves into it and then keeps sshd running and buries orphans.
# Arguments: the lab's directory, the node's directory, the node's name, and paths of other file systems to show.
set -eu
lab=$1 node=$2 name=$3
shift 3
mount -t overlay overlay -o "lowerdir=/,upperdir=$node/upper,workdir=$node/work" "$node/root"
cd "$node/root"
mount --bind /dev dev
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666,mode=0620,gid=5
mount -t tmpfs shm dev/shm -o mode=1777
mount -t sysfs sys sys
mount -t tmpfs tmp tmp -o mode=1777
mount -t tmpfs run run -o mode=755
mount -t proc proc proc
for path; do
    mkdir -p ".$path"
    mount --rbind "$path" ".$path"
    mount -o remount,bind,ro ".$path"
done
# The lab's own directory would show a node the files and keys of all others.
if [ -d ".$lab" ]; then mount -t tmpfs hidden ".$lab" -o mode=700,size=64k; fi
echo "$name" >proc/sys/kernel/hostname
mkdir -p run/sshd .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
# A locked password locks the account for sshd without PAM, keys or not.
if grep -q '^root:!' /etc/shadow; then sed -i 's/^root:!/root:*/' /etc/shadow; fi
exec </dev/null >/run/init.log 2>&1
exec bash -c 'while :; do /usr/sbin/sshd -D -e -f /etc/ssh/sshd_lab_config & wait $!; sleep 1; done' node-init
