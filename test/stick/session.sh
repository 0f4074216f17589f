#!/bin/sh
# The session that travels (test/stick/): a shell that keeps secrets in its memory, a game, and programs that check
# themselves. Arguments: the file with a secret, the game's seed, the programs.
read -r secret <"$1"
# Only this very shell has it; one that was started anew would have another.
read -r born </proc/sys/kernel/random/uuid
seed=$2
shift 2
trap 'echo "$secret $born" >/home/answer' USR1
for check; do
  "/home/checks/$check" "/home/work/$check" &
done
/bin/node /home/life.js --seed "$seed" --delay 200 &
# A signal ends the waiting, not the session.
while kill -0 "$!" 2>/dev/null; do wait; done
