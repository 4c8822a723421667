// usage: node lock_and_unlock.js      (PGHOST, PGUSER, ... say where)
//
// The TryLock, Unlock and CheckLock actions, in a flow, with pg (node-postgres).
'use strict';

const assert = require('assert');
const { Pool } = require('pg');

const pool = new Pool();

// Another instance of the program.  Whoever is to wait for a lock needs another
// connection than the one it was taken on: that one is refused at once.
const otherPool = new Pool();

// ---------- what an application needs ----------

async function act(action, payload, eventMeta = {}, db = pool) {
  const { rows } = await db.query('SELECT lock_event($1, $2, $3) AS payload', [action, payload, eventMeta]);
  return rows[0].payload;
}

// A step is an action with its eventMeta, or work to be done; each gets the
// payload that the step before it returned.
async function runFlow(steps, payload) {
  for (const step of steps) {
    payload = step.work ? await step.work(payload) : await act(step.action, payload, step.eventMeta);
  }
  return payload;
}

// ---------- the examples ----------

const fields = { inputElement: 'parameters', outputElement: 'result' };
const tryLock = (parameters, db) => act('TryLock', event(), { ...fields, parameters }, db);
const unlock = (parameters) => act('Unlock', event(), { inputElement: 'parameters', parameters });
const checkLock = async (parameters) =>
  (await act('CheckLock', event(), { ...fields, parameters })).parameters.result.locked;

function event() {
  return { type: 'order', lines: [1, 2.5], parameters: { id: 4711, amount: 12.5, result: { note: 'kept' } } };
}

function eventWith(locked) {
  const payload = event();
  payload.parameters.result.locked = locked;
  return payload;
}

async function check(key) {
  const { rows } = await pool.query('SELECT lock_request($1) AS reply', [{ operation: 'check', key }]);
  return rows[0].reply;
}

