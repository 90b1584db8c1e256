-- After the bank's transactions: its books must agree, and a few queries give what is known.
DO $$
BEGIN
    ASSERT (SELECT count(*) FROM history) = 160, 'transfers are missing';
    ASSERT (SELECT sum(balance) FROM accounts) = (SELECT sum(delta) FROM history),
        'accounts and history differ';
    ASSERT (SELECT sum(balance) FROM branches) = (SELECT sum(delta) FROM history),
        'branches and history differ';
END
$$;

CREATE TABLE samples AS
    SELECT n, (n * 7919) % 10007 AS key, sqrt(n) AS root, md5(n::text) AS digest
    FROM generate_series(1, 10000) AS n;
CREATE INDEX ON samples (key);
ANALYZE samples;

DO $$
DECLARE
    primes bigint;
BEGIN
    ASSERT (SELECT count(*) FROM samples a JOIN samples b USING (key)) = 10000, 'join';
    ASSERT (SELECT sum(floor(root)) FROM samples) = 661750, 'floating point';
    ASSERT (SELECT count(DISTINCT digest) FROM samples) = 10000, 'digests';
    WITH RECURSIVE
        candidates AS (SELECT n FROM generate_series(2, 1000) AS n),
        composites AS (
            SELECT DISTINCT a.n * b.n AS n
            FROM candidates a JOIN candidates b ON a.n <= 31 AND a.n * b.n <= 1000
        )
    SELECT count(*) INTO primes
    FROM (SELECT n FROM candidates EXCEPT SELECT n FROM composites) AS remaining;
    ASSERT primes = 168, 'primes';
END
$$;
