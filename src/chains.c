/*
 * chains.c
 *		Where rows of the lock table were last found, so that the next look for the
 *		same name need not go through the index.
 *
 * A place is the root of a HOT chain, that is, what index entries point to: it stays
 * the same from one acquisition to the next, as long as the page has room.  With it goes
 * the version that was the newest then; if it no longer is, or was rolled back, there
 * are the others of the chain.  Places are kept in shared memory, so that whoever looks
 * next profits, or, where the library is not preloaded, by each process for itself.
 *
 * They are hints.  Each is one word, read and written as a whole and without a lock.
 * Names that share a word by their hash take it from each other, which of 10,000 about
 * one in seven does with another.  Nothing ever removes a place: the row may have moved
 * or gone, or the transaction that made it rolled back.  Whoever goes by a place has to
 * see that a row is there and that it is the one.
 */
#include "postgres.h"

#include "chains.h"

#include "access/htup_details.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"

/* How many are kept in shared memory (512 kB) and by a process.  Powers of two, 2^22 at most. */
#define SHARED_CHAINS 65536
#define OWN_CHAINS 256

/*
 * Block number, offset numbers of root and newest version, and a part of the hash that
 * does not choose the word: most places of other names are told by that.  0: none, as no
 * offset number is 0.
 */
#define OFFSET_BITS 11
#define CHECK_BITS 10
#define LOW_BITS(n, bits) ((n) & ((1 << (bits)) - 1))
#define CHAIN(block, root, newest, check) \
	(((uint64) (block) << 32) | \
	 ((uint32) (root) << (OFFSET_BITS + CHECK_BITS)) | ((newest) << CHECK_BITS) | (check))
#define CHAIN_BLOCK(chain) ((BlockNumber) ((chain) >> 32))
#define CHAIN_ROOT(chain) ((OffsetNumber) LOW_BITS((chain) >> (OFFSET_BITS + CHECK_BITS), OFFSET_BITS))
#define CHAIN_NEWEST(chain) ((OffsetNumber) LOW_BITS((chain) >> CHECK_BITS, OFFSET_BITS))
#define CHAIN_CHECK(chain) ((uint32) LOW_BITS((chain), CHECK_BITS))

StaticAssertDecl(MaxHeapTuplesPerPage < (1 << OFFSET_BITS), "offset numbers need more bits");

static pg_atomic_uint64 own_chains[OWN_CHAINS];
static pg_atomic_uint64 *chains = own_chains;
static uint32 nchains = OWN_CHAINS;

static void
clear(pg_atomic_uint64 *memory, int n)
{
	for (int i = 0; i < n; i++)
		pg_atomic_init_u64(&memory[i], 0);
}

void
lockext_chains_init(void)
{
	clear(own_chains, OWN_CHAINS);
}

Size
lockext_chains_size(void)
{
	return SHARED_CHAINS * sizeof(pg_atomic_uint64);
}

/* At the start of the server, and in each process where those don't inherit memory. */
void
lockext_chains_attach(void *memory, bool found)
{
	chains = memory;
	nchains = SHARED_CHAINS;
	if (!found)
		clear(chains, SHARED_CHAINS);
}

/* Copies of a database have lock tables of the same OID. */
static uint32
hash_of(Oid relid, const LockName *name)
{
	return hash_combine(lockext_name_hash(name), hash_combine(relid, MyDatabaseId));
}

static uint32
check_of(uint32 hash)
{
	return hash >> (32 - CHECK_BITS);
}

/* False if no place is known. */
bool
lockext_chain_recall(Oid relid, const LockName *name, ItemPointer root, ItemPointer newest)
{
	uint32		hash = hash_of(relid, name);
	uint64		chain = pg_atomic_read_u64(&chains[hash % nchains]);

	if (chain == 0 || CHAIN_CHECK(chain) != check_of(hash))
		return false;
	ItemPointerSet(root, CHAIN_BLOCK(chain), CHAIN_ROOT(chain));
	ItemPointerSet(newest, CHAIN_BLOCK(chain), CHAIN_NEWEST(chain));
	return true;
}

/* Both are on the same page. */
void
lockext_chain_remember(Oid relid, const LockName *name,
					   const ItemPointerData *root, const ItemPointerData *newest)
{
	uint32		hash = hash_of(relid, name);

	pg_atomic_write_u64(&chains[hash % nchains],
						CHAIN(ItemPointerGetBlockNumber(root), ItemPointerGetOffsetNumber(root),
							  ItemPointerGetOffsetNumber(newest), check_of(hash)));
}
