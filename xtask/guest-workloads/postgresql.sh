#!/bin/sh
# PostgreSQL under load: a new cluster in RAM, pgbench's bank with four clients, then queries whose
# answers are checked. The server does not run as root.
set -e
programs=$(echo /usr/lib/postgresql/*/bin)
data=/tmp/cluster
mkdir -p "$data" && chown nobody "$data"
export PGHOST=/tmp PGUSER=postgres PGDATABASE=postgres LC_ALL=C

as_nobody() { su nobody -s /bin/sh -c "$*"; }

as_nobody "$programs/initdb -D $data -U postgres --no-sync --no-instructions --locale=C -E UTF8" > /tmp/initdb.log \
    || { cat /tmp/initdb.log; exit 1; }
as_nobody "$programs/pg_ctl -D $data -l /tmp/server.log -w \
    -o '-k /tmp -c listen_addresses= -c shared_buffers=32MB -c fsync=off' start" \
    || { cat /tmp/server.log; exit 1; }
"$programs/psql" -v ON_ERROR_STOP=1 -q -f /workload/bank_books.sql
"$programs/pgbench" -n -c 4 -j 1 -t 40 -f /workload/bank.sql
"$programs/psql" -v ON_ERROR_STOP=1 -q -f /workload/postgresql.sql
as_nobody "$programs/pg_ctl -D $data -m fast -w stop"
