#!/bin/sh
# startup.sh PROGRAM - how long the small verbs take: the median of 21 starts, in milliseconds.
program=$1
home=${MIXRUN_HOME:-.}
median() {
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do
        began=$(date +%s%N)
        "$@" >/dev/null 2>&1 || { echo "'$*' failed"; exit 1; }
        echo $((($(date +%s%N) - began) / 10000))
    done | sort -n | sed -n 11p | sed 's/\(..\)$/.\1/'
}
printf '  true                      %s ms (what starting any program costs here)\n' "$(median true)"
printf '  mixrun --help             %s ms (aim: under 10)\n' "$(median "$program" --help)"
printf '  mixrun validate RECIPE    %s ms (aim: under 50)\n' "$(median "$program" validate "$home/configs/arc_obqa.yaml")"
