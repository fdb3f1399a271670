# What the benchmark scripts share; to be sourced, with $out a folder for temporary files and a function `table` that prints
# tables: a row per line, cells divided by |, the first line a head, and an empty line between two tables.

# Runs a command, its output to $out/log; sets `seconds`, `cpu` (seconds of all threads) and `peak` (MB, 10^6 bytes) and gives the command's exit status. The
# launcher becomes the JVM (exec), so its process is the one to watch.
measure() {
    local status=0 begin end user system
    peak=- cpu=-
    if /usr/bin/time -f '%e' true 2>/dev/null; then
        /usr/bin/time -f '%e %U %S %M' -o "$out/time" "$@" >"$out/log" 2>&1 || status=$?
        read -r seconds user system peak < <(tail -n 1 "$out/time")
        cpu=$(awk "BEGIN {printf \"%.2f\", $user + $system}")
    else
        begin=$EPOCHREALTIME
        "$@" >"$out/log" 2>&1 &
        while kill -0 $! 2>/dev/null; do
            peak=$(awk '/^VmHWM:/ {print $2}' "/proc/$!/status" 2>/dev/null | grep . || echo "$peak")
            sleep 0.02
        done
        wait $! || status=$?
        end=$EPOCHREALTIME
        seconds=$(awk "BEGIN {printf \"%.2f\", $end - $begin}")
    fi
    [[ $peak == - ]] || peak=$(awk "BEGIN {printf \"%.0f\", $peak * 1024 / 1e6}")
    return $status
}

machine() {
    local cpu memory jdk
    cpu=$(awk -F': *' '/^model name/ {print $2; exit}' /proc/cpuinfo 2>/dev/null || true)
    memory=$(awk '/^MemTotal/ {printf "%.0f GB", $2 * 1024 / 1e9}' /proc/meminfo 2>/dev/null || true)
    jdk=$("${JAVA_HOME:+$JAVA_HOME/bin/}java" -XshowSettings:properties -version 2>&1 |
        awk -F' = ' '/java.vm.name/ {name = $2} /java.runtime.version/ {version = $2} END {print name, version}')
    echo "${cpu:-$(uname -m)}, $(getconf _NPROCESSORS_ONLN) cores, ${memory:-unknown} memory, $jdk, $(uname -sm)"
}

print_plain() {
    table | awk -F'|' '{for (i = 1; i <= NF; i++) {cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i)} cells[NR] = NF}
        END {for (r = 1; r <= NR; r++) {n = cells[r]; line = ""; for (i = 1; i <= n; i++) line = line sprintf(i == 1 || i == n ? "%-*s  " : "%*s  ", width[i], cell[r, i])
            sub(/ +$/, "", line); print line}}'
}

print_markdown() {
    echo "Machine: $(machine). Date: $(date -u +%F). Commit: $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)."
    echo
    table | awk -F'|' 'NF {line = "|"; rule = "|---|"; for (i = 1; i <= NF; i++) {line = line " " $i " |"; if (i > 1) rule = rule (i < NF ? "--:|" : "---|")} print line}
        !NF {print ""} NR == 1 || !before {if (NF) print rule} {before = NF}'
}
