/*
 * load.c - the load generator of relay's bench, and the server for it.
 *
 * One server serves every measurement.  Each connection begins with a request
 * of REQUEST bytes: text padded with blanks.  The fixed length prevents a read
 * beyond the request.
 *
 *   push N    the client sends N bytes
 *   pull N    the server sends N bytes
 *   both N    both send N bytes at the same time
 *   echo N    the server returns messages of N bytes until the client closes
 *   sink 0    the server reads to EOF, sends the byte count, and closes
 *   answer 0  the server returns the request and closes
 *   hold 0    the server sends one byte, then does nothing until "wake"
 *   wake 0    from now on each byte on a held connection is returned; client
 *             and server take the connections in the order of turn()
 *   drop 0    the server closes all held connections
 *
 * The server answers wake and drop with one byte.
 *
 * No measurement depends on half-closes, because some forwarders lose bytes
 * there.  After push, pull and both, the server sends one more byte, the
 * receipt, when it has sent and read everything.  The clock runs from the time
 * before the request, on a connected socket, to the receipt.  So the connect of
 * the forwarder is part of the transfer.
 *
 * The server must not be the bottleneck.  Short and idle connections are in one
 * poll loop.  A busy connection (bulk, echo) gets its own process with blocking
 * reads and writes of BUFFER bytes.  Held connections are not polled, so 10,000
 * of them cost nothing: turn() gives the next one that sends.
 *
 * END is a Unix socket (any text with a '/') or ADDRESS:PORT in numbers (IPv4).
 * For serve, push, pull, both and rtt it can also be '-', stdin and stdout.
 * Results go to stdout, or to stderr if stdout is the connection.  "serve -"
 * serves several requests on one connection, one after the other.
 *
 * "line" simulates a long and slow line: it runs a command and delays the bytes
 * between the command and its own stdin and stdout.
 */
#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	BUFFER = 256 * 1024,
	REQUEST = 32,
	BACKLOG = 4096,
	STRIDE = 97, /* from one held connection that sends to the next */
	MOST_TRIPS = 1 << 20,
	PULLERS = 16,                 /* most pulls beside round trips */
	LINE_HOLDS = 4 * 1024 * 1024, /* bytes that wait, as in windows and buffers */
	LINE_RING = 16 * 1024 * 1024, /* LINE_HOLDS, and 12 MB in flight */
	LINE_PIECE = 1460,
	PIECES = 65536
};

union address {
	struct sockaddr any;
	struct sockaddr_un un;
	struct sockaddr_in in;
};

struct end {
	union address address;
	socklen_t length;
};

struct wire { /* one connection: a socket twice, or stdin and stdout */
	int in, out;
};

struct set { /* descriptors to poll, unordered */
	struct pollfd *at;
	nfds_t count;
};

#define HEAD_START 0.1 /* seconds that pulls run before the round trips */

static char buffer[BUFFER];
static int silent; /* worker of a server: its client may close at any time */

/* --- basics --- */

