#!/bin/bash
# A loop of a pipeline of three commands in a shell that checks what comes out: many short-lived processes, pipes
# with content, a shell that waits.
#
#     bash examples/pipeline.sh [ROUNDS]
#
# Each round numbers go through tr, sort and awk; the sum must be right, rounds must count up by one, and the
# shell's own state (variables, an open descriptor) must hold. Wrong: `pipeline: WRONG: …`,
# status 1.
set -u
rounds=${1:-0}
round=0
sum_of_sums=0
log=$(mktemp)
exec 7<>"$log"
trap 'rm -f "$log"' EXIT
wrong() {
  echo "pipeline: WRONG: $1"
  exit 1
}
while [ "$rounds" -eq 0 ] || [ "$round" -lt "$rounds" ]; do
  round=$((round + 1))
  # The first command trickles, so that a suspend at any moment finds the pipeline at work.
  result=$(
    for n in 1 2 3 4 5 6 7 8; do
      echo "$((n * round)),"
      sleep 0.02
    done | tr -d , | sort -n | awk '{ sum += $1; last = $1 } END { print sum, last, NR }'
  )
  read -r sum last lines <<<"$result"
  [ "$lines" = 8 ] || wrong "round $round: $lines lines of 8"
  [ "$sum" = $((36 * round)) ] || wrong "round $round: the sum is $sum, not $((36 * round))"
  [ "$last" = $((8 * round)) ] || wrong "round $round: the last is $last, not $((8 * round))"
  sum_of_sums=$((sum_of_sums + sum))
  [ "$sum_of_sums" = $((18 * round * (round + 1))) ] || wrong "round $round: a round was lost or doubled"
  echo "$round" >&7 || wrong "descriptor 7 is gone"
  echo "round $round sum $sum_of_sums pid $$"
done
echo "pipeline: done"
