#!/bin/sh
# Ranks of MPI: test_mpi.sh LIBRARY_FOLDER. For each MPI that is installed (Open MPI, MPICH): the
# communicator of mmopt_mpi.h on 1 to 4 ranks, and ranks that end, stall, give up or differ; training on
# 1, 2 and 4 ranks against one process, with the bytes of a step; a rank that ends or stalls while it
# trains, and the resume; local steps; models on different ranks, and groups of those; shards of the state;
# the example. Then two network namespaces as two hosts, where it runs as root. Installs Open MPI where it
# runs as root and apt has it; says so where there is no MPI.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
libraries=$(cd "$1" && pwd)

if ! command -v mpicc >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y -q libopenmpi-dev openmpi-bin >/dev/null 2>&1 || true
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
major=$(sed -n 's/^version = "\([0-9]*\).*/\1/p' Cargo.toml | head -n 1)
ln -s "$libraries/libmmopt.so" "$work/libmmopt.so"
ln -s "$libraries/libmmopt.so" "$work/libmmopt.so.$major"

# compile MPICC SOURCE
compile() {
    "$1" -std=c99 -D_POSIX_C_SOURCE=200809L -DJOINT_TRAIN_MPI -Wall -Wextra -Wpedantic -Werror \
        -Iinclude -Iexamples/c "$2" -o "$work/$(basename "$2" .c)" "-L$work" -lmmopt -lm "-Wl,-rpath,$work"
}

# The two launchers, and how each lets ranks live on when one has ended. That of MPICH 4.0 may end all of
# them in spite of its flag, so a shell around each rank hides for a while that it was killed.
open_mpi() {
    n=$1
    shift
    timeout 300 mpirun.openmpi --allow-run-as-root --oversubscribe -quiet --enable-recovery -n "$n" "$@"
}
mpich() {
    n=$1
    shift
    # shellcheck disable=SC2016
    timeout 300 mpiexec.mpich -disable-auto-cleanup -n "$n" \
        sh -c 'trap "" USR1; "$@"; code=$?; [ $code -lt 128 ] || sleep 12; exit $code' sh "$@"
}

# Ranks end without MPI_Finalize in these, so what the launcher returns says nothing: each surviving
# rank prints a line.
survivors() {
    launcher=$1 n=$2 mode=$3
    rm -f "$work"/rank.*
    "$launcher" "$n" "$work/check" "$mode" "$work" >"$work/log" 2>&1 || true
    # Some launchers do not wait for the others when a rank has ended.
    for _ in $(seq 20); do
        if [ "$(cat "$work"/rank.* | grep -c '^rank . after')" = $((n - 1)) ]; then break; fi
        sleep 1
    done
    if [ "$(cat "$work"/rank.* | grep -c '^rank . after')" != $((n - 1)) ] || grep failed: "$work"/rank.*; then
        cat "$work/log" "$work"/rank.*
        echo "FAILED: $launcher, a rank that $mode"
        exit 1
    fi
    cat "$work/rank.0"
}

fail() {
    echo "FAILED: $*"
    exit 1
}

# train NAME RANKS ARGUMENTS: in a folder of its own, with one log for each rank.
train() {
    name=$1 n=$2
    shift 2
    mkdir -p "$work/$name"
    "$launcher" "$n" "$work/train" "$work/$name" "$@" >"$work/log" 2>&1 || {
        cat "$work/log" "$work/$name"/rank.*
        fail "$launcher: $name"
    }
}

# as_alone NAME RANKS: losses within 1e-5 of those of one process, equal weights on all ranks.
as_alone() {
    for rank in $(seq 0 $(($2 - 1))); do
        paste -d ' ' "$work/alone/rank.0" "$work/$1/rank.$rank" | awk -v what="$1, rank $rank" '
            $1 == "step" { for (i = 4; i <= 5; i++) { d = $i - $(i + 5); if (d < 0) d = -d
                           if (d > most) most = d } n++ }
            END { if (n != 16 || most > 1e-5) { print "FAILED: " what ": " n " steps, " most; exit 1 } }'
    done
    [ "$(grep -h ^weights "$work/$1"/rank.* | sort -u | wc -l)" = 1 ] || fail "$1: replicas differ"
    grep ^sent "$work/$1/rank.0" | awk -v n="$2" -v what="$1" '
        { least = 2 * $7 * (n - 1) / n; ratio = least > 0 ? $2 / least : 1
          printf "%s: losses as alone, %d bytes a step, %.4f of 2 x gradients x (n - 1) / n\n", what, $2, ratio
          exit ratio > 1.01 }' || fail "$1: too many bytes"
}

