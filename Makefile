# lockext: PGXS build.  ./quickstart test runs all tests.

EXTENSION = lockext
MODULE_big = lockext
DATA = sql/lockext--1.0.sql
PGFILEDESC = "lockext - named, durable locks"

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers

# installcheck needs a server that has the library preloaded; test/suite
# starts one
REGRESS_OPTS = --inputdir=$(srcdir)/test --outputdir=test/results
REGRESS = $(patsubst $(srcdir)/test/sql/%.sql,%,$(sort $(wildcard $(srcdir)/test/sql/*.sql)))
ISOLATION_OPTS = --inputdir=$(srcdir)/test/isolation --outputdir=test/results
ISOLATION = $(patsubst $(srcdir)/test/isolation/specs/%.spec,%,$(sort $(wildcard $(srcdir)/test/isolation/specs/*.spec)))
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CONFIG ?= pg_config
srcdir = .
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# any header may matter to any file
$(OBJS): $(wildcard $(srcdir)/src/*.h)
