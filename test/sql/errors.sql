--
-- Errors: every argument of every function, and what they leave behind
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET client_encoding = utf8;
SET application_name = 'errors test';
\pset null '<NULL>'

CREATE FUNCTION pg_temp.fails(stmt text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE stmt;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || message,
					 '  ' || nullif(detail, ''), '  ' || nullif(hint, ''));
END $$;

CREATE FUNCTION pg_temp.sqlstate(stmt text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE stmt;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

-- something to be left alone
SELECT acquired FROM lock_acquire('err-held', 600, calling_fn => 'keeper', data => '{"keep": true}');
SELECT acquired FROM lock_acquire('err-held', 600, domain => 'd', calling_fn => 'keeper');
CREATE TEMP TABLE before AS SELECT * FROM lockext_held;

\pset format unaligned
\pset tuples_only on
SELECT stmt || E'\n' || pg_temp.fails(stmt)
FROM (VALUES
	(110, $$SELECT lock_acquire(NULL, 60)$$),
	(111, $$SELECT lock_acquire('', 60)$$),
	(112, $$SELECT lock_acquire('err ', 60)$$),
	(113, $$SELECT lock_acquire(E'err\n', 60)$$),
	(114, $$SELECT lock_acquire(U&'\00E9rr', 60)$$),
	(115, $$SELECT lock_acquire(repeat('e', 256), 60)$$),
	(120, $$SELECT lock_acquire('err', 0)$$),
	(121, $$SELECT lock_acquire('err', -1)$$),
	(122, $$SELECT lock_acquire('err', 3601)$$),
	(123, $$SELECT lock_acquire('err', 2147483647)$$),
	(124, $$SELECT lock_acquire('err', 0, scope => 'session')$$),
	(125, $$SELECT lock_acquire('err', 3601, scope => 'session')$$),
	(126, $$SELECT lock_acquire('err', 60, scope => 'transaction')$$),
	(127, $$SELECT lock_acquire('err', 0, scope => 'transaction')$$),
	(128, $$SELECT lock_acquire('err', -1, scope => 'transaction')$$),
	(129, $$SELECT lock_acquire('err', 3601, scope => 'transaction')$$),
	(130, $$SELECT lock_acquire('err', 60, wait_ms => NULL)$$),
	(131, $$SELECT lock_acquire('err', 60, wait_ms => -2)$$),
	(132, $$SELECT lock_acquire('err', 60, wait_ms => -2147483648)$$),
	(133, $$SELECT lock_acquire('err', 60, wait_ms => -2, scope => 'session')$$),
	(134, $$SELECT lock_acquire('err', wait_ms => -2, scope => 'transaction')$$),
	(140, $$SELECT lock_acquire('err', 60, scope => NULL)$$),
	(141, $$SELECT lock_acquire('err', 60, scope => '')$$),
	(142, $$SELECT lock_acquire('err', 60, scope => 'forever')$$),
	(143, $$SELECT lock_acquire('err', 60, scope => 'Lease')$$),
	(144, $$SELECT lock_acquire('err', 60, scope => 'lease ')$$),
	(145, $$SELECT lock_acquire('err', 60, scope => E'lease\n')$$),
	(146, $$SELECT lock_acquire('err', 60, scope => U&'l\00E9ase')$$),
	(147, $$SELECT lock_acquire('err', 60, scope => repeat('lease', 60))$$),
	(148, $$SELECT lock_acquire('err', 60, scope => 'l')$$),
	(149, $$SELECT lock_acquire('err', 60, scope => 'sessions')$$),
	(150, $$SELECT lock_acquire('err', 60, calling_fn => '')$$),
	(151, $$SELECT lock_acquire('err', 60, calling_fn => repeat('f', 256))$$),
	(152, $$SELECT lock_acquire('err', 60, calling_fn => repeat(U&'\00E9', 128))$$),
	(160, $$SELECT lock_acquire('err', 60, domain => NULL)$$),
	(161, $$SELECT lock_acquire('err', 60, domain => repeat('d', 256))$$),
	(170, $$SELECT lock_acquire('err', 60, master => NULL)$$),
	(171, $$SELECT lock_acquire(NULL, 60, master => false)$$),
	(180, $$SELECT lock_acquire('err', 60, data => to_jsonb(repeat('x', 1013)))$$),
	(181, $$SELECT lock_acquire('err', 60, data => (SELECT jsonb_agg(i) FROM generate_series(1, 10000) i))$$),
	(210, $$SELECT lock_try(NULL, 60)$$),
	(211, $$SELECT lock_try('', 60)$$),
	(212, $$SELECT lock_try('err ', 60)$$),
	(213, $$SELECT lock_try(repeat('e', 256), 60)$$),
	(220, $$SELECT lock_try('err', 0)$$),
	(221, $$SELECT lock_try('err', -1)$$),
	(222, $$SELECT lock_try('err', 3601)$$),
	(230, $$SELECT lock_try('err', 60, scope => NULL)$$),
	(231, $$SELECT lock_try('err', 60, scope => 'forever')$$),
	(232, $$SELECT lock_try('err', 60, scope => 'SESSION')$$),
	(233, $$SELECT lock_try('err', 0, scope => 'session')$$),
	(234, $$SELECT lock_try('err', 60, scope => 'transaction')$$),
	(240, $$SELECT lock_try('err', 60, domain => NULL)$$),
	(241, $$SELECT lock_try('err', 60, domain => repeat('d', 256))$$),
	(250, $$SELECT lock_try('err', 60, master => NULL)$$),
	(310, $$SELECT lock_release(NULL)$$),
	(311, $$SELECT lock_release('')$$),
	(312, $$SELECT lock_release('err-held ')$$),
	(313, $$SELECT lock_release(repeat('e', 256))$$),
	(320, $$SELECT lock_release('err-held', 0)$$),
	(321, $$SELECT lock_release('err-held', -1)$$),
	(322, $$SELECT lock_release('err-held', 9007199254740992)$$),
	(330, $$SELECT lock_release('err-held', domain => NULL)$$),
	(331, $$SELECT lock_release('err-held', domain => repeat('d', 256))$$),
	(340, $$SELECT lock_release('err-held', master => NULL)$$),
	(410, $$SELECT lock_renew(NULL, 60)$$),
	(411, $$SELECT lock_renew('', 60)$$),
	(412, $$SELECT lock_renew('err-held ', 60)$$),
	(413, $$SELECT lock_renew(repeat('e', 256), 60)$$),
	(420, $$SELECT lock_renew('err-held', 0)$$),
	(421, $$SELECT lock_renew('err-held', -1)$$),
	(422, $$SELECT lock_renew('err-held', 3601)$$),
	(430, $$SELECT lock_renew('err-held', 60, 0)$$),
	(431, $$SELECT lock_renew('err-held', 60, 9007199254740992)$$),
	(440, $$SELECT lock_renew('err-held', 60, domain => NULL)$$),
	(441, $$SELECT lock_renew('err-held', 60, domain => repeat('d', 256))$$),
	(450, $$SELECT lock_renew('err-held', 60, master => NULL)$$),
	(460, $$SELECT lock_guard(NULL)$$),
	(461, $$SELECT lock_guard('')$$),
	(462, $$SELECT lock_guard('err-held ')$$),
	(463, $$SELECT lock_guard(repeat('e', 256))$$),
	(470, $$SELECT lock_guard('err-held', 0)$$),
	(471, $$SELECT lock_guard('err-held', 9007199254740992)$$),
	(480, $$SELECT lock_guard('err-held', domain => NULL)$$),
	(481, $$SELECT lock_guard('err-held', domain => repeat('d', 256))$$),
	(490, $$SELECT lock_guard('err-held', master => NULL)$$),
	(510, $$SELECT lock_check(NULL)$$),
	(511, $$SELECT lock_check('')$$),
	(512, $$SELECT lock_check('err-held ')$$),
	(513, $$SELECT lock_check(repeat('e', 256))$$),
	(520, $$SELECT lock_check('err-held', NULL)$$),
	(521, $$SELECT lock_check('err-held', repeat('d', 256))$$),
	(530, $$SELECT lock_check('err-held', master => NULL)$$),
	(610, $$SELECT lock_break(NULL)$$),
	(611, $$SELECT lock_break('')$$),
	(612, $$SELECT lock_break('err-held ')$$),
	(613, $$SELECT lock_break(repeat('e', 256))$$),
	(620, $$SELECT lock_break('err-held', NULL)$$),
	(621, $$SELECT lock_break('err-held', -2)$$),
	(622, $$SELECT lock_break('err-held', -2147483648)$$),
	(630, $$SELECT lock_break('err-held', domain => NULL)$$),
	(631, $$SELECT lock_break('err-held', domain => repeat('d', 256))$$),
	(640, $$SELECT lock_break('err-held', master => NULL)$$),
	(710, $$CALL lock_acquire_wait(NULL, 60)$$),
	(711, $$CALL lock_acquire_wait('', 60)$$),
	(712, $$CALL lock_acquire_wait('err ', 60)$$),
	(713, $$CALL lock_acquire_wait(repeat('e', 256), 60)$$),
	(720, $$CALL lock_acquire_wait('err', 0)$$),
	(721, $$CALL lock_acquire_wait('err', -1)$$),
	(722, $$CALL lock_acquire_wait('err', 3601)$$),
	(730, $$CALL lock_acquire_wait('err', 60, NULL)$$),
	(731, $$CALL lock_acquire_wait('err', 60, -2)$$),
	(732, $$CALL lock_acquire_wait('err', 60, -2147483648)$$),
	(740, $$CALL lock_acquire_wait('err', 60, scope => NULL)$$),
	(741, $$CALL lock_acquire_wait('err', 60, scope => 'forever')$$),
	(742, $$CALL lock_acquire_wait('err', scope => 'transaction')$$),
	(743, $$CALL lock_acquire_wait('err', 60, scope => 'transaction')$$),
	(744, $$CALL lock_acquire_wait('err', 3601, scope => 'session')$$),
	(750, $$CALL lock_acquire_wait('err', 60, calling_fn => '')$$),
	(751, $$CALL lock_acquire_wait('err', 60, calling_fn => repeat('f', 256))$$),
	(760, $$CALL lock_acquire_wait('err', 60, domain => NULL)$$),
	(761, $$CALL lock_acquire_wait('err', 60, domain => repeat('d', 256))$$),
	(770, $$CALL lock_acquire_wait('err', 60, master => NULL)$$),
	(771, $$CALL lock_acquire_wait(NULL, 60, master => false)$$),
	(780, $$CALL lock_acquire_wait('err', 60, data => to_jsonb(repeat('x', 1013)))$$)) v(n, stmt)
ORDER BY n;

-- values that are no values of the type, and calls that fit no function
SELECT stmt || E'\n' || pg_temp.sqlstate(stmt)
FROM (VALUES
	(1, $$SELECT lock_acquire('err', 2147483648)$$),
	(2, $$SELECT lock_acquire('err', '2147483648')$$),
	(3, $$SELECT lock_acquire('err', '1.5')$$),
	(4, $$SELECT lock_acquire('err', 1.5)$$),
	(5, $$SELECT lock_acquire('err', 'soon')$$),
	(6, $$SELECT lock_acquire('err', interval '1 min')$$),
	(7, $$SELECT lock_acquire('err', 60, wait_ms => 'no')$$),
	(8, $$SELECT lock_acquire('err', 60, master => 'perhaps')$$),
	(9, $$SELECT lock_acquire('err', 60, data => '{')$$),
	(10, $$SELECT lock_acquire('err', 60, data => 5)$$),
	(11, $$SELECT lock_acquire(5)$$),
	(12, $$SELECT lock_acquire()$$),
	(13, $$SELECT lock_acquire('err', nosuch => 1)$$),
	(14, $$SELECT lock_acquire('err', 60, key => 'err')$$),
	(15, $$SELECT lock_try(5)$$),
	(16, $$SELECT lock_try('err', 'soon')$$),
	(17, $$SELECT lock_try('err', 60, 'lease', '', false, '{}'::jsonb)$$),
	(18, $$SELECT lock_release('err-held', 9223372036854775808)$$),
	(19, $$SELECT lock_release('err-held', '9223372036854775808')$$),
	(20, $$SELECT lock_release('err-held', 1.5)$$),
	(21, $$SELECT lock_release('err-held', 'token')$$),
	(22, $$SELECT lock_release(5)$$),
	(23, $$SELECT lock_renew('err-held')$$),
	(24, $$SELECT lock_renew('err-held', 'soon')$$),
	(25, $$SELECT lock_check()$$),
	(26, $$SELECT lock_check(5)$$),
	(27, $$SELECT lock_check('err-held', '', 'perhaps')$$),
	(28, $$SELECT lock_break()$$),
	(29, $$SELECT lock_break('err-held', 'now')$$),
	(30, $$SELECT lockext_held('err-held')$$),
	(31, $$SELECT lockext_refuse_write()$$),
	(32, $$SELECT lock_acquire_wait('err', 60)$$),
	(33, $$CALL lock_acquire('err', 60)$$),
	(34, $$CALL lock_acquire_wait()$$),
	(35, $$CALL lock_acquire_wait(5)$$),
	(36, $$CALL lock_acquire_wait('err', 'soon')$$),
	(37, $$CALL lock_acquire_wait('err', 60, 2147483648)$$),
	(38, $$CALL lock_acquire_wait('err', 60, nosuch => 1)$$),
	(39, $$CALL lock_acquire_wait('err', 60, result => 5)$$),
	(40, $$SELECT lockext_waiters('err')$$),
	(41, $$SELECT lock_guard()$$),
	(42, $$SELECT lock_guard(5)$$),
	(43, $$SELECT lock_guard('err-held', 1.5)$$)) v(n, stmt)
ORDER BY n;
\pset tuples_only off
\pset format aligned

-- of several bad arguments one is named: the name before the rest, then the scope,
-- which has its say about the timeout
SELECT lock_acquire('err ', 0, wait_ms => -2, scope => 'forever');
SELECT lock_acquire('err', 0, wait_ms => -2, scope => 'forever');
SELECT lock_acquire('err', 0, wait_ms => -2);
SELECT lock_acquire('err', 60, wait_ms => -2, calling_fn => '');

-- an error is an error whether or not the lock is held
SELECT lock_acquire('err-held', 3601);
SELECT lock_acquire('err-held', 60, scope => 'forever');

-- and after all that nothing has changed
SELECT * FROM lockext_held EXCEPT SELECT * FROM before;
SELECT * FROM before EXCEPT SELECT * FROM lockext_held;
SELECT count(*) FROM lockext_held;
SELECT count(*) AS rows FROM lockext_lock WHERE key = 'err';
SELECT count(*) AS locks FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();

-- nor is anything kept where the error was caught and the transaction goes on
BEGIN;
SELECT acquired FROM lock_acquire('err', 60);
SELECT pg_temp.sqlstate($$SELECT lock_release('err', 0)$$), pg_temp.sqlstate($$SELECT lock_acquire('err-2', 0)$$),
	pg_temp.sqlstate($$SELECT 1 / CASE WHEN (lock_acquire('err-3', 60)).acquired THEN 0 ELSE 1 END$$) AS taken_first;
SELECT key, domain FROM lockext_held ORDER BY 1, 2;
SELECT count(*) AS locks FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
ROLLBACK;
SELECT key, domain FROM lockext_held ORDER BY 1, 2;

-- what is just within the rules
SELECT acquired, length(calling_fn) FROM lock_acquire('err-ok-1', 60, calling_fn => repeat('f', 255));
SELECT acquired, octet_length(calling_fn) FROM lock_acquire('err-ok-2', 60, calling_fn => repeat(U&'\00E9', 127));
SELECT acquired, calling_fn FROM lock_acquire('err-ok-3', 60, calling_fn => ' any "text"; at all ');
SELECT acquired FROM lock_acquire('err-ok-4', 60, data => to_jsonb(repeat('x', 1012)));
SELECT pg_column_size(data), length(data #>> '{}') FROM lock_check('err-ok-4');
SELECT acquired FROM lock_acquire('err-ok-5', 60, data => 'null');
SELECT data, data IS NULL AS is_null FROM lock_check('err-ok-5');
SELECT acquired FROM lock_acquire('err-ok-6', 60, data => '{"job": [1, 2, {"x": "\u00e9"}]}');
SELECT data FROM lock_check('err-ok-6');
SELECT acquired FROM lock_acquire(repeat('k', 255), 60, 0, 'lease', repeat('f', 255), repeat('d', 255),
								  false, to_jsonb(repeat('x', 1012)));
SELECT key = repeat('k', 255) AS key, domain = repeat('d', 255) AS domain, calling_fn = repeat('f', 255) AS fn,
	length(data #>> '{}')
FROM lock_check(repeat('k', 255), repeat('d', 255));
SELECT acquired, timeout FROM lock_acquire('err-ok-7', '60');

-- data goes with the lock
SELECT lock_release('err-ok-6'), lock_break('err-ok-4');
SELECT key, released_at IS NOT NULL AS released, data FROM lockext_lock WHERE key IN ('err-ok-4', 'err-ok-6') ORDER BY 1;

SELECT count(*) = count(*) FILTER (WHERE lock_release(key, domain => domain)) AS all_released FROM lockext_held;
SELECT key FROM lockext_held ORDER BY 1;
DROP TABLE before;
