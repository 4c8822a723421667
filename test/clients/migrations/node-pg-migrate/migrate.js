// usage: node migrate.js      (PGHOST, PGUSER, ... say where)
'use strict';

const { Client } = require('pg');
const { runner } = require('node-pg-migrate');

async function main() {
  const client = new Client({ options: '-c client_connection_check_interval=1000' });
  await client.connect();
  await client.query("CALL lock_acquire_wait('migrations', scope => 'session')");
  await runner({
    dbClient: client, noLock: true,
    direction: 'up', dir: 'migrations', schema: 'app', migrationsTable: 'pgmigrations',
  });
  await client.end(); // and with the session its lock
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
