#!/usr/bin/env bash
# Durable puts into three local nodes, and linearizable gets out of them, Tradewind and etcd in turn on the same machine
# and disk; prints a table (or, with -o json, everything as JSON) of the medians and their ratio.
#
# usage: compare.sh [--work put,get] [--size BYTES] [--inflight N[,N...]] [--seconds N] [--rounds N] [--dir DIR] [-o json]
#        [-- ARGUMENTS OF `tradewind bench put` AND `get`]
#
# Needs what etcd.sh needs, and a release build of tradewind (or TRADEWIND=path of the binary).
set -euo pipefail

work=put,get size=256 inflight=1,16,256 seconds=5 rounds=3 above=${TMPDIR:-/tmp} format=text extra=()
while (($# > 0)); do
    case $1 in
    --work) work=$2 ;;
    --size) size=$2 ;;
    --inflight) inflight=$2 ;;
    --seconds) seconds=$2 ;;
    --rounds) rounds=$2 ;;
    --dir) above=$2 ;;
    -o) format=$2 ;;
    --)
        shift
        extra=("$@")
        break
        ;;
    *)
        sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
    shift 2
done
here=$(cd "$(dirname "$0")" && pwd)
tradewind=${TRADEWIND:-$here/../../target/release/tradewind}
[ -x "$tradewind" ] || {
    echo "$tradewind is missing: cargo build --release" >&2
    exit 2
}
dir=$(mktemp -d "$above/compare.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# In turn, so that whatever else the machine does meets both.
for ((round = 1; round <= rounds; round++)); do
    for kind in ${work//,/ }; do
        echo "round $round of $rounds: $kind" >&2
        level=()
        [ "$kind" != get ] || level=(--linearizable)
        "$tradewind" bench "$kind" "${level[@]}" --size "$size" --inflight "$inflight" --seconds "$seconds" \
            --dir "$dir/tradewind" "${extra[@]}" -o json >"$dir/tradewind.$kind.$round.json"
        rm -rf "$dir/tradewind"
        "$here/etcd.sh" --work "$kind" --size "$size" --inflight "$inflight" --seconds "$seconds" \
            --dir "$dir" >"$dir/etcd.$kind.$round.json"
    done
done

python3 - "$dir" "$rounds" "$work" "$format" <<'TABLE'
import json, os, statistics, sys

dir, rounds, work, format = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(","), sys.argv[4]


def runs_of(kind):
    names = [f"{kind}.{n}.json" for n in range(1, rounds + 1)]
    ours = [json.load(open(f"{dir}/tradewind.{name}")) for name in names]
    theirs = [[json.loads(line) for line in open(f"{dir}/etcd.{name}")] for name in names]
    return {"tradewind": ours, "etcd": theirs}


def ours(row):
    latency, cpu = row["latency_us"], row["cpu_us_per_operation"]
    return {"per_second": row["per_second"], "p50_us": latency["p50"], "p99_us": latency["p99"],
            "max_us": latency["max"], "cpu_us": cpu["total"], "errors": row["errors"]}


def theirs(row):
    return {"per_second": row["ops_per_s"], "p50_us": row["p50_ms"] * 1e3, "p99_us": row["p99_ms"] * 1e3,
            "max_us": row["max_ms"] * 1e3, "errors": row["errors"],
            "cpu_us": row["cpu_us_per_op_client"] + row["cpu_us_per_op_servers"]}


def medians(rows):
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def compare(runs):
    table = []
    for index, row in enumerate(runs["tradewind"][0]["rows"]):
        ours_now = medians([ours(run["rows"][index]) for run in runs["tradewind"]])
        theirs_now = medians([theirs(run[index]) for run in runs["etcd"]])
        table.append({"inflight": row["inflight"], "tradewind": ours_now, "etcd": theirs_now,
                      "throughput_ratio": ours_now["per_second"] / theirs_now["per_second"],
                      "cpu_ratio": theirs_now["cpu_us"] / ours_now["cpu_us"]})
    return table


def show(setting, table):
    print(f"medians of {rounds} rounds in turn, load {os.getloadavg()[0]:.0f}; {json.dumps(setting)}\n")
    line = "{:>9}  {:<10}{:>10}{:>10}{:>10}{:>10}{:>12}"
    print(line.format("in flight", "", "ops/s", "p50 us", "p99 us", "max us", "CPU us/op"))
    for row in table:
        for name in ("tradewind", "etcd"):
            of = row[name]
            print(line.format(row["inflight"], name, f"{of['per_second']:.0f}", f"{of['p50_us']:.0f}",
                              f"{of['p99_us']:.0f}", f"{of['max_us']:.0f}", f"{of['cpu_us']:.1f}"))
        print(f"{'':>11}{row['throughput_ratio']:.1f} times the throughput, CPU time by operation "
              f"{row['cpu_ratio']:.1f} times less\n")


runs = {kind: runs_of(kind) for kind in work}
if format == "json":
    results = {kind: {"setting": of["tradewind"][0]["setting"], "limits": of["tradewind"][0]["limits"],
                      "medians": compare(of), "runs": of} for kind, of in runs.items()}
    print(json.dumps({"rounds": rounds, "results": results}, indent=2))
else:
    for of in runs.values():
        show(of["tradewind"][0]["setting"], compare(of))
TABLE
