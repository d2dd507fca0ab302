#!/usr/bin/env bash
# The table of docs/PERFORMANCE.md in one go: what the machine can do; multicast by size, members and senders; durable
# puts and gets; large values, and small puts beside them; each over tcp and shm, and each figure as a fraction of its
# limit, which is measured in the same run. About five minutes; the machine should have nothing else to do.
#
# usage: table.sh [--seconds N] [--only PART[,PART...]] [--dir DIR] [-o markdown|json]
#   --seconds N   how long each line is measured (2); some take twice as long
#   --only        of: multicast growth latency put get large bulk
#   --dir DIR     where data lie, and the disk is measured (TMPDIR)
#
# Needs python3 and a release build of tradewind (or TRADEWIND=path of the binary).
set -euo pipefail

seconds=2 only=multicast,growth,latency,put,get,large,bulk above=${TMPDIR:-/tmp} format=markdown
while (($# > 0)); do
    case $1 in
    --seconds) seconds=${2:?} ;;
    --only) only=${2:?} ;;
    --dir) above=${2:?} ;;
    -o) format=${2:?} ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
    shift 2
done
here=$(cd "$(dirname "$0")" && pwd)
tradewind=$(realpath "${TRADEWIND:-$here/../../target/release/tradewind}")
[ -x "$tradewind" ] || {
    echo "$tradewind is missing: cargo build --release" >&2
    exit 2
}
dir=$(mktemp -d "$above/table.XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/out"
cd "$dir" # multicast has no --dir: it measures the disk here

number=0
# bench PART ARGUMENTS OF `tradewind bench`: one run, kept for the table.
bench() {
    local part=$1 out
    shift
    number=$((number + 1))
    out=$(printf '%s/out/%02d.%s.json' "$dir" "$number" "$part")
    echo "$part: bench $*" >&2
    "$tradewind" bench "$@" -o json >"$out"
}
# nodes PART WHAT ARGUMENTS: the same of nodes with a disk, over either fabric.
nodes() {
    local part=$1 what=$2 fabric
    shift 2
    for fabric in tcp shm; do
        bench "$part" "$what" --fabric "$fabric" --dir "$dir/nodes" "$@"
        rm -rf "$dir/nodes"
    done
}
longer=$(python3 -c 'import sys; print(2 * float(sys.argv[1]))' "$seconds")
began=$SECONDS

for part in ${only//,/ }; do
    case $part in
    multicast) bench multicast multicast --members 3 --size 100,1024,10240,1048576 --seconds "$seconds" ;;
    growth) bench growth multicast --members 2,4,8,16 --size 100 --seconds "$seconds" ;;
    latency) bench latency multicast --members 2,3 --size 100 --inflight 1 --seconds "$seconds" ;;
    put) nodes put put --size 256 --inflight 1,16,256 --seconds "$seconds" ;;
    get)
        nodes get get --size 256 --linearizable --inflight 1,16,256 --seconds "$seconds"
        bench get get --size 256 --inflight 1,256 --dir "$dir/nodes" --seconds "$seconds"
        rm -rf "$dir/nodes"
        ;;
    large) nodes large put --size 1048576 --inflight 16 --keys 64 --seconds "$longer" ;;
    bulk) nodes bulk bulk --object 104857600 --objects 1 --size 256 --inflight 1,16 --seconds "$longer" ;;
    *)
        echo "--only: found $part; allowed are multicast, growth, latency, put, get, large, bulk" >&2
        exit 2
        ;;
    esac
done

python3 - "$dir/out" "$format" "$((SECONDS - began))" <<'TABLE'
import json, os, platform, statistics, sys

out, form, took = sys.argv[1], sys.argv[2], sys.argv[3]
runs = [(name.split(".")[1], json.load(open(f"{out}/{name}"))) for name in sorted(os.listdir(out))]


def line(what, fabric, group, size, inflight, rate, p50, p99, cpu, fractions, note=""):
    return {"what": what, "fabric": fabric, "group": group, "size": size, "in_flight": inflight, "per_second": rate,
            "mb_per_second": None if rate is None else rate * size / 1e6, "p50_us": p50, "p99_us": p99,
            "cpu_us": cpu, "of_limits": fractions, "note": note}


def of_row(what, setting, row, note=""):
    latency = row["latency_us"]
    if row["errors"]:
        note = f"{row['errors']} errors: {row['first_error']}; {note}"
    return line(what, setting["fabric"], f"{setting['nodes']} nodes", setting["value_bytes"], row["inflight"],
                row["per_second"], latency["p50"], latency["p99"], row["cpu_us_per_operation"]["total"],
                row["of_limits"], note)