# The last rank ends or stalls before step 8: the others say so in time, and the resume is exact.
survives() {
    how=$1
    mkdir -p "$work/$how"
    "$launcher" 2 "$work/train" "$work/$how" 16 "$how" 8 >"$work/log" 2>&1 || true
    for _ in $(seq 20); do
        if grep -q '^saved' "$work/$how/rank.0"; then break; fi
        sleep 1
    done
    grep '^after' "$work/$how/rank.0" || { cat "$work/log" "$work/$how"/rank.*; fail "$launcher: $how"; }
    if grep failed: "$work/$how/rank.0"; then fail "$launcher: $how"; fi
    train "$how" 2 16 resume
    [ "$(grep ^weights "$work/$how/rank.1")" = "$(grep ^weights "$work/2_ranks/rank.1")" ] ||
        fail "$launcher: the resume after a rank that $how is not exact"
    train "$how" 1 16 resume
    echo "$launcher: resumed exactly after a rank that $how, and on 1 rank"
}

# same_weights NAME OTHER: every rank of the one has the weights of the other's rank 0.
same_weights() {
    [ "$(grep -h ^weights "$work/$1"/rank.* "$work/$2/rank.0" | sort -u | wc -l)" = 1 ] ||
        fail "$launcher: $1 has other weights than $2"
}

# A model on each rank: the bits of one process, bytes as the plan says, checkpoints both ways, and a rank that
# ends or stalls.
placement() {
    rm -rf "$work/teachers" "$work/placed" "$work/narrow" "$work/to_one" "$work/to_two" "$work"/placed_*
    train teachers 1 16 teachers alone
    train placed 2 16 teachers placed
    same_weights placed teachers
    # 30 probabilities in a pass, of which half go each way; 5 of 16 steps synchronise.
    awk '/^ranks: / { split($0, told, "rank sends: "); split(told[2], n, " ")
                      planned = n[1] + n[5] + n[9] * 5 / 16 + 60 * 2 }
         /^sent/ { printf "placed: weights as in one process, %d bytes a step, %d by the plan\n", $2, planned
                   exit $2 > 1.01 * planned }' "$work/placed/rank.0" || fail "placed: too many bytes"
    train narrow 2 16 teachers placed bf16
    [ "$(grep -h ^weights "$work/narrow"/rank.* | sort -u | wc -l)" = 1 ] || fail "placed, bf16: ranks differ"
    train to_one 2 8 teachers placed save
    rm "$work/to_one/rank.1"
    train to_one 1 16 teachers alone resume
    same_weights to_one teachers
    train to_two 1 8 teachers alone save
    train to_two 2 16 teachers placed resume
    same_weights to_two teachers
    echo "placed: checkpoints go to one process and back exactly"
    for how in ends stalls; do
        mkdir -p "$work/placed_$how"
        "$launcher" 2 "$work/train" "$work/placed_$how" 16 teachers placed "$how" 8 >"$work/log" 2>&1 || true
        for _ in $(seq 20); do
            if grep -q '^saved' "$work/placed_$how/rank.0"; then break; fi
            sleep 1
        done
        grep '^after' "$work/placed_$how/rank.0" || fail "$launcher: placed, a rank that $how"
        if grep failed: "$work/placed_$how/rank.0"; then fail "$launcher: placed, a rank that $how"; fi
    done
}

