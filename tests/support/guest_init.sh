#!/bin/sh
# The first process of the test guest. It mounts the disk, starts a guest agent and a writer, and
# then obeys what comes over the serial line, a shell command per line.
# shellcheck disable=SC2119,SC2120 # options for the agent come over the serial line
export PATH=/bin
mkdir -p /proc /sys /dev /run /data
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

while read -r module; do
  insmod "/modules/$module.ko"
done </modules/order

port=
until [ -b /dev/vda ] && [ -n "$port" ]; do
  usleep 10000
  port=$(grep -ls org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name)
done
port=${port%/name}
mount -t ext4 /dev/vda /data

# Appends a number and has it on the disk, over and over: it halts while the disk is frozen.
writer() {
  number=0
  while :; do
    number=$((number + 1))
    echo "$number" >>/data/sequence
    sync -d /data/sequence
    echo "sequence $number"
    usleep 20000
  done
}

# Starts the agent with the options given.
agent() {
  qemu-ga --path "/dev/${port##*/}" --statedir /run --pidfile /run/qemu-ga.pid "$@" \
    </dev/null >/dev/null 2>&1 &
}

# A hook of the agent's that delays freezing by as many seconds as /run/delay says.
cat >/run/slow-hook <<'HOOK'
#!/bin/sh
[ "$1" = freeze ] && sleep "$(cat /run/delay)"
echo "hook $1" >/dev/ttyS0
HOOK
chmod 755 /run/slow-hook

exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
writer &
agent
echo "guest up"
while read -r line; do
  eval "$line"
done
