.POSIX:

PREFIX = /usr/local
CC = c99
CFLAGS = -O2 -g
POSIX = 0

WARN = -std=c99 -pedantic -Wall -Wextra -Wshadow -Wconversion
ROOMS = endpoint.o sock.o spawn.o dial.o end.o buf.o half.o pair.o signals.o pollset.o os.o log.o

all: relay

relay: relay.o $(ROOMS)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ relay.o $(ROOMS)

.SUFFIXES: .c .o
.c.o:
	$(CC) $(WARN) -D_POSIX_C_SOURCE=200809L -DRELAY_POSIX=$(POSIX) $(CFLAGS) -c -o $@ $<

# The one room beyond POSIX chooses its feature macros itself.
os.o: os.c
	$(CC) $(WARN) -DRELAY_POSIX=$(POSIX) $(CFLAGS) -c -o $@ os.c

relay.o $(ROOMS): relay.h
