/* check_addr.c - TCP addresses: a name to addresses, an address to text. */
#include "t/net.h"

static struct endpoint
end(const char *text)
{
	struct endpoint ep;
	char why[256];

	ck_assert_msg(endpoint_parse(&ep, text, true, why, sizeof(why)), "%s", why);
	return ep;
}

START_TEST(numbers_localhost_and_star_need_no_name_server)
{
	static const struct {
		const char *text;
		int n;
	} table[] = { { "127.0.0.1:80", 1 }, { "[::1]:80", 1 }, { "localhost:80", 2 }, { "80", 2 },
		{ "*:80", 2 }, { "some.name:80", 0 }, { "[fe80::1%lo]:80", 1 },
		{ "300.0.0.1:80", 0 } };
	struct endpoint ep = end(table[_i].text);
	struct addr_list a;

	ck_assert_int_eq(addr_numeric(&ep, &a), table[_i].n > 0);
	ck_assert_int_eq(a.n, table[_i].n);
}
END_TEST

START_TEST(localhost_is_both_loopback_addresses_in_order)
{
	struct endpoint ep = end("8888");
	struct sockaddr_storage want;
	struct addr_list a;

	ck_assert_int_eq(addr_resolve(&ep, &a), 0);
	ck_assert_int_eq(a.n, 2);
	ck_assert_uint_eq(a.len[0], loopback(AF_INET, 8888, &want));
	ck_assert_mem_eq(&a.addr[0], &want, a.len[0]);
	ck_assert_uint_eq(a.len[1], loopback(AF_INET6, 8888, &want));
	ck_assert_mem_eq(&a.addr[1], &want, a.len[1]);
}
END_TEST

START_TEST(an_address_of_this_host_alone_is_recognized)
{
	static const struct {
		const char *text;
		bool loopback;
		const char *name;
	} table[] = { { "127.0.0.1:80", true, "127.0.0.1:80" },
		{ "127.255.0.9:80", true, "127.255.0.9:80" }, { "[::1]:80", true, "[::1]:80" },
		{ "[::ffff:127.0.0.1]:80", true, "[::ffff:127.0.0.1]:80" },
		{ "[::ffff:10.0.0.1]:80", false, "[::ffff:10.0.0.1]:80" },
		{ "10.0.0.1:65535", false, "10.0.0.1:65535" }, { "[::]:1", false, "[::]:1" },
		{ "0.0.0.0:1", false, "0.0.0.0:1" } };
	struct endpoint ep = end(table[_i].text);
	const struct sockaddr *sa;
	struct addr_list a;
	char name[ADDR_NAME];

	ck_assert(addr_numeric(&ep, &a));
	sa = (const struct sockaddr *)&a.addr[0];
	ck_assert_int_eq(addr_is_loopback(sa), table[_i].loopback);
	addr_name(sa, name);
	ck_assert_str_eq(name, table[_i].name);
}
END_TEST

/* fe80::1%INTERFACE: connect(2) needs the number of the interface. */
START_TEST(a_scope_is_part_of_the_name)
{
	struct endpoint ep = end("[fe80::1%lo]:80");
	struct addr_list a;
	char name[ADDR_NAME];

	ck_assert(addr_numeric(&ep, &a));
	addr_name((const struct sockaddr *)&a.addr[0], name);
	ck_assert(strncmp(name, "[fe80::1%", 9) == 0);
	HAS(name, "]:80");
}
END_TEST

TESTS("addr")
{
	tcase_add_loop_test(tc, numbers_localhost_and_star_need_no_name_server, 0, 8);
	tcase_add_test(tc, localhost_is_both_loopback_addresses_in_order);
	tcase_add_loop_test(tc, an_address_of_this_host_alone_is_recognized, 0, 8);
	tcase_add_test(tc, a_scope_is_part_of_the_name);
}
