// usage: node acquire_lock.js      (PGHOST, PGUSER, ... say where)
//
// The examples of the Acquire Lock operation, with pg (node-postgres).
'use strict';

const assert = require('assert');
const { Pool } = require('pg');

// its name is what callingFn says where a request doesn't
const pool = new Pool({ application_name: 'migrateUsers' });

// ---------- what an application needs ----------

async function lockRequest(request, db = pool) {
  const { rows } = await db.query('SELECT lock_request($1) AS reply', [request]);
  const reply = rows[0].reply;
  if (reply.success === false) {
    throw Object.assign(new Error(reply.error), { code: reply.code, data: reply.data });
  }
  return reply;
}

const acquireLock = (key, timeout) => lockRequest({ operation: 'acquire', key, timeout });
const releaseLock = (key, token) => lockRequest({ operation: 'release', key, token });
const checkLock = (key) => lockRequest({ operation: 'check', key });

// Each call is a transaction of its own, and the pool may run it on any
// connection: these locks belong to the role, not to the connection.

async function migrate(performMigration) {
  const lockResult = await acquireLock('db-migration-v2', 300);

  if (!lockResult.acquired) {
    return 'Migration already in progress, skipping...';
  }
  try {
    await performMigration();
    return 'Migration completed successfully';
  } finally {
    await releaseLock('db-migration-v2', lockResult.token);
  }
}

