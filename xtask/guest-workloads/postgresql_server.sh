#!/bin/sh
# PostgreSQL with a new cluster in RAM and the bank's books in it, open to the network.
set -e
programs=$(echo /usr/lib/postgresql/*/bin)
data=/tmp/cluster
mkdir -p "$data" && chown nobody "$data"
export PGHOST=/tmp PGUSER=postgres PGDATABASE=postgres LC_ALL=C

as_nobody() { su nobody -s /bin/sh -c "$*"; }

as_nobody "$programs/initdb -D $data -U postgres --auth=trust --no-sync --no-instructions --locale=C -E UTF8" \
    > /tmp/initdb.log || { cat /tmp/initdb.log; exit 1; }
echo "host all all 0.0.0.0/0 trust" >> "$data/pg_hba.conf"
settings="-c unix_socket_directories=/tmp -c shared_buffers=128MB -c fsync=off"
# Nobody from outside sees the books before they are whole.
as_nobody "$programs/pg_ctl -D $data -l /tmp/server.log -w -o '$settings -c listen_addresses=' start"
"$programs/psql" -v ON_ERROR_STOP=1 -q -f /workload/bank_books.sql
as_nobody "$programs/pg_ctl -D $data -w stop"
exec su nobody -s /bin/sh -c "exec $programs/postgres -D $data $settings -c 'listen_addresses=*'"
