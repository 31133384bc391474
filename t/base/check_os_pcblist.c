/* check_os_pcblist.c - the list of TCP sockets of macOS, and one of FreeBSD's form */
#include <arpa/inet.h>

#include "t/check.h"

/* The system's call, which pcblist_ask makes. */
static int sysctlbyname(const char *name, void *p, size_t *size, const void *new, size_t n);

#include "base/os_pcblist.c"

static unsigned char list[65536];
static size_t used;

static struct sockaddr_storage peer, local, other;

static void
address(struct sockaddr_storage *ss, const char *host, int port)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		ss->ss_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		return;
	}
	ck_assert_int_eq(inet_pton(AF_INET6, host, &in6->sin6_addr), 1);
	ss->ss_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
}

static void
add(const void *p, size_t n)
{
	ck_assert_uint_le(used + n, sizeof(list));
	if (p == NULL)
		memset(list + used, 0, n);
	else
		memcpy(list + used, p, n);
	used += n;
}

static void
add32(uint32_t n)
{
	add(&n, 4);
}

static void
add_address(const struct sockaddr_storage *ss)
{
	if (ss->ss_family == AF_INET6) {
		add(&((const struct sockaddr_in6 *)ss)->sin6_addr, 16);
		return;
	}
	add(NULL, 12);
	add(&((const struct sockaddr_in *)ss)->sin_addr, 4);
}

static void
add_port(const struct sockaddr_storage *ss)
{
	add(ss->ss_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)ss)->sin6_port
				      : &((const struct sockaddr_in *)ss)->sin_port,
	    2);
}

/* xinpgen: its length, how many sockets, two generations */
static void
add_head(uint32_t count)
{
	add32(24);
	add32(count);
	add(NULL, 16);
}

/* Pad the record that began at ${start} to ${n} bytes, and then to 8. */
static void
fill(size_t start, size_t n)
{
	add(NULL, start + n - used);
	add(NULL, -used % 8);
}

/* xinpcb_n, packed to 4 bytes */
static void
add_inpcb(const struct sockaddr_storage *l, const struct sockaddr_storage *f)
{
	size_t start = used;
	unsigned char bytes[4] = { l->ss_family == AF_INET6 ? 2 : 1, 64, 6, 0 };

	add32(104); /* xi_len */
	add32(0x10); /* xi_kind */
	add(NULL, 8); /* xi_inpp */
	add_port(f);
	add_port(l);
	add(NULL, 8 + 8 + 4 + 4); /* inp_ppcb, inp_gencnt, inp_flags, inp_flow */
	add(bytes, 4); /* inp_vflag, inp_ip_ttl, inp_ip_p, a hole */
	add_address(f);
	add_address(l);
	fill(start, 104);
}

/* xsocket_n, packed to 4 bytes */
static void
add_socket(bool open, uint32_t uid)
{
	size_t start = used;
	uint64_t so = open ? 0x1234567800000000 : 0; /* only the high half is set */

	add32(104); /* xso_len */
	add32(0x01); /* xso_kind */
	add(&so, 8);
	add(NULL, 2 + 2); /* so_type, a hole */
	add(NULL, 4); /* so_options */
	add(NULL, 2 + 2); /* so_linger, so_state */
	add(NULL, 8); /* so_pcb */
	add(NULL, 4 + 4); /* xso_protocol, xso_family */
	add(NULL, 2 + 2 + 2 + 2); /* so_qlen, so_incqlen, so_qlimit, so_timeo */
	add(NULL, 2 + 2); /* so_error, a hole */
	add(NULL, 4 + 4); /* so_pgid, so_oobmark */
	add32(uid); /* so_uid */
	fill(start, 104);
}

/* xtcpcb_n */
static void
add_tcpcb(uint32_t state)
{
	size_t start = used;

	add32(204); /* xt_len */
	add32(0x20); /* xt_kind */
	add(NULL, 8); /* t_segq */
	add(NULL, 4); /* t_dupacks */
	add(NULL, 4 * 4); /* t_timer */
	add32(state); /* t_state */
	fill(start, 204);
}

/* A part that the search does not need: 2, 4 or 8. */
static void
add_part(uint32_t kind, uint32_t n)
{
	size_t start = used;

	add32(n);
	add32(kind);
	fill(start, n);
}

