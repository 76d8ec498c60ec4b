#!/usr/bin/env bash
# Does for a few seconds what the benchmark records: programs are executed, files are opened, written, renamed, made executable
# and removed, addresses are connected to. Nothing outside of a new folder below /tmp changes.
#
#   bash mix.sh [rounds]        a round is about 11,000 events; 20 if not said
set -u
work=$(mktemp -d) && cd "$work" || exit 1
trap 'rm -rf "$work"' EXIT

# A small project, so that what is read and copied is the same everywhere.
mkdir -p project/{src,include,doc,bin} cache
for n in {1..120}; do
    for file in "src/part_$n.c" "include/part_$n.h" "doc/part_$n.txt"; do echo "part $n of the project" >"project/$file"; done
done

# Files are read by name, one by one, as compilers and interpreters do.
read_files() {
    cat project/src/*.c project/include/*.h >/dev/null
    grep -rl "part 7 " project >/dev/null
    cat /etc/passwd /etc/hosts /etc/resolv.conf /etc/nsswitch.conf /usr/lib/os-release >/dev/null 2>&1
    for n in {1..400}; do : <"project/src/part_$((n % 120 + 1)).c"; done
    for n in {1..120}; do [ -r "missing/part_$n.h" ] || : <"project/doc/part_$n.txt"; done
}

# Small programs, with pipes and shells between them.
run_programs() {
    for n in {1..24}; do
        ls -l project/src | sort | head -n "$n" >/dev/null
        sh -c 'id -un; date +%s; uname -r' >/dev/null
        find project -name '*.h' -newer project/src/part_1.c >/dev/null
    done
    env LC_ALL=C sed -n 1p project/src/part_1.c | tr a-z A-Z >/dev/null
}

# Files change: built, installed, tidied up.
change_files() {
    cp -r project "cache/copy"
    for n in {1..15}; do
        mv "cache/copy/src/part_$n.c" "cache/copy/src/part_$n.c.bak"
        chmod 755 "cache/copy/src/part_$n.c.bak"
        ln -s part_1.h "cache/copy/include/link_$n.h"
    done
    rm -r cache/copy
}

# Datagrams need nobody at the other end, and streams are refused by the loopback: both connect.
connect() {
    for n in {1..120}; do
        : >"/dev/udp/127.0.0.$((n % 250 + 1))/53"
        : >"/dev/tcp/127.0.0.1/$((40000 + n))"
    done 2>/dev/null
}

for ((round = 0; round < ${1:-20}; round++)); do
    read_files
    run_programs
    change_files
    connect
done