static void
die(const char *what)
{
	if (!silent)
		fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *
allocate(int count, size_t size)
{
	void *p = count > 0 ? calloc((size_t)count, size) : NULL;

	if (p == NULL)
		die("allocating");
	return p;
}

static int
write_all(int fd, const char *from, size_t n)
{
	while (n > 0) {
		ssize_t written = write(fd, from, n);

		if (written < 0)
			return 0;
		from += written;
		n -= (size_t)written;
	}
	return 1;
}

static int
read_all(int fd, char *to, size_t n)
{
	while (n > 0) {
		ssize_t got = read(fd, to, n);

		if (got <= 0)
			return 0;
		to += got;
		n -= (size_t)got;
	}
	return 1;
}

static void
set_nonblocking(struct wire w, int flag)
{
	fcntl(w.in, F_SETFL, flag);
	fcntl(w.out, F_SETFL, flag);
}

static size_t
chunk(long long n)
{
	return n < BUFFER ? (size_t)n : BUFFER;
}

static void
send_bytes(int fd, long long n)
{
	for (; n > 0; n -= (long long)chunk(n))
		if (!write_all(fd, buffer, chunk(n)))
			die("sending");
}

static void
receive_bytes(int fd, long long n)
{
	while (n > 0) {
		ssize_t got = read(fd, buffer, chunk(n));

		if (got <= 0)
			die("receiving");
		n -= got;
	}
}

/* One direction uses blocking calls; both at the same time use poll. */
static void
transfer(struct wire w, long long to_send, long long to_receive)
{
	struct pollfd p[2] = { { w.in, POLLIN, 0 }, { w.out, POLLOUT, 0 } };
	ssize_t n;

	set_nonblocking(w, O_NONBLOCK);
	while (to_send > 0 && to_receive > 0) {
		if (poll(p, 2, -1) < 0)
			die("poll");
		if (p[0].revents != 0) {
			if ((n = read(w.in, buffer, chunk(to_receive))) <= 0)
				die("receiving");
			to_receive -= n;
		}
		if (p[1].revents != 0) {
			if ((n = write(w.out, buffer, chunk(to_send))) < 0)
				die("sending");
			to_send -= n;
		}
	}
	set_nonblocking(w, 0);
	send_bytes(w.out, to_send);
	receive_bytes(w.in, to_receive);
}

/* --- ends --- */

static struct end
parse_unix(const char *path)
{
	struct end end = { .length = sizeof end.address.un };

	end.address.un.sun_family = AF_UNIX;
	if (strlen(path) >= sizeof end.address.un.sun_path) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(end.address.un.sun_path, path);
	return end;
}

static struct end
parse_tcp(const char *text)
{
	struct end end = { .length = sizeof end.address.in };
	char host[INET_ADDRSTRLEN];

	end.address.in.sin_family = AF_INET;
	if (sscanf(text, "%15[0-9.]:%hu", host, &end.address.in.sin_port) != 2 ||
	    inet_pton(AF_INET, host, &end.address.in.sin_addr) != 1) {
		fprintf(stderr,
		    "load: %s: neither a path with a '/' nor ADDRESS:PORT in numbers (IPv4)\n",
		    text);
		exit(2);
	}
	end.address.in.sin_port = htons(end.address.in.sin_port);
	return end;
}

static struct end
parse(const char *text)
{
	return strchr(text, '/') != NULL ? parse_unix(text) : parse_tcp(text);
}

static int
new_socket(const struct end *end)
{
	int fd = socket(end->address.any.sa_family, SOCK_STREAM, 0);
	int on = 1;

	if (fd < 0)
		die("socket");
	if (end->address.any.sa_family != AF_UNIX) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	}
	return fd;
}

static int
try_connect(const struct end *end)
{
	int fd = new_socket(end);

	if (connect(fd, &end->address.any, end->length) == 0)
		return fd;
	close(fd);
	return -1;
}

static int
dial(const struct end *end)
{
	int fd = try_connect(end);

	if (fd < 0)
		die("connect");
	return fd;
}

static struct wire
open_wire(const char *text)
{
	struct wire w = { STDIN_FILENO, STDOUT_FILENO };
	struct end end;

	if (strcmp(text, "-") != 0) {
		end = parse(text);
		w.in = w.out = dial(&end);
	}
	return w;
}

static FILE *
results(struct wire w)
{
	return w.out == STDOUT_FILENO ? stderr : stdout;
}

static int
ask(int fd, const char *job, long long n)
{
	char request[REQUEST + 1];
	int length = snprintf(request, sizeof request, "%s %lld", job, n);

	memset(request + length, ' ', (size_t)(REQUEST - length));
	return write_all(fd, request, REQUEST);
}

/* --- the server --- */

static struct set working, held; /* working.at[0] is the listener */

static void
add(struct set *set, int fd)
{
	struct pollfd *at = realloc(set->at, (set->count + 1) * sizeof *at);

	if (at == NULL)
		die("memory");
	set->at = at;
	at[set->count].fd = fd;
	at[set->count].events = POLLIN;
	at[set->count++].revents = 0;
}