async function waiterSeen() {
  for (;;) {
    const { rows } = await pool.query('SELECT count(*)::int AS n FROM lockext_waiters');
    if (rows[0].n > 0) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// [milliseconds taken, result]
async function timed(promise) {
  const start = process.hrtime.bigint();
  const result = await promise;
  return [Number(process.hrtime.bigint() - start) / 1e6, result];
}

async function flow() {
  let seen;
  const steps = [
    { action: 'TryLock', eventMeta: fields },
    {
      work: async (payload) => {
        seen = payload;
        assert.strictEqual(await checkLock(), true);
        await assert.rejects(runFlow(steps, event()), { code: '55P03' });
        return { ...payload, done: true };
      },
    },
    { action: 'Unlock', eventMeta: fields },
    { action: 'CheckLock', eventMeta: { inputElement: 'parameters', outputElement: '$.after' } },
  ];

  const result = await runFlow(steps, event());
  assert.deepStrictEqual(seen, eventWith(true));
  assert.deepStrictEqual(result, { ...eventWith(true), done: true, after: { locked: false } });
  console.log('ok - flow: TryLock, work, Unlock, CheckLock; a second one at the same time gets an error');

  assert.deepStrictEqual(await unlock(), event());
  console.log('ok - Unlock: the payload unchanged, also if there is no lock');
}

async function noFields() {
  for (const eventMeta of [
    {},
    { inputElement: '-' },
    { inputElement: null, outputElement: null, parameters: null },
    { parameters: { master: false, timeout: null, expiry: null, allowNoLock: false } },
  ]) {
    const payload = { id: 'Auftrag 1/7', amount: 12.5 };
    assert.deepStrictEqual(await act('TryLock', payload, eventMeta), { ...payload, locked: true });
    assert.deepStrictEqual(await act('CheckLock', payload, eventMeta), { ...payload, locked: true });
    assert.deepStrictEqual(await act('Unlock', payload, eventMeta), payload);
    assert.deepStrictEqual(await act('CheckLock', payload, eventMeta), { ...payload, locked: false });
  }
  const { rows } = await pool.query("SELECT lock_event('CheckLock', $1) AS payload", [{ id: true }]);
  assert.deepStrictEqual(rows[0].payload, { id: true, locked: false });
  console.log('ok - defaults, left out or null: the whole payload is input and output');
}

async function master() {
  const parameters = { master: true };
  assert.deepStrictEqual(await tryLock(parameters), eventWith(true));
  assert.strictEqual(await checkLock(parameters), true);
  assert.strictEqual(await checkLock(), false);
  assert.deepStrictEqual(await tryLock(), eventWith(true));
  await unlock();
  await assert.rejects(act('TryLock', {}, { parameters }), { code: '55P03' });
  assert.strictEqual((await act('CheckLock', {}, { domain: 'clients', parameters })).locked, false);
  assert.deepStrictEqual(await act('Unlock', {}, { parameters }), {});
  assert.strictEqual(await checkLock(parameters), false);
  console.log('ok - master: one for the domain, without an id, beside the locks on ids');
}

async function timeout() {
  await tryLock();
  const waiting = tryLock({ timeout: 2000 }, otherPool);
  await waiterSeen();
  await unlock();
  assert.deepStrictEqual(await waiting, eventWith(true));
  console.log('ok - timeout 2000: waits, and has the lock when its holder unlocks');

  const [ms, payload] = await timed(tryLock({ timeout: 2000, allowNoLock: true }));
  assert.deepStrictEqual(payload, eventWith(false));
  assert.ok(ms >= 1990, `waited ${ms} ms only`);
  await assert.rejects(tryLock({ timeout: 100 }), { code: '55P03' });
  await unlock();
  console.log('ok - timeout 2000: nobody unlocks, refused after that time');
}

async function expiry() {
  await tryLock({ expiry: 10000 });
  assert.strictEqual((await check('4711')).lockInfo.timeoutSeconds, 10);
  const { rows } = await pool.query(
    'SELECT extract(epoch FROM expires_at - acquired_at)::int AS lifetime FROM lock_check($1)', ['4711']);
  assert.strictEqual(rows[0].lifetime, 10);
  await unlock();
  console.log('ok - expiry 10000: the lock lives 10 s');

  await tryLock({ expiry: 300 });
  assert.deepStrictEqual(await tryLock({ timeout: -1 }, otherPool), eventWith(true));
  assert.strictEqual((await check('4711')).lockInfo.timeoutSeconds, null);
  await unlock();
  console.log('ok - expiry: the lock goes to the one who waits when its time is over');
}

async function allowNoLock() {
  assert.deepStrictEqual(await tryLock({ allowNoLock: true }), eventWith(true));
  assert.deepStrictEqual(await tryLock({ allowNoLock: true }), eventWith(false));
  await unlock({ allowNoLock: true });
  console.log('ok - allowNoLock: locked says whether the lock was taken');

  const all = { master: true, timeout: 2000, expiry: 10000, allowNoLock: true };
  assert.deepStrictEqual(await tryLock(all), eventWith(true));
  assert.strictEqual(await checkLock(all), true);
  const second = tryLock(all, otherPool);
  await waiterSeen();
  await unlock(all);
  assert.deepStrictEqual(await second, eventWith(true));
  await unlock(all);
  assert.strictEqual(await checkLock(all), false);
  console.log('ok - all parameters together, the same for all actions');
}

async function elements() {
  const payload = { order: { parameters: { id: 'x' } }, other: [1] };
  const output = async (outputElement) => {
    const meta = { inputElement: '$.order.parameters', outputElement };
    const result = await act('TryLock', payload, meta);
    assert.deepStrictEqual(await act('Unlock', payload, meta), payload);
    return result;
  };
  const locked = true;
  assert.deepStrictEqual(await output('a.b'), { order: { parameters: { id: 'x', a: { b: { locked } } } }, other: [1] });
  assert.deepStrictEqual(await output('$.a.b'), { ...payload, a: { b: { locked } } });
  assert.deepStrictEqual(await output('-'), payload);
  assert.deepStrictEqual(await output(), { order: { parameters: { id: 'x', locked } }, other: [1] });
  await assert.rejects(output('$.other'), { code: '22023' });
  await assert.rejects(output('a..b'), { code: '22023' });
  assert.strictEqual((await act('CheckLock', { id: 'x' })).locked, false);
  console.log('ok - inputElement and outputElement: dotted, from the root, none; in the way of nothing');
}

async function oneLockSpace() {
  await tryLock();
  const { rows } = await pool.query('SELECT lock_request($1) AS reply', [{ operation: 'acquire', key: '4711' }]);
  assert.strictEqual(rows[0].reply.acquired, false);
  await pool.query('SELECT lock_request($1)', [{ operation: 'release', key: '4711' }]);
  assert.strictEqual(await checkLock(), false);
  console.log('ok - an id is the key of the same name');
}

async function errors() {
  for (const [payload, eventMeta, name] of [
    [{ id: 1 }, { parameters: { retries: 3 } }, /retries/],
    [{ id: 1 }, { parameters: { timeout: '2000' } }, /timeout/],
    [{ id: 1 }, { parameters: { timeout: -2 } }, /timeout/],
    [{ id: 1 }, { parameters: { expiry: 0 } }, /expiry/],
    [{ id: 1 }, { parameters: { expiry: 1.5 } }, /expiry/],
    [{ id: 1 }, { parameters: { master: 'true' } }, /master/],
    [{ id: 1 }, { parameters: { allowNoLock: 1 } }, /allowNoLock/],
    [{ id: 1 }, { inputelement: 'parameters' }, /inputelement/],
    [{ id: 1 }, { inputElement: 'parameters' }, /parameters/],
    [{ id: '' }, {}, /id/],
    [{ id: null }, {}, /id/],
    [{ id: [1] }, {}, /id/],
    [{ parameters: { master: true } }, {}, /id/],
  ]) {
    await assert.rejects(act('TryLock', payload, eventMeta), (error) => {
      assert.strictEqual(error.code, '22023');
      assert.match([error.message, error.detail, error.hint].join(' '), name);
      return true;
    }, JSON.stringify([payload, eventMeta]));
  }
  await assert.rejects(act('tryLock', { id: 1 }, {}), { code: '22023' });
  await assert.rejects(act('TryLock', { id: 1 }, { domain: 'payroll' }), { code: '42501' });
  assert.strictEqual((await act('CheckLock', { id: 1 }, {})).locked, false);
  console.log('ok - errors name what is wrong');
}

async function main() {
  await flow();
  await noFields();
  await master();
  await timeout();
  await expiry();
  await allowNoLock();
  await elements();
  await oneLockSpace();
  await errors();
  await pool.end();
  await otherPool.end();
}

process.exitCode = 1; // unless main() gets to its end
main().then(() => { process.exitCode = 0; }, (error) => {
  console.error(error);
  process.exit(1);
});