def lines_of(part, run):
    if part in ("multicast", "growth", "latency"):
        for row in run["rows"]:
            yield line("multicast", row["fabric"], f"{row['members']} members, {row['senders']} send", row["size"],
                       f"{run['inflight']} each", row["messages_per_second"], row["latency_p50_us"],
                       row["latency_p99_us"], row["cpu_us_per_message"], row["of_limits"])
    elif part == "bulk":
        setting = run["setting"]
        for found in run["lines"]:
            objects = found["objects"]
            mib = objects["bytes_each"] / 2**20
            yield of_row("put alone", setting, found["alone"])
            yield of_row("put beside objects", setting, found["beside"],
                         f"p50 x {found['p50_ratio']:.1f}, p99 x {found['p99_ratio']:.1f}")
            yield line("objects beside puts", setting["fabric"], f"{setting['nodes']} nodes", objects["bytes_each"],
                       objects["at_a_time"], objects["mb_per_second"] * 1e6 / objects["bytes_each"], None, None, None,
                       objects["of_limits"], f"{objects['acknowledged']} of {mib:.0f} MiB")
    else:
        setting = run["setting"]
        for row in run["rows"]:
            yield of_row(f"{setting['operation']}, {setting['level']}", setting, row)


table = [dict(found, part=part) for part, run in runs for found in lines_of(part, run)]
names = sorted({name for _, run in runs for name in run["limits"]})
limits = {name: statistics.median(values) for name in names
          if (values := [run["limits"][name] for _, run in runs if run["limits"][name] is not None])}
setting = {"cores": os.cpu_count(), "system": platform.platform(), "load_after": os.getloadavg()[0],
           "took_seconds": int(took), "runs": len(runs),
           "builds": sorted({run.get("build") or run["setting"]["build"] for _, run in runs})}
if form == "json":
    json.dump({"setting": setting, "limits": limits, "lines": table}, sys.stdout, indent=1)
    print()
    sys.exit()


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def figure(value):
    return "-" if value is None else number(value, 0 if value >= 100 else 1)


def size(value):
    for unit, of in (("MiB", 2**20), ("KiB", 2**10)):
        if value >= of and value % of == 0:
            return f"{value // of} {unit}"
    return f"{value} B"


def percent(value):
    return "-" if value is None else f"{value * 100:.1f} %"


print(f"{setting['cores']} cores for everything, {', '.join(setting['builds'])} build, TLS, {setting['system']}; "
      f"{setting['runs']} runs in {took} s; load {setting['load_after']:.1f} at the end.\n")
print("| limit (median of all runs) | |\n|---|---|")
told = {"fdatasync_per_second": ("4 KiB append + fdatasync, one file", "/s", 1),
        "fdatasync_p50_us": ("the same, p50", " us", 1),
        "disk_stream_bytes_per_second": ("long appends + fdatasync, one file", " MB/s", 1e6),
        "tcp_round_trip_p50_us": ("loopback TCP round trip, p50", " us", 1),
        "tcp_stream_bytes_per_second": ("one loopback TCP connection", " MB/s", 1e6),
        "memory_round_trip_us": ("a word to and fro between two cores", " us", 1),
        "memory_copy_bytes_per_second": ("one core copying memory", " MB/s", 1e6)}
for name in sorted(limits, key=lambda name: list(told).index(name) if name in told else len(told)):
    value, (text, unit, by) = limits[name], told.get(name, (name, "", 1))
    print(f"| {text} | {number(value / by, 2 if value / by < 10 else 0)}{unit} |")
for part in dict.fromkeys(found["part"] for found in table):
    print(f"\n**{part}**\n")
    print("| what | fabric | group | size | in flight | /s | MB/s | p50 us | p99 us | CPU us "
          "| of latency | ops/sync | of TCP stream | of copying | of disk | |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for found in (found for found in table if found["part"] == part):
        of = found["of_limits"]
        cells = [found["what"], found["fabric"], found["group"], size(found["size"]), found["in_flight"],
                 figure(found["per_second"]), figure(found["mb_per_second"]), figure(found["p50_us"]),
                 figure(found["p99_us"]), figure(found["cpu_us"]), percent(of["latency"]),
                 "-" if of["operations_per_sync"] is None else f"{of['operations_per_sync']:.1f}",
                 percent(of["tcp_stream"]), percent(of["memory_copy"]), percent(of["disk_stream"]), found["note"]]
        print("| " + " | ".join(str(cell) for cell in cells) + " |")
TABLE
