# PostgreSQL with pgbench running, and a session that keeps a temporary table and an open transaction.
PATH=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH
export PGHOST=$F PGUSER=somebody PGDATABASE=postgres
postgres -D "$F/data" -k "$F" -c listen_addresses= -c fsync=off >"$F/postgres.log" 2>&1 &
until pg_isready -q; do sleep 0.1; done
pgbench -i -q >"$F/pgbench.log" 2>&1
pgbench -n -c 3 -T 100000 -P 1 >>"$F/pgbench.log" 2>&1 &
wrong() {
  echo "WRONG $*"
  exit 3
}
coproc psql -qAt -v ON_ERROR_STOP=1 2>&1
ask() {
  echo "$1" >&"${COPROC[1]}"
  read -r answer <&"${COPROC[0]}"
}
echo 'create temporary table counter as select 0 as n; prepare step as update counter set n = n + 1 returning n;' >&"${COPROC[1]}"
for ((round = 1; ; round++)); do
  echo 'begin;' >&"${COPROC[1]}"
  ask 'execute step;'
  [ "$answer" = "$round" ] || wrong "$answer in round $round"
  sleep 0.05
  echo 'commit;' >&"${COPROC[1]}"
  # Each transaction of pgbench changes all of these by the same amount.
  ask 'select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches);'
  [ "$answer" = t ] || wrong "balances: $answer"
  grep -qiE 'error|fatal|aborted' "$F/pgbench.log" && wrong 'pgbench'
  echo "round $round"
done
