#!/usr/bin/env bash
# Durable puts into three local nodes, Tradewind and etcd in turn on the same machine and disk; prints a table (or, with
# -o json, everything as JSON) of the medians and their ratio.
#
# usage: compare.sh [--size BYTES] [--inflight N[,N...]] [--seconds N] [--rounds N] [--dir DIR] [-o json]
#        [-- ARGUMENTS OF `tradewind bench put`]
#
# Needs what etcd.sh needs, and a release build of tradewind (or TRADEWIND=path of the binary).
set -euo pipefail

size=256 inflight=1,16,256 seconds=5 rounds=3 above=${TMPDIR:-/tmp} format=text extra=()
while (($# > 0)); do
    case $1 in
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
    echo "round $round of $rounds" >&2
    "$tradewind" bench put --size "$size" --inflight "$inflight" --seconds "$seconds" \
        --dir "$dir/tradewind" "${extra[@]}" -o json >"$dir/tradewind.$round.json"
    rm -rf "$dir/tradewind"
    "$here/etcd.sh" --size "$size" --inflight "$inflight" --seconds "$seconds" --dir "$dir" >"$dir/etcd.$round.json"
done

python3 - "$dir" "$rounds" "$format" <<'TABLE'
import json, statistics, sys

dir, rounds, format = sys.argv[1], int(sys.argv[2]), sys.argv[3]
tradewind = [json.load(open(f"{dir}/tradewind.{n}.json")) for n in range(1, rounds + 1)]
etcd = [[json.loads(line) for line in open(f"{dir}/etcd.{n}.json")] for n in range(1, rounds + 1)]


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


table = []
for index, row in enumerate(tradewind[0]["rows"]):
    ours_now = medians([ours(run["rows"][index]) for run in tradewind])
    theirs_now = medians([theirs(run[index]) for run in etcd])
    table.append({"inflight": row["inflight"], "tradewind": ours_now, "etcd": theirs_now,
                  "throughput_ratio": ours_now["per_second"] / theirs_now["per_second"],
                  "cpu_ratio": theirs_now["cpu_us"] / ours_now["cpu_us"]})

if format == "json":
    print(json.dumps({"rounds": rounds, "setting": tradewind[0]["setting"], "limits": tradewind[0]["limits"],
                      "medians": table, "runs": {"tradewind": tradewind, "etcd": etcd}}, indent=2))
else:
    print(f"medians of {rounds} rounds in turn; {json.dumps(tradewind[0]['setting'])}\n")
    head = ["in flight", "", "ops/s", "p50 us", "p99 us", "max us", "CPU us/op"]
    line = "{:>9}  {:<10}{:>10}{:>10}{:>10}{:>10}{:>12}"
    print(line.format(*head))
    for row in table:
        for name in ("tradewind", "etcd"):
            of = row[name]
            print(line.format(row["inflight"], name, f"{of['per_second']:.0f}", f"{of['p50_us']:.0f}",
                              f"{of['p99_us']:.0f}", f"{of['max_us']:.0f}", f"{of['cpu_us']:.1f}"))
        print(f"{'':>11}{row['throughput_ratio']:.1f} times the throughput, CPU time by operation "
              f"{row['cpu_ratio']:.1f} times less\n")
TABLE
