exports.up = (pgm) => {
  pgm.createTable({ schema: 'app', name: 'orders' }, {
    id: 'id',
    customer: { type: 'integer', notNull: true },
  });
  pgm.sql('INSERT INTO app.orders (customer) SELECT id FROM app.customers');
};
