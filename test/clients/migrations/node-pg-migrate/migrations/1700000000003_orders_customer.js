exports.up = (pgm) => {
  pgm.noTransaction();
  // of a run that was killed meanwhile, an invalid index may be left
  pgm.sql('DROP INDEX CONCURRENTLY IF EXISTS app.orders_customer');
  pgm.sql('CREATE INDEX CONCURRENTLY orders_customer ON app.orders (customer)');
};
