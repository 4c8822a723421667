exports.up = async (knex) => {
  await knex.schema.withSchema('app').createTable('orders', (table) => {
    table.increments('id');
    table.integer('customer').notNullable();
  });
  await knex.raw('INSERT INTO app.orders (customer) SELECT id FROM app.customers');
};
exports.down = (knex) => knex.schema.withSchema('app').dropTable('orders');