# Two groups of two ranks with a model on each: the bits of two replicas with both models.
groups() {
    rm -rf "$work/both" "$work/groups"
    train both 2 16 teachers rows 16
    train groups 4 16 teachers placed groups 2 rows 16 every 5
    same_weights groups both
    echo "groups: weights as of 2 replicas; $(sed -n 's/^\(ranks: .*\); bytes.*/\1/p' "$work/groups/rank.3")"
}

# Replicas with parts of the moments, with sums that overlap with passes, and with gradients in bf16.
shards() {
    rm -rf "$work/shards" "$work/bf16" "$work/overlap" "$work/overlap_stalls"
    train shards 2 8 shard every 5 save
    train shards 2 16 shard every 5 resume
    same_weights shards 2_ranks
    echo "shards: weights as of 2 ranks with the whole state"
    train overlap 2 16 overlap every 5
    same_weights overlap 2_ranks
    echo "overlap: weights as of 2 ranks that sum in the step"
    train bf16 4 16 bf16 every 5
    [ "$(grep -h ^weights "$work/bf16"/rank.* | sort -u | wc -l)" = 1 ] || fail "bf16: replicas differ"
    awk '/^sent/ { ratio = $2 / $7 / 0.75; printf "bf16: %.4f of gradients x (n - 1) / n\n", ratio
                   exit ratio > 1.02 }' "$work/bf16/rank.0" || fail "bf16: too many bytes"
}

training() {
    launcher=$1
    rm -rf "$work/alone" "$work"/?_ranks "$work/ends" "$work/stalls" "$work/local" "$work/joint"
    train alone 1 16 alone
    for n in 1 2 4; do
        train "${n}_ranks" "$n" 16 every 5
        as_alone "${n}_ranks" "$n"
    done
    survives ends
    survives stalls
    train local 2 16 local 8
    [ "$(grep -h ^weights "$work/local"/rank.* | sort -u | wc -l)" = 1 ] || fail "local: replicas differ"
    echo "local steps, 8: $(grep ^sent "$work/local/rank.0")"
    placement
    groups
    shards
    "$launcher" 2 "$work/joint_train_mpi" | tail -n 1
    "$launcher" 2 "$work/joint_train_mpi" - - placed | tail -n 1
    "$launcher" 4 "$work/joint_train_mpi" - - groups | tail -n 1
    "$launcher" 2 "$work/joint_train_mpi" - - sharded | tail -n 1
    "$launcher" 2 "$work/joint_train" --mode independent --data synthetic --steps 8 --sync-every 4 --threads 1 --quiet
}

suite() {
    launcher=$1 mpicc=$2
    echo "== $launcher: $("$mpicc" -show | head -c 60)"
    compile "$mpicc" tests/mpi/check.c
    compile "$mpicc" tests/mpi/train.c
    compile "$mpicc" examples/c/joint_train_mpi.c
    compile "$mpicc" examples/c/joint_train.c
    for n in 1 2 3 4; do
        "$launcher" "$n" "$work/check" works
    done
    for mode in ends stalls aborts differs; do
        survivors "$launcher" 3 "$mode"
    done
    training "$launcher"
}

# Two network namespaces as two hosts, joined by a pair of virtual Ethernet devices; Open MPI reaches the
# other by an agent in place of ssh. What leaves a host's device is counted by the system, and a limit on
# its rate shows what the wire costs: the time of a step without limit, and bytes over the rate. Two hosts
# send at once with recursive doubling (4); by itself Open MPI 4 lets one wait for the other.
over_tcp() {
    n=$1
    shift
    timeout 300 ip netns exec "$a" mpirun.openmpi --allow-run-as-root -quiet \
        --mca plm_rsh_agent "$work/agent" --host 10.77.0.1:1,10.77.0.2:1 --mca btl self,tcp \
        --mca coll_libnbc_iallreduce_algorithm 4 \
        --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 \
        -x MMOPT_ORT_LIB -n "$n" "$@"
}

sent_by_host() {
    ip netns exec "$a" cat /sys/class/net/mmopt0/statistics/tx_bytes
}

seconds_of_step() {
    sed -n 's/^sent .* in \(.*\) s$/\1/p' "$work/$1/rank.0"
}