static int
take(struct set *set, nfds_t i)
{
	int fd = set->at[i].fd;

	set->at[i] = set->at[--set->count];
	return fd;
}

static void
close_all(struct set *set)
{
	while (set->count > 0)
		close(take(set, 0));
}

static void
count_to_end(int fd)
{
	long long total = 0;
	ssize_t got;

	while ((got = read(fd, buffer, BUFFER)) > 0)
		total += got;
	snprintf(buffer, BUFFER, "%lld\n", total);
	write_all(fd, buffer, strlen(buffer));
}

static void
echo(struct wire w, size_t size)
{
	while (read_all(w.in, buffer, size) && write_all(w.out, buffer, size))
		continue;
}

static void
work(struct wire w, const char *job, long long n)
{
	if (strcmp(job, "sink") == 0) {
		count_to_end(w.in);
	} else if (strcmp(job, "echo") == 0) {
		echo(w, chunk(n));
	} else {
		transfer(w, strcmp(job, "push") == 0 ? 0 : n, strcmp(job, "pull") == 0 ? 0 : n);
		write_all(w.out, buffer, 1); /* the receipt */
	}
}

static int
fork_worker(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		silent = 1;
		close_all(&working);
	}
	return pid == 0;
}

static void
fork_to_work(int fd, const char *job, long long n)
{
	struct wire w = { fd, fd };

	if (!fork_worker())
		return;
	close_all(&held);
	work(w, job, n);
	_exit(0);
}

/* The held connection that sends after ${last}, of ${count}. */
static nfds_t
turn(nfds_t last, nfds_t count)
{
	return (last + STRIDE) % count;
}

/* A child process serves all held connections until the first one closes. */
static void
fork_to_wake(void)
{
	nfds_t i = 0;

	if (held.count > 0 && fork_worker()) {
		while (read(held.at[i].fd, buffer, 1) == 1 && write_all(held.at[i].fd, buffer, 1))
			i = turn(i, held.count);
		_exit(0);
	}
	close_all(&held);
}

static void
serve_request(int fd)
{
	char request[REQUEST + 1], job[REQUEST + 1];
	long long n;

	request[REQUEST] = '\0';
	if (recv(fd, request, REQUEST, MSG_WAITALL) != REQUEST ||
	    sscanf(request, "%s %lld", job, &n) != 2) {
		close(fd);
		return;
	}
	if (strcmp(job, "hold") == 0 && write_all(fd, request, 1)) {
		add(&held, fd);
		return;
	}
	if (strcmp(job, "answer") == 0) {
		write_all(fd, request, REQUEST);
	} else if (strcmp(job, "wake") == 0) {
		fork_to_wake();
		write_all(fd, request, 1);
	} else if (strcmp(job, "drop") == 0) {
		close_all(&held);
		write_all(fd, request, 1);
	} else {
		fork_to_work(fd, job, n);
	}
	close(fd);
}

static void
accept_some(int listener)
{
	int fd, i;

	for (i = 0; i < 16 && (fd = accept(listener, NULL, NULL)) >= 0; i++)
		add(&working, fd);
}

/* Serve a channel without sockets: all requests arrive on stdin. */
static void
serve_stdio(void)
{
	struct wire w = { STDIN_FILENO, STDOUT_FILENO };
	char request[REQUEST + 1], job[REQUEST + 1];
	long long n;

	request[REQUEST] = '\0';
	while (read_all(w.in, request, REQUEST) && sscanf(request, "%s %lld", job, &n) == 2) {
		if (strcmp(job, "answer") == 0)
			write_all(w.out, request, REQUEST);
		else
			work(w, job, n);
	}
}

static void
serve_socket(const char *text)
{
	struct end end = parse(text);
	int listener = new_socket(&end);
	nfds_t i;

	if (bind(listener, &end.address.any, end.length) < 0 || listen(listener, BACKLOG) < 0)
		die(text);
	fcntl(listener, F_SETFL, O_NONBLOCK);
	signal(SIGCHLD, SIG_IGN); /* no zombies */
	add(&working, listener);
	puts("ready");
	fflush(stdout);
	for (;;) {
		if (poll(working.at, working.count, -1) < 0)
			die("poll");
		for (i = working.count; i-- > 1;)
			if (working.at[i].revents != 0)
				serve_request(take(&working, i));
		if (working.at[0].revents != 0)
			accept_some(listener);
	}
}

