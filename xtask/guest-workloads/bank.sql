-- One transfer; pgbench runs it from several clients at once.
\set account random(1, 2000)
\set branch random(1, 4)
\set delta random(-5000, 5000)
BEGIN;
UPDATE accounts SET balance = balance + :delta WHERE id = :account;
SELECT balance FROM accounts WHERE id = :account;
UPDATE branches SET balance = balance + :delta WHERE id = :branch;
INSERT INTO history (account, branch, delta) VALUES (:account, :branch, :delta);
END;
