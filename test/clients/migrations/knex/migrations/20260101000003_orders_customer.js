exports.config = { transaction: false };
exports.up = async (knex) => {
  // of a run that was killed meanwhile, an invalid index may be left
  await knex.raw('DROP INDEX CONCURRENTLY IF EXISTS app.orders_customer');
  await knex.raw('CREATE INDEX CONCURRENTLY orders_customer ON app.orders (customer)');
};
exports.down = (knex) => knex.raw('DROP INDEX CONCURRENTLY IF EXISTS app.orders_customer');
