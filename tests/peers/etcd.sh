#!/usr/bin/env bash
# Measures durable puts into a three-node etcd on this machine, or linearizable gets out of it, for comparison:
# etcd's defaults (fsync before it answers), loopback, plain gRPC. Prints one line of JSON for each number in flight.
#
# usage: etcd.sh [--work put|get] [--size BYTES] [--inflight N[,N...]] [--seconds N] [--dir DIR]
#
# Needs Debian's etcd-server, golang-etcd-server-dev and golang-go. --dir says on which disk the data
# lies (default: a directory made in $TMPDIR or /tmp); what is made there is removed on exit.
set -euo pipefail

work=put size=256 inflight=256 seconds=10 above=${TMPDIR:-/tmp}
while (($# > 0)); do
    case $1 in
    --work) work=$2 ;;
    --size) size=$2 ;;
    --inflight) inflight=$2 ;;
    --seconds) seconds=$2 ;;
    --dir) above=$2 ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
    shift 2
done
for program in etcd go curl python3 setpriv; do
    command -v "$program" >/dev/null || {
        echo "$program is missing: apt-get install etcd-server golang-go golang-etcd-server-dev" \
            "curl python3 util-linux" >&2
        exit 2
    }
done

here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d "$above/etcd-peer.XXXXXX")
pids=()
stop() {
    trap - EXIT
    ((${#pids[@]} == 0)) || kill -KILL "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS= \
    go build -o "$dir/etcdload" "$here/etcdload/main.go"

# Six free ports: for each member one for clients and one for its peers.
mapfile -t ports < <(python3 - <<'PORTS'
import socket
sockets = [socket.socket() for _ in range(6)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets), sep="\n")
PORTS
)
cluster="" endpoints=""
for n in 0 1 2; do
    cluster+="${cluster:+,}node$n=http://127.0.0.1:${ports[n + 3]}"
    endpoints+="${endpoints:+,}127.0.0.1:${ports[n]}"
done
for n in 0 1 2; do
    client=http://127.0.0.1:${ports[n]} peer=http://127.0.0.1:${ports[n + 3]}
    # The kernel ends a member when this script is gone, even if it was killed.
    setpriv --pdeathsig KILL etcd --name "node$n" --data-dir "$dir/node$n" \
        --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
        --initial-cluster "$cluster" --initial-cluster-token "$(basename "$dir")" \
        --log-level error --quota-backend-bytes $((8 << 30)) >"$dir/node$n.log" 2>&1 &
    pids+=($!)
done

# A member is healthy once it can commit, so the last of them says that all are there.
healthy() {
    local port
    for port in "${ports[@]:0:3}"; do
        [[ $(curl -fsS -m 2 "http://127.0.0.1:$port/health" 2>/dev/null) == *'"true"'* ]] || return 1
    done
}
deadline=$((SECONDS + 60))
until healthy; do
    if ((SECONDS >= deadline)); then
        echo "etcd did not start:" >&2
        tail -n 5 "$dir"/node*.log >&2
        exit 1
    fi
    sleep 0.2
done

members=$(IFS=,; echo "${pids[*]}")
for n in ${inflight//,/ }; do
    # In the background, so that a signal to this script is not kept waiting.
    setpriv --pdeathsig KILL "$dir/etcdload" -endpoints "$endpoints" -pids "$members" \
        -work "$work" -size "$size" -inflight "$n" -seconds "$seconds" &
    wait $!
done
