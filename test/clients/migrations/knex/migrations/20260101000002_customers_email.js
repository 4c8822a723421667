exports.up = async (knex) => {
  await knex.schema.withSchema('app').alterTable('customers', (table) => table.text('email'));
  await knex.raw("UPDATE app.customers SET email = name || '@example.com'");
};
exports.down = (knex) => knex.schema.withSchema('app').alterTable('customers', (table) => table.dropColumn('email'));