static void
add_one(const struct sockaddr_storage *l, const struct sockaddr_storage *f, bool open, uint32_t uid,
    uint32_t state)
{
	add_inpcb(l, f);
	add_socket(open, uid);
	add_part(2, 36);
	add_part(4, 36);
	add_part(8, 136);
	add_tcpcb(state);
}

static int
find_in(const struct pcblist_form *form, size_t size, uid_t *uid)
{
	/* Memory of that size: a sanitizer finds each byte that is read beside it. */
	void *p = malloc(size + 1);
	int r;

	*uid = 77777;
	memcpy(p, list, size);
	p = realloc(p, size == 0 ? 1 : size);
	errno = 0;
	r = pcblist_uid(
	    form, p, size, (struct sockaddr *)&peer, (struct sockaddr *)&local, uid);
	free(p);
	if (r == -1)
		ck_assert(errno == ENOENT || errno == EBADMSG);
	else
		ck_assert_int_eq(r, 1);
	return r == 1 ? 0 : errno;
}

static int
find(uid_t *uid)
{
	return find_in(&pcblist_darwin, used, uid);
}

static void
start(const char *p, const char *l)
{
	used = 0;
	address(&peer, p, 40000);
	address(&local, l, 8888);
	address(&other, p, 40001);
}

START_TEST(the_user_of_the_peer_is_found_among_others)
{
	static const char *const hosts[][2] = { { "127.0.0.1", "127.0.0.1" },
		{ "127.0.0.1", "127.1.2.3" }, { "::1", "::1" } };
	size_t i;
	uid_t uid;

	for (i = 0; i < 3; i++) {
		start(hosts[i][0], hosts[i][1]);
		add_head(4);
		add_one(&other, &local, true, 501, 4);
		add_one(&local, &peer, true, 502, 4); /* our own end */
		add_one(&peer, &local, true, 503, 4);
		add_one(&peer, &other, true, 504, 4);
		add_head(4);
		ck_assert_int_eq(find(&uid), 0);
		ck_assert_uint_eq(uid, 503);
	}
}
END_TEST

START_TEST(a_mapped_address_is_that_of_ipv4)
{
	uid_t uid;

	start("127.0.0.1", "127.0.0.1");
	add_head(1);
	add_one(&peer, &local, true, 503, 4);
	add_head(1);
	address(&peer, "::ffff:127.0.0.1", 40000);
	address(&local, "::ffff:127.0.0.1", 8888);
	ck_assert_int_eq(find(&uid), 0);
	ck_assert_uint_eq(uid, 503);
}
END_TEST

START_TEST(families_are_not_mixed)
{
	uid_t uid;

	/* An IPv6 address that ends in the bytes of an IPv4 address. */
	start("1::7f00:1", "1::7f00:1");
	add_head(1);
	add_one(&peer, &local, true, 503, 4);
	add_head(1);
	address(&peer, "127.0.0.1", 40000);
	address(&local, "127.0.0.1", 8888);
	ck_assert_int_eq(find(&uid), ENOENT);

	start("127.0.0.1", "127.0.0.1");
	address(&local, "::1", 8888);
	add_head(1);
	add_one(&peer, &peer, true, 503, 4);
	add_head(1);
	ck_assert_int_eq(find(&uid), ENOENT);
}
END_TEST

START_TEST(no_user_is_taken_from_a_socket_that_was_closed)
{
	uid_t uid;

	/* The kernel has zeros for it: uid 0 would be root. */
	start("127.0.0.1", "127.0.0.1");
	add_head(2);
	add_one(&peer, &local, false, 0, 10);
	add_one(&other, &local, true, 501, 4);
	add_head(2);
	ck_assert_int_eq(find(&uid), ENOENT);
	ck_assert_uint_eq(uid, 77777);
}
END_TEST

START_TEST(a_socket_that_still_connects_is_a_later_one)
{
	uid_t uid;

	start("127.0.0.1", "127.0.0.1");
	add_head(1);
	add_one(&peer, &local, true, 503, 2);
	add_head(1);
	ck_assert_int_eq(find(&uid), ENOENT);
}
END_TEST

