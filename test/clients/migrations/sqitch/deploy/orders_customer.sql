-- of a run that was killed meanwhile, an invalid index may be left
DROP INDEX CONCURRENTLY IF EXISTS app.orders_customer;
CREATE INDEX CONCURRENTLY orders_customer ON app.orders (customer);
