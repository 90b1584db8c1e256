-- The bank's books before its first transfer.
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, filler char(80) DEFAULT '');
CREATE TABLE branches (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
CREATE TABLE history (account int, branch int, delta bigint, at timestamptz DEFAULT now());
INSERT INTO accounts (id) SELECT generate_series(1, 2000);
INSERT INTO branches (id) SELECT generate_series(1, 4);
VACUUM ANALYZE;
