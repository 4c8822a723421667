--
-- Domains, and their master locks
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET client_encoding = utf8;
\pset null '<NULL>'

-- a lock is (domain, key): the same key in other domains is another lock
SELECT v.domain, r.acquired, r.reason, r.domain = v.domain AS same_domain, r.key
FROM (VALUES (1, ''), (2, 'orders'), (3, 'Orders'), (4, 'orders '), (5, ' '), (6, U&'best\00E4tigt'),
			 (7, 'a/b.c:d'), (8, '*')) v(n, domain),
	lock_acquire('k', 60, domain => v.domain) r
ORDER BY n;
SELECT v.domain, r.acquired, r.reason, r.holder ->> 'scope' AS scope
FROM (VALUES (1, ''), (2, 'orders'), (3, 'Orders'), (4, 'orders ')) v(n, domain),
	lock_acquire('k', 60, domain => v.domain) r
ORDER BY n;
SELECT lock_try('k', 60, domain => 'orders'), lock_try('k', 60);
SELECT domain, key, master FROM lockext_held ORDER BY domain COLLATE "C", key;

-- '' is the default of every function, and they all mean the same lock
SELECT domain, held FROM lock_check('k');
SELECT domain, held FROM lock_check('k', '');
SELECT domain, held FROM lock_check('k', 'orders');
SELECT domain, held FROM lock_check('k', 'order');
SELECT lock_release('k'), lock_release('k', domain => ''), lock_release('k', domain => 'order');
SELECT held FROM lock_check('k', 'orders');
SELECT acquired, domain, timeout FROM lock_renew('k', 120, domain => 'orders');
SELECT acquired, domain, reason FROM lock_renew('k', 120);
SELECT domain, timeout FROM lockext_held ORDER BY domain COLLATE "C";
SELECT lock_break('k', domain => 'Orders'), lock_break('k');
SELECT domain FROM lockext_held ORDER BY domain COLLATE "C";
SELECT count(*) AS released FROM lockext_held h WHERE lock_release(h.key, domain => h.domain);
SELECT domain FROM lockext_held ORDER BY domain COLLATE "C";

-- where domain and key meet does matter
SELECT acquired FROM lock_acquire('c', 60, domain => 'ab');
SELECT acquired FROM lock_acquire('bc', 60, domain => 'a');
SELECT acquired FROM lock_acquire('abc', 60);
SELECT lock_release('c', domain => 'ab'), lock_release('bc', domain => 'a'), lock_release('abc');

-- a token is good for its own domain only
SELECT lock_try('k', 60) AS here, lock_try('k', 60, domain => 'there') AS there \gset
SELECT lock_release('k', :there), lock_release('k', :here, 'there');
SELECT lock_release('k', :here), lock_release('k', :there, 'there');

-- up to 255 bytes
SELECT acquired, length(domain) FROM lock_acquire('k', 60, domain => repeat('d', 255));
SELECT acquired, octet_length(domain) FROM lock_acquire('k', 60, domain => repeat(U&'\00E4', 127));
SELECT lock_release('k', domain => repeat('d', 255)), lock_release('k', domain => repeat('d', 254)),
	lock_release('k', domain => repeat(U&'\00E4', 127));
SELECT lock_acquire('k', 60, domain => repeat('d', 256));
SELECT lock_acquire('k', 60, domain => repeat(U&'\00E4', 128));
SELECT lock_acquire('k', 60, domain => NULL);
SELECT lock_try('k', 60, domain => NULL);
SELECT lock_release('k', domain => NULL);
SELECT lock_renew('k', 60, domain => NULL);
SELECT lock_check('k', NULL);
SELECT lock_break('k', domain => NULL);
SELECT lock_check('k', repeat('d', 256));

-- the master lock is a slot beside the keys: neither excludes the other
SELECT acquired, key, domain FROM lock_acquire('k', 60, domain => 'orders');
SELECT acquired, key, domain, token IS NOT NULL AS token FROM lock_acquire(NULL, 60, domain => 'orders', master => true);
SELECT acquired, key FROM lock_acquire('k2', 60, domain => 'orders');
SELECT acquired, reason, key, holder ->> 'scope' AS scope FROM lock_acquire(NULL, 60, domain => 'orders', master => true);
SELECT acquired, reason, key FROM lock_acquire('k2', 60, domain => 'orders');
-- it neither needs nor reads a key
SELECT acquired, reason, key FROM lock_acquire('k3', 60, domain => 'orders', master => true);
SELECT acquired, reason, key FROM lock_acquire('no key: at all', 60, domain => 'orders', master => true);
SELECT lock_try('', 60, domain => 'orders', master => true);
SELECT lock_try(repeat('x', 1000), 60, domain => 'orders', master => true);
SELECT held FROM lock_check('k3', 'orders');
-- each domain has its own, the default domain too
SELECT acquired, key, domain FROM lock_acquire(NULL, 60, master => true);
SELECT lock_try(NULL, 60, domain => 'Orders', master => true) IS NOT NULL AS acquired;
SELECT domain, key, master, held FROM lockext_held ORDER BY domain COLLATE "C", key NULLS FIRST;
SELECT key, domain, master, held, timeout FROM lock_check(NULL, 'orders', true);
SELECT key, domain, master, held, timeout FROM lock_check('no key: at all', 'orders', master => true);
SELECT key, domain, master, held FROM lock_check(NULL, 'nowhere', true);
SELECT key, domain, master, held FROM lock_check('k', 'orders');
-- renewed, released and broken like others
SELECT acquired, key, domain, timeout FROM lock_renew(NULL, 120, domain => 'orders', master => true);
SELECT timeout FROM lock_check('k', 'orders');
SELECT token AS master FROM lock_check(NULL, 'orders', true) \gset
SELECT lock_release(NULL, :master + 1, 'orders', true);
SELECT lock_release(NULL, :master, 'orders', true), lock_release(NULL, :master, 'orders', true);
SELECT lock_break(NULL, master => true), lock_break(NULL, master => true);
SELECT domain, key, master FROM lockext_held ORDER BY domain COLLATE "C", key NULLS FIRST;
SELECT token > :master AS newer FROM lock_acquire(NULL, 60, domain => 'orders', master => true);

-- master => null is nothing at all, and without a master a key is needed
SELECT lock_acquire('k', 60, master => NULL);
SELECT lock_try('k', 60, master => NULL);
SELECT lock_release('k', master => NULL);
SELECT lock_renew('k', 60, master => NULL);
SELECT lock_check('k', master => NULL);
SELECT lock_break('k', master => NULL);
SELECT lock_acquire(NULL, 60, domain => 'orders');
SELECT lock_acquire('', 60, domain => 'orders');

SELECT count(*) = count(*) FILTER (WHERE lock_release(key, NULL, domain, master)) AS all_released FROM lockext_held;
SELECT domain, key, master FROM lockext_held ORDER BY domain COLLATE "C", key;
