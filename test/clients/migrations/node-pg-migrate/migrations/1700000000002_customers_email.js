exports.up = (pgm) => {
  pgm.addColumn({ schema: 'app', name: 'customers' }, { email: 'text' });
  pgm.sql("UPDATE app.customers SET email = name || '@example.com'");
};
