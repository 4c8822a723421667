BEGIN;

ALTER TABLE app.customers ADD COLUMN email text;
UPDATE app.customers SET email = name || '@example.com';

COMMIT;
