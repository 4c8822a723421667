BEGIN;

CREATE TABLE app.orders (
	id serial PRIMARY KEY,
	customer integer NOT NULL
);
INSERT INTO app.orders (customer) SELECT id FROM app.customers;

COMMIT;