static void
serve(char **args)
{
	if (strcmp(args[1], "-") == 0)
		serve_stdio();
	else
		serve_socket(args[1]);
}

/* --- the clients --- */

static void
transfer_once(const char *job, struct wire w, long long n)
{
	if (!ask(w.out, job, n))
		die("request");
	transfer(w, strcmp(job, "pull") == 0 ? 0 : n, strcmp(job, "push") == 0 ? 0 : n);
	receive_bytes(w.in, 1);
}

/* Each of ${count} processes transfers an equal part. */
static void
transfer_at_once(const char *job, const char *to, long long n, int count)
{
	int i, status = 0;

	for (i = 0; i < count; i++)
		if (fork() == 0) {
			transfer_once(job, open_wire(to), n / count);
			_exit(0);
		}
	while (i-- > 0)
		if (wait(&status) < 0 || status != 0)
			exit(1);
}

static void
bulk(char **args)
{
	const char *job = args[0];
	int count = args[3] != NULL ? atoi(args[3]) : 1;
	struct wire w = { -1, -1 };
	long long n = atoll(args[2]);
	double begun, seconds;

	if (count == 1)
		w = open_wire(args[1]);
	begun = now();
	if (count == 1)
		transfer_once(job, w, n);
	else
		transfer_at_once(job, args[1], n, count);
	seconds = now() - begun;
	if (strcmp(job, "both") == 0)
		n *= 2;
	fprintf(results(w), "%.1f %.4f\n", (double)n / seconds / 1e6, seconds);
}

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Bytes received by each pull, in memory shared by all processes. */
static long long volatile *pulled;

static long long
pulled_by(int pulls)
{
	long long total = 0;

	while (pulls-- > 0)
		total += pulled[pulls];
	return total;
}

/*
 * Send a message and read it back, for ${seconds}.  The first twentieth is not
 * counted.  Print the median and the 99th percentile in us, and the MB/s of the
 * pulls beside, if there are any.
 */
static void
round_trips(struct wire w, size_t size, double seconds, int pulls)
{
	double *took = allocate(MOST_TRIPS, sizeof *took), start = now(), begun, ended;
	long long before = pulled_by(pulls);
	int count = 0, warm;

	if (!ask(w.out, "echo", (long long)size))
		die("request");
	for (begun = start; count < MOST_TRIPS && begun < start + seconds; begun = ended) {
		if (!write_all(w.out, buffer, size) || !read_all(w.in, buffer, size))
			die("round trip");
		ended = now();
		took[count++] = ended - begun;
	}
	warm = count / 20;
	count -= warm;
	qsort(took + warm, (size_t)count, sizeof *took, by_size);
	fprintf(results(w), "%.1f %.1f", took[warm + count / 2] * 1e6,
	    took[warm + count * 99 / 100] * 1e6);
	if (pulls > 0)
		fprintf(results(w), " %.3f",
		    (double)(pulled_by(pulls) - before) / (now() - start) / 1e6);
	fputs("\n", results(w));
	free(took);
}

static void
rtt(char **args)
{
	round_trips(open_wire(args[1]), chunk(atoll(args[2])), atof(args[3]), 0);
}

static void
share_counts(void)
{
	size_t size = PULLERS * sizeof *pulled;
	FILE *file = tmpfile();
	void *at = MAP_FAILED;

	if (file != NULL && ftruncate(fileno(file), (off_t)size) == 0)
		at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
	if (at == MAP_FAILED)
		die("shared memory");
	pulled = at;
}

static void
pull_on(const struct end *end, long long volatile *count)
{
	int fd = dial(end);
	ssize_t got;

	if (!ask(fd, "pull", 1LL << 50))
		die("request");
	while ((got = read(fd, buffer, BUFFER)) > 0)
		*count += got;
	die("receiving");
}