async function processOnce(lockKey, processFile) {
  const lockResult = await acquireLock(lockKey, 1800); // 30 minutes

  if (!lockResult.acquired) {
    return 'File is already being processed by another instance';
  }
  try {
    await processFile();
    return 'File processing completed';
  } finally {
    await releaseLock(lockKey, lockResult.token);
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function acquireLockWithRetry(key, maxRetries = 3, wait = sleep) {
  for (let attempt = 1; attempt <= maxRetries; attempt++) {
    const result = await acquireLock(key, 300);

    if (result.acquired) {
      return result;
    }
    if (attempt < maxRetries) {
      await wait(Math.pow(2, attempt) * 1000); // exponential backoff
    }
  }
  throw new Error('Failed to acquire lock after maximum retries');
}

// ---------- the examples ----------

const timestamp = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const lifetime = (lock) => (Date.parse(lock.expiresAt) - Date.parse(lock.timestamp)) / 1000;
const isFree = async (key) => (await checkLock(key)).exists === false;

async function replies() {
  const lock = await acquireLock('db-migration-v2', 300);
  const { token, expiresAt, ...documented } = lock;
  assert.deepStrictEqual(documented, {
    key: 'db-migration-v2', callingFn: 'migrateUsers', acquired: true,
    timestamp: lock.timestamp, timeout: 300,
  });
  assert.match(lock.timestamp, timestamp);
  assert.match(expiresAt, timestamp);
  assert.strictEqual(lifetime(lock), 300);
  console.log('ok - acquired: the documented reply, a token and the time of expiry');

  const { rows } = await pool.query('SELECT token::text FROM lock_check($1)', ['db-migration-v2']);
  assert.ok(Number.isSafeInteger(token));
  assert.strictEqual(String(token), rows[0].token);
  console.log('ok - the token is exact as a JavaScript number');

  assert.deepStrictEqual(await acquireLock('db-migration-v2', 300),
    { key: 'db-migration-v2', callingFn: 'migrateUsers', acquired: false });
  console.log('ok - not acquired: the documented reply');

  const checked = await checkLock('db-migration-v2');
  assert.match(checked.timestamp, timestamp);
  assert.deepStrictEqual(checked, {
    key: 'db-migration-v2', exists: true, timestamp: checked.timestamp,
    lockInfo: {
      key: 'db-migration-v2', callingFn: 'migrateUsers', timestamp: lock.timestamp,
      timeoutSeconds: 300, appId: process.env.PGUSER,
    },
  });
  console.log('ok - check: who holds it, since when, for which app');

  assert.strictEqual((await releaseLock('db-migration-v2', token + 1)).released, false);
  const released = await releaseLock('db-migration-v2', token);
  assert.match(released.timestamp, timestamp);
  assert.deepStrictEqual(released, { key: 'db-migration-v2', released: true, timestamp: released.timestamp });
  assert.strictEqual((await releaseLock('db-migration-v2')).released, false);
  const free = await checkLock('db-migration-v2');
  assert.deepStrictEqual(free, { key: 'db-migration-v2', exists: false, lockInfo: null, timestamp: free.timestamp });
  console.log('ok - released with its token only, and once only');
}

async function errors() {
  await acquireLock('db-migration-v2', 300);
  await assert.rejects(
    lockRequest({ operation: 'acquire', key: 'db-migration-v2', callingFn: 'migrateRoles', onConflict: 'error' }),
    {
      code: 'LOCK_CONFLICT', message: 'Lock already exists or is being processed',
      data: { key: 'db-migration-v2', callingFn: 'migrateRoles', acquired: false },
    });
  await releaseLock('db-migration-v2');
  console.log('ok - 409: the documented conflict, if asked for');

  for (const operation of ['acquire', 'release', 'check']) {
    await assert.rejects(
      lockRequest({ operation, key: 'db-migration-v2', domain: 'payroll' }),
      { code: 'INVALID_API_KEY', message: 'Invalid API key' });
  }
  console.log('ok - 401: a domain this role may not use');

  const readOnly = new Pool({ options: '-c default_transaction_read_only=on' });
  await assert.rejects(
    lockRequest({ operation: 'acquire', key: 'db-migration-v2' }, readOnly),
    { code: 'LOCK_ACQUISITION_ERROR', message: 'Failed to acquire lock' });
  await assert.rejects(
    lockRequest({ operation: 'release', key: 'db-migration-v2' }, readOnly),
    { code: 'LOCK_RELEASE_ERROR', message: 'Failed to release lock' });
  assert.strictEqual((await lockRequest({ operation: 'check', key: 'db-migration-v2' }, readOnly)).exists, false);
  await readOnly.end();
  console.log('ok - 500: acquire and release in a read-only session; check works there');
}

async function databaseMigration() {
  let second;
  const first = await migrate(async () => {
    second = await migrate(() => assert.fail('migrated twice'));
  });
  assert.strictEqual(first, 'Migration completed successfully');
  assert.strictEqual(second, 'Migration already in progress, skipping...');
  assert.ok(await isFree('db-migration-v2'));
  console.log('ok - database migration: the second instance skips, the lock is free afterwards');
}

async function fileProcessing() {
  const fileName = 'large-data-file.csv';
  await assert.rejects(
    processOnce(`file-processing-${fileName}`, () => assert.fail('processed')),
    { code: 'VALIDATION_ERROR' });
  console.log('ok - file processing: a dot in the key is refused');

  const lockKey = `file-processing-${fileName.replace(/[^A-Za-z0-9_-]/g, '_')}`;
  let second;
  const first = await processOnce(lockKey, async () => {
    assert.strictEqual((await checkLock(lockKey)).lockInfo.timeoutSeconds, 1800);
    second = await processOnce(lockKey, () => assert.fail('processed twice'));
  });
  assert.strictEqual(first, 'File processing completed');
  assert.strictEqual(second, 'File is already being processed by another instance');
  assert.ok(await isFree(lockKey));
  console.log('ok - file processing: with a legal key, one instance only');
}

async function retries() {
  const held = await acquireLock('nightly-sync', 300);
  let delays = [];
  const wait = async (ms) => {
    delays.push(ms);
    await sleep(ms / 100);
  };

  await assert.rejects(acquireLockWithRetry('nightly-sync', 4, wait),
    { message: 'Failed to acquire lock after maximum retries' });
  assert.deepStrictEqual(delays, [2000, 4000, 8000]);
  console.log('ok - retry: gives up after the last one');

  delays = [];
  const got = await acquireLockWithRetry('nightly-sync', 3, async (ms) => {
    await wait(ms);
    if (delays.length === 2) {
      assert.strictEqual((await releaseLock('nightly-sync', held.token)).released, true);
    }
  });
  assert.deepStrictEqual(delays, [2000, 4000]);
  assert.strictEqual(got.acquired, true);
  assert.ok(got.token > held.token);
  assert.strictEqual((await releaseLock('nightly-sync', held.token)).released, false);
  assert.strictEqual((await releaseLock('nightly-sync', got.token)).released, true);
  console.log('ok - retry: succeeds once the holder has released; the old token is of no use then');
}

async function alwaysRelease() {
  async function critical(performCriticalOperation) {
    const lockResult = await acquireLock('my-lock');
    if (lockResult.acquired) {
      try {
        await performCriticalOperation(lockResult);
      } finally {
        await releaseLock('my-lock', lockResult.token);
      }
    }
  }

  await assert.rejects(critical(async (lock) => {
    assert.ok(!('timeout' in lock) && !('expiresAt' in lock));
    assert.strictEqual((await checkLock('my-lock')).lockInfo.timeoutSeconds, null);
    throw new Error('disk full');
  }), { message: 'disk full' });
  assert.ok(await isFree('my-lock'));
  console.log('ok - finally: the work throws, the lock is free');
}

async function keys() {
  for (const key of ['user-sync-2024-01-20', 'database-backup-nightly', 'file-processing-large-dataset',
    'lock1', 'temp', 'k'.repeat(255)]) {
    assert.strictEqual((await acquireLock(key)).acquired, true, key);
    assert.strictEqual((await releaseLock(key)).released, true, key);
  }
  for (const key of ['', 'k'.repeat(256), 'a b', 'schlüssel', ' temp', 42, undefined]) {
    await assert.rejects(acquireLock(key), { code: 'VALIDATION_ERROR' }, `key ${key}`);
  }
  const lower = await acquireLock('temp', 300);
  const upper = await acquireLock('Temp', 300);
  assert.ok(lower.acquired && upper.acquired);
  await releaseLock('temp', lower.token);
  await releaseLock('Temp', upper.token);
  console.log('ok - keys: letters, digits, - and _, at most 255, case-sensitive');
}

async function timeouts() {
  for (const [key, timeout] of [['quick-sync', 300], ['data-processing', 1800], ['longest', 3600]]) {
    const lock = await acquireLock(key, timeout);
    assert.strictEqual(lock.timeout, timeout);
    assert.strictEqual(lifetime(lock), timeout);
    await releaseLock(key, lock.token);
  }
  for (const timeout of [21600, 3601, 0, -1]) {
    await assert.rejects(acquireLock('full-backup', timeout), (error) => {
      assert.strictEqual(error.code, 'VALIDATION_ERROR');
      assert.match(error.data.hint, /lockext\.max_timeout/);
      return true;
    }, `timeout ${timeout}`);
  }
  for (const timeout of ['300', 1.5, true]) {
    await assert.rejects(acquireLock('full-backup', timeout), { code: 'VALIDATION_ERROR' }, `timeout ${timeout}`);
  }
  assert.ok(await isFree('full-backup'));
  console.log('ok - timeouts: 300, 1800 and 3600; 21600 is refused and the setting named');
}

async function crash() {
  const process1 = new Pool();
  await lockRequest({ operation: 'acquire', key: 'crashed', timeout: 2 }, process1);
  await process1.end();
  assert.strictEqual((await acquireLock('crashed', 300)).acquired, false);
  let next;
  do {
    await sleep(50);
    next = await acquireLock('crashed', 300);
  } while (!next.acquired);
  await releaseLock('crashed', next.token);
  console.log('ok - a holder that is gone: its lock stays until the timeout, then it is free');
}

async function atomic() {
  const race = await Promise.all(Array.from({ length: 10 }, () => acquireLock('race', 300)));
  assert.strictEqual(race.filter((reply) => reply.acquired).length, 1);
  assert.strictEqual((await releaseLock('race')).released, true);
  console.log('ok - ten at once: one acquires it');
}

async function main() {
  await replies();
  await errors();
  await databaseMigration();
  await fileProcessing();
  await retries();
  await alwaysRelease();
  await keys();
  await timeouts();
  await crash();
  await atomic();
  await pool.end();
}

process.exitCode = 1; // unless main() gets to its end
main().then(() => { process.exitCode = 0; }, (error) => {
  console.error(error);
  process.exit(1);
});