START_TEST(two_users_for_one_connection_are_none)
{
	uid_t uid;

	start("127.0.0.1", "127.0.0.1");
	add_head(2);
	add_one(&peer, &local, true, 503, 4);
	add_one(&peer, &local, true, 504, 4);
	add_head(2);
	ck_assert_int_eq(find(&uid), EBADMSG);
}
END_TEST

START_TEST(parts_of_two_sockets_are_not_joined)
{
	uid_t uid;

	/* A socket without the part with its user, and the next one. */
	start("127.0.0.1", "127.0.0.1");
	add_head(2);
	add_inpcb(&peer, &local);
	add_tcpcb(4);
	add_one(&other, &local, true, 501, 4);
	add_head(2);
	ck_assert_int_eq(find(&uid), ENOENT);
	/* A part with a user before the first socket. */
	start("127.0.0.1", "127.0.0.1");
	add_head(1);
	add_socket(true, 501);
	add_inpcb(&peer, &local);
	add_tcpcb(4);
	add_head(1);
	ck_assert_int_eq(find(&uid), ENOENT);
}
END_TEST

START_TEST(the_last_record_is_not_a_part)
{
	uid_t uid;
	uint32_t kind;

	/* Its second word is a number of sockets, and can be that of a kind. */
	for (kind = 0; kind < 64; kind++) {
		start("127.0.0.1", "127.0.0.1");
		add_head(kind);
		add_one(&peer, &local, true, 503, 4);
		add_head(kind);
		ck_assert_int_eq(find(&uid), 0);
		ck_assert_uint_eq(uid, 503);
	}
	/* Nothing after it counts. */
	start("127.0.0.1", "127.0.0.1");
	add_head(0);
	add_head(0);
	add_one(&peer, &local, true, 503, 4);
	ck_assert_int_eq(find(&uid), ENOENT);
}
END_TEST

START_TEST(a_part_can_be_too_short)
{
	static const uint32_t kinds[] = { 0x01, 0x10, 0x20, 0x31 };
	size_t i;
	uid_t uid;

	for (i = 0; i < 4; i++) {
		start("127.0.0.1", "127.0.0.1");
		add_head(1);
		add_one(&peer, &local, true, 503, 4);
		add_part(kinds[i], 32);
		add_head(1);
		ck_assert_int_eq(find(&uid), EBADMSG);
	}
}
END_TEST

START_TEST(a_list_can_be_cut_anywhere)
{
	size_t size;
	uid_t uid;

	start("127.0.0.1", "127.0.0.1");
	add_head(2);
	add_one(&other, &local, true, 501, 4);
	add_one(&peer, &local, true, 503, 4);
	add_head(2);
	for (size = 0; size < used; size++)
		if (find_in(&pcblist_darwin, size, &uid) == 0)
			ck_assert_uint_eq(uid, 503);
	for (size = 0; size < 24; size++)
		ck_assert_int_eq(find_in(&pcblist_darwin, size, &uid), EBADMSG);
}
END_TEST

START_TEST(a_length_can_have_any_value)
{
	static const uint32_t hostile[] = { 0, 1, 4, 7, 8, 9, 23, 24, 25, 44, 103, 105, 4096,
		0x7fffffff, 0x80000000, 0xfffffff8, 0xfffffff9, 0xffffffff };
	size_t i, at, whole;
	uid_t uid;

	start("127.0.0.1", "127.0.0.1");
	add_head(2);
	add_one(&other, &local, true, 501, 4);
	add_one(&peer, &local, true, 503, 4);
	add_head(2);
	whole = used;
	for (at = 0; at + 4 <= whole; at += 4)
		for (i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
			uint32_t saved;

			memcpy(&saved, list + at, 4);
			memcpy(list + at, &hostile[i], 4);
			/* Only the word with the user itself changes the user. */
			if (find(&uid) == 0)
				ck_assert(uid == 503 || uid == (uid_t)hostile[i]);
			memcpy(list + at, &saved, 4);
		}
}
END_TEST

/* A record of each socket, as on FreeBSD, with fields in another order. */
static const struct pcblist_form one_record = { .head = 64,
	.length = 8,
	.inpcb = 72,
	.sock = 72,
	.tcpcb = 72,
	.uid = 8,
	.socket = 16,
	.state = 24,
	.laddr = 32,
	.faddr = 48,
	.vflag = 64,
	.lport = 66,
	.fport = 68 };