static void
rest(double seconds)
{
	struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };

	nanosleep(&t, NULL);
}

/* Round trips of one byte beside pulls at full speed. */
static void
beside(char **args)
{
	struct end end = parse(args[1]);
	int pulls = atoi(args[2]), i;
	pid_t puller[PULLERS];

	share_counts();
	if (pulls > PULLERS)
		pulls = PULLERS;
	for (i = 0; i < pulls; i++) {
		puller[i] = fork();
		if (puller[i] == 0)
			pull_on(&end, &pulled[i]);
	}
	rest(args[4] != NULL ? atof(args[4]) : HEAD_START);
	round_trips(open_wire(args[1]), 1, atof(args[3]), pulls);
	while (i-- > 0) {
		kill(puller[i], SIGKILL);
		waitpid(puller[i], NULL, 0);
	}
}

static struct pollfd
begin(const struct end *end)
{
	struct pollfd slot = { dial(end), POLLIN, 0 };

	if (!ask(slot.fd, "answer", 0))
		die("request");
	return slot;
}

/* Connect, request, response, close: SECONDS long, CONCURRENT at a time. */
static void
crr(char **args)
{
	struct end end = parse(args[1]);
	double start = now(), stop = start + atof(args[2]);
	int slots = atoi(args[3]), i;
	struct pollfd *slot = allocate(slots, sizeof *slot);
	long done = 0, received = 0;
	ssize_t n;

	for (i = 0; i < slots; i++)
		slot[i] = begin(&end);
	while (now() < stop) {
		if (poll(slot, (nfds_t)slots, 5000) <= 0)
			die("no answer");
		for (i = 0; i < slots; i++) {
			if (slot[i].revents == 0)
				continue;
			if ((n = read(slot[i].fd, buffer, BUFFER)) < 0)
				die("answer");
			received += n;
			if (n > 0)
				continue;
			close(slot[i].fd);
			slot[i] = begin(&end);
			done++;
		}
	}
	if (received < done * REQUEST)
		die("answers are cut short");
	printf("%.0f\n", (double)done / (now() - start));
}

static void
ask_server(const struct end *end, const char *job)
{
	int fd = dial(end);

	if (!ask(fd, job, 0) || !read_all(fd, buffer, 1))
		die(job);
	close(fd);
}

static void
hold(struct set *set, const struct end *end, nfds_t count)
{
	double begun = now();

	while (set->count < count) {
		int fd = dial(end);

		if (!ask(fd, "hold", 0) || !read_all(fd, buffer, 1))
			die("hold");
		add(set, fd);
	}
	printf("%.4f\n", now() - begun);
}

/*
 * Send one byte and read it back, on one held connection after the other.
 * Print the median, the 99th percentile and the maximum in us.
 */
static void
wake(const struct set *set, const struct end *end, int count, double pause)
{
	static int awake;
	static nfds_t next;
	double *took = allocate(count, sizeof *took), begun;
	int i;

	if (!awake)
		ask_server(end, "wake");
	awake = 1;
	for (i = 0; i < count; i++, next = turn(next, set->count)) {
		rest(pause);
		begun = now();
		if (!write_all(set->at[next].fd, buffer, 1) ||
		    !read_all(set->at[next].fd, buffer, 1))
			die("wake");
		took[i] = now() - begun;
	}
	qsort(took, (size_t)count, sizeof *took, by_size);
	printf("%.1f %.1f %.1f\n", took[count / 2] * 1e6, took[count * 99 / 100] * 1e6,
	    took[count - 1] * 1e6);
	free(took);
}

/*
 * Commands on stdin: "hold COUNT" opens connections until COUNT are held, "wake
 * COUNT MS" sends on COUNT of them with a pause of MS before each.
 */
static void
idle(char **args)
{
	struct end end = parse(args[1]);
	struct set set = { NULL, 0 };
	char line[80];
	double ms;
	int count;

	ask_server(&end, "drop"); /* those of an earlier client */
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin) != NULL) {
		if (sscanf(line, "hold %d", &count) == 1)
			hold(&set, &end, (nfds_t)count);
		else if (sscanf(line, "wake %d %lf", &count, &ms) == 2 && set.count > 0)
			wake(&set, &end, count, ms / 1e3);
		fflush(stdout);
	}
}