hosts() {
    a=mmopt-a-$$ b=mmopt-b-$$
    if ! ip netns add "$a" 2>/dev/null; then
        echo "not run: two hosts, as network namespaces need root and the tool ip"
        return
    fi
    trap 'ip netns del "$a" 2>/dev/null; ip netns del "$b" 2>/dev/null; rm -rf "$work"' EXIT
    ip netns add "$b"
    ip link add mmopt0 netns "$a" type veth peer name mmopt0 netns "$b"
    for end in "$a 1" "$b 2"; do
        ip -n "${end% *}" addr add "10.77.0.${end#* }/24" dev mmopt0
        ip -n "${end% *}" link set mmopt0 up
        ip -n "${end% *}" link set lo up
    done
    printf '#!/bin/sh\nhost=$1\nshift\ncase $host in *.1) ns=%s ;; *) ns=%s ;; esac\n' "$a" "$b" >"$work/agent"
    printf 'exec ip netns exec $ns sh -c "$*"\n' >>"$work/agent"
    chmod +x "$work/agent"
    echo "== two network namespaces over TCP"
    compile mpicc.openmpi tests/mpi/train.c
    rm -rf "$work/alone" "$work/2_ranks" "$work/ends" "$work/stalls"
    launcher=open_mpi
    train alone 1 16 alone
    launcher=over_tcp
    train 2_ranks 2 16
    as_alone 2_ranks 2
    # Two runs of different length, so that what a run sends besides its steps is left out.
    start=$(sent_by_host)
    train short 2 10
    middle=$(sent_by_host)
    train long 2 30
    end=$(sent_by_host)
    awk -v short=$((middle - start)) -v long=$((end - middle)) '
        /^sent/ { wire = (long - short) / 20; least = $7
                  printf "the device sent %d bytes a step, %.4f of 2 x gradients x (n - 1) / n\n", wire, wire / least
                  exit wire > 1.01 * least }' "$work/long/rank.0" || fail "too many bytes on the wire"
    survives stalls
    bytes=$(sed -n 's/^sent \([0-9.]*\) .*/\1/p' "$work/long/rank.0")
    for rate in 20 50 100; do limited "$rate"; done
}

# The time of a step at a rate, with sums in the step and with sums that overlap with the pass of the last
# model, in medians. By the formula overlap saves that pass, p, or the bytes of the first model, about half.
limited() {
    train free 2 20 rows 60 times
    last=$(sed -n 's/^last pass \(.*\) s$/\1/p' "$work/free/rank.0")
    for ns in "$a" "$b"; do
        ip netns exec "$ns" tc qdisc replace dev mmopt0 root tbf rate "${1}mbit" burst 64kb latency 400ms
    done
    train limited 2 20 rows 60
    train overlapped 2 20 rows 60 overlap
    for ns in "$a" "$b"; do ip netns exec "$ns" tc qdisc del dev mmopt0 root; done
    same_weights overlapped limited
    awk -v free="$(seconds_of_step free)" -v p="$last" -v bytes="$bytes" -v rate="$1" \
        -v measured="$(seconds_of_step limited)" -v overlapped="$(seconds_of_step overlapped)" 'BEGIN {
        wire = 8 * bytes / (rate * 1e6)
        saved = p < wire / 2 ? p : wire / 2
        printf "%d Mbit/s: %.3f s a step, predicted %.3f s, %.2f\n", rate, measured, free + wire,
            measured / (free + wire)
        printf "%d Mbit/s, overlap: %.3f s a step, predicted %.3f s, %.2f\n", rate, overlapped,
            free + wire - saved, overlapped / (free + wire - saved) }'
}

found=no
for both in "open_mpi mpicc.openmpi" "mpich mpicc.mpich"; do
    # shellcheck disable=SC2086
    set -- $both
    if command -v "$2" >/dev/null; then
        found=yes
        suite "$1" "$2"
    else
        echo "not run: no $2"
    fi
done
[ "$found" = yes ] || echo "not run: no MPI"
if command -v mpirun.openmpi >/dev/null; then hosts; fi
