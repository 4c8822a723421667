// For the command knex only: whoever connects with this holds the lock.
'use strict';

const HOUR = 3600 * 1000;

async function takeLock(connection) {
  await connection.query("CALL lock_acquire_wait('migrations', scope => 'session')");
  // knex's own lock: a run that was killed leaves it, and nobody else is running
  await connection.query('DROP TABLE IF EXISTS app.knex_migrations_lock');
}

module.exports = {
  client: 'pg',
  connection: { options: '-c client_connection_check_interval=1000' },
  pool: {
    min: 1, max: 1, createTimeoutMillis: HOUR,
    afterCreate: (connection, done) => takeLock(connection).then(() => done(null, connection), done),
  },
  acquireConnectionTimeout: HOUR,
  migrations: { directory: 'migrations', schemaName: 'app' },
};