/* Open COUNT connections, send a request on each, then read all answers. */
static void
crowd(char **args)
{
	struct end end = parse(args[1]);
	int count = atoi(args[2]), i;
	int *fd = allocate(count, sizeof *fd);
	double begun = now();

	for (i = 0; i < count; i++)
		fd[i] = dial(&end);
	for (i = 0; i < count; i++)
		if (!ask(fd[i], "answer", 0))
			die("request");
	for (i = 0; i < count; i++)
		if (!read_all(fd[i], buffer, REQUEST))
			die("answer");
	printf("%d %.4f\n", count, now() - begun);
}

/* The time from a command's exec to its first accepted connection, in ms. */
static void
start(char **args)
{
	struct end end = parse(args[1]);
	struct timespec pause = { 0, 10000 };
	double begun = now();
	pid_t pid = fork();
	int fd;

	if (pid == 0) {
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execvp(args[2], args + 2);
		die(args[2]);
	}
	while ((fd = try_connect(&end)) < 0 && now() < begun + 5)
		nanosleep(&pause, NULL);
	if (fd < 0)
		fprintf(stderr, "load: %s does not listen\n", args[2]);
	else
		printf("%.2f\n", (now() - begun) * 1e3);
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
}

/* --- the line --- */

struct piece {
	long long end; /* offset in the whole stream */
	double due;    /* time of arrival */
};

struct way { /* one direction; to is -1 after its end */
	int from, to;
	long long taken, given;
	double delay, rate; /* seconds, bytes per second */
	double free_at;     /* when the line accepts the next piece */
	char *ring;
	struct piece *piece;
	unsigned first, last; /* pieces, modulo PIECES */
	int over;             /* EOF was read */
};

static void
lay(struct way *w, int from, int to, double delay, double rate)
{
	w->from = from;
	w->to = to;
	w->delay = delay;
	w->rate = rate;
	w->ring = allocate(LINE_RING, 1);
	w->piece = allocate(PIECES, sizeof *w->piece);
	fcntl(from, F_SETFL, O_NONBLOCK);
	fcntl(to, F_SETFL, O_NONBLOCK);
}

/* A piece is what the line carries in 1 ms, but at least one packet. */
static size_t
way_room(const struct way *w)
{
	double most = LINE_HOLDS + w->rate * w->delay;
	long long room = (most < LINE_RING ? (long long)most : LINE_RING) - (w->taken - w->given);
	long long piece = w->rate > LINE_PIECE * 1000 ? (long long)(w->rate / 1000) : LINE_PIECE;
	long long to_edge = LINE_RING - w->taken % LINE_RING;

	if (w->over || w->to == -1 || room < piece || w->last - w->first == PIECES)
		return 0;
	return (size_t)(piece < to_edge ? piece : to_edge);
}

static void
way_take(struct way *w, double at)
{
	ssize_t got = read(w->from, w->ring + w->taken % LINE_RING, way_room(w));
	struct piece *p = &w->piece[w->last % PIECES];

	if (got < 0)
		return;
	if (got == 0)
		w->over = 1;
	w->taken += got;
	w->free_at = (w->free_at > at ? w->free_at : at) + (double)got / w->rate;
	p->end = w->taken;
	p->due = w->free_at + w->delay;
	w->last++;
}

static int
way_is_due(const struct way *w, double at)
{
	return w->to != -1 && w->first != w->last && w->piece[w->first % PIECES].due <= at;
}