static void
add_record(const struct sockaddr_storage *l, const struct sockaddr_storage *f, bool open,
    uint32_t uid, uint32_t state)
{
	uint64_t n = 72, so = open;
	unsigned char flags[2] = { l->ss_family == AF_INET6 ? 2 : 1, 0 };

	add(&n, 8);
	add32(uid);
	add32(0);
	add(&so, 8);
	add32(state);
	add32(0);
	add_address(l);
	add_address(f);
	add(flags, 2);
	add_port(l);
	add_port(f);
	add(NULL, 2);
}

static void
add_wide_head(void)
{
	uint64_t n = 64;

	add(&n, 8);
	add(NULL, 56);
}

START_TEST(a_socket_can_be_one_record)
{
	size_t size;
	uid_t uid;

	start("::1", "::1");
	add_wide_head();
	add_record(&other, &local, true, 501, 4);
	add_record(&peer, &local, true, 503, 4);
	add_wide_head();
	ck_assert_int_eq(find_in(&one_record, used, &uid), 0);
	ck_assert_uint_eq(uid, 503);
	for (size = 0; size < used; size++)
		if (find_in(&one_record, size, &uid) == 0)
			ck_assert_uint_eq(uid, 503);

	start("::1", "::1");
	add_wide_head();
	add_record(&peer, &local, false, 0, 10);
	add_record(&peer, &local, true, 503, 2);
	add_wide_head();
	ck_assert_int_eq(find_in(&one_record, used, &uid), ENOENT);
}
END_TEST

/* ---- the system's call ---- */

static int asked, growing, failing;

static int
sysctlbyname(const char *name, void *p, size_t *size, const void *new, size_t n)
{
	ck_assert_str_eq(name, "a.list");
	ck_assert(new == NULL && n == 0);
	asked++;
	if (failing != 0) {
		errno = failing;
		return -1;
	}
	if (p == NULL) {
		*size = used;
		return 0;
	}
	if (growing > 0 || *size < used) {
		growing--;
		errno = ENOMEM;
		return -1;
	}
	memcpy(p, list, used);
	*size = used;
	return 0;
}

static int
ask(uid_t *uid)
{
	return pcblist_ask("a.list", &pcblist_darwin, (struct sockaddr *)&peer,
	    (struct sockaddr *)&local, uid);
}

START_TEST(the_system_is_asked_again_if_the_list_has_grown)
{
	uid_t uid;

	start("127.0.0.1", "127.0.0.1");
	add_head(1);
	add_one(&peer, &local, true, 503, 4);
	add_head(1);
	ck_assert_int_eq(ask(&uid), 1);
	ck_assert_uint_eq(uid, 503);
	growing = 2;
	ck_assert_int_eq(ask(&uid), 1);
	growing = 1000;
	asked = 0;
	ck_assert_int_eq(ask(&uid), -1);
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_int_lt(asked, 20);
}
END_TEST

START_TEST(an_error_of_the_system_is_returned)
{
	uid_t uid;

	start("127.0.0.1", "127.0.0.1");
	failing = EPERM;
	ck_assert_int_eq(ask(&uid), -1);
	ck_assert_int_eq(errno, EPERM);
}
END_TEST

TESTS("pcblist")
{
	tcase_add_test(tc, the_user_of_the_peer_is_found_among_others);
	tcase_add_test(tc, a_mapped_address_is_that_of_ipv4);
	tcase_add_test(tc, families_are_not_mixed);
	tcase_add_test(tc, no_user_is_taken_from_a_socket_that_was_closed);
	tcase_add_test(tc, a_socket_that_still_connects_is_a_later_one);
	tcase_add_test(tc, two_users_for_one_connection_are_none);
	tcase_add_test(tc, parts_of_two_sockets_are_not_joined);
	tcase_add_test(tc, the_last_record_is_not_a_part);
	tcase_add_test(tc, a_part_can_be_too_short);
	tcase_add_test(tc, a_list_can_be_cut_anywhere);
	tcase_add_test(tc, a_length_can_have_any_value);
	tcase_add_test(tc, a_socket_can_be_one_record);
	tcase_add_test(tc, the_system_is_asked_again_if_the_list_has_grown);
	tcase_add_test(tc, an_error_of_the_system_is_returned);
}