/* Write the pieces that have arrived; after the last piece send EOF. */
static void
way_give(struct way *w, double at)
{
	long long to_edge, n;
	ssize_t given;

	if (w->to == -1)
		return;
	for (; way_is_due(w, at); w->first++) {
		while ((n = w->piece[w->first % PIECES].end - w->given) > 0) {
			to_edge = LINE_RING - w->given % LINE_RING;
			given = write(w->to, w->ring + w->given % LINE_RING,
			    (size_t)(n < to_edge ? n : to_edge));
			if (given < 0 && errno == EAGAIN)
				return;
			if (given < 0)
				w->given = w->taken; /* no reader */
			else
				w->given += given;
		}
	}
	if (w->over && w->first == w->last) {
		close(w->to);
		w->to = -1;
	}
}

static void
run_behind(char **command, struct way *there, struct way *back, double delay, double rate)
{
	int down[2], up[2];
	pid_t pid;

	if (pipe(down) < 0 || pipe(up) < 0 || (pid = fork()) < 0)
		die("starting the command");
	if (pid == 0) {
		dup2(down[0], STDIN_FILENO);
		dup2(up[1], STDOUT_FILENO);
		close(down[0]);
		close(down[1]);
		close(up[0]);
		close(up[1]);
		signal(SIGPIPE, SIG_DFL);
		execvp(command[0], command);
		die(command[0]);
	}
	close(down[0]);
	close(up[1]);
	lay(there, STDIN_FILENO, down[1], delay, rate);
	lay(back, up[0], STDOUT_FILENO, delay, rate);
}

/* Seconds until the way can write to ${to}; 1 if there is nothing to write. */
static double
ask_for(const struct way *w, double at, fd_set *in, fd_set *out)
{
	if (way_room(w) > 0)
		FD_SET(w->from, in);
	if (way_is_due(w, at))
		FD_SET(w->to, out);
	else if (w->to != -1 && w->first != w->last)
		return w->piece[w->first % PIECES].due - at;
	return 1;
}

static void
line(char **args)
{
	static struct way there, back;
	struct timespec t = { 0, 0 };
	fd_set in, out;
	double at, wait, other; /* at most a second */

	run_behind(args + 3, &there, &back, atof(args[1]) / 2e3, atof(args[2]) * 125e3);
	while (back.to != -1) {
		FD_ZERO(&in);
		FD_ZERO(&out);
		at = now();
		wait = ask_for(&there, at, &in, &out);
		other = ask_for(&back, at, &in, &out);
		t.tv_nsec = (long)((other < wait ? other : wait) * 999999999);
		if (pselect(FD_SETSIZE, &in, &out, NULL, &t, NULL) < 0)
			die("select");
		at = now();
		if (FD_ISSET(there.from, &in))
			way_take(&there, at);
		if (FD_ISSET(back.from, &in))
			way_take(&back, at);
		way_give(&there, at);
		way_give(&back, at);
	}
}

static const struct mode {
	const char *name, *args;
	int count;                /* least number of args */
	void (*run)(char **args); /* args[0] is the name */
} modes[] = {
	{ "serve", "END", 1, serve },
	{ "push", "END BYTES [CONNECTIONS]", 2, bulk },
	{ "pull", "END BYTES [CONNECTIONS]", 2, bulk },
	{ "both", "END BYTES [CONNECTIONS]", 2, bulk },
	{ "rtt", "END SIZE SECONDS", 3, rtt },
	{ "beside", "END PULLS SECONDS [SECONDS BEFORE]", 3, beside },
	{ "crr", "END SECONDS CONCURRENT", 3, crr },
	{ "idle", "END", 1, idle },
	{ "crowd", "END COUNT", 2, crowd },
	{ "start", "END COMMAND [ARG ...]", 2, start },
	{ "line", "RTT_MS MBIT_S COMMAND [ARG ...]", 3, line },
};

int
main(int argc, char **argv)
{
	size_t i, count = sizeof modes / sizeof *modes;

	signal(SIGPIPE, SIG_IGN);
	for (i = 0; argc > 1 && i < count; i++)
		if (strcmp(argv[1], modes[i].name) == 0 && argc - 2 >= modes[i].count) {
			modes[i].run(argv + 1);
			return 0;
		}
	for (i = 0; i < count; i++)
		fprintf(stderr, "%s load %s %s\n", i == 0 ? "usage:" : "      ", modes[i].name,
		    modes[i].args);
	return 2;
}
