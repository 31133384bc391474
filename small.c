/*
 * small.c - as much of printf as relay and its resolver ask for, for make static and make cross alone.
 *
 * A C library's printf brings floating point of any size, wide characters and locales: 13 KiB of code of which relay, which has to
 * be copied to hosts, uses none.  Linked before a static library, these functions take its place.  They know
 *
 *	%c %s %d %u %o %x %%   with l, ll, z; with a width, that of %u, %o and %x with 0; %s with - and
 *	a precision; and %.Nf
 *
 * and copy anything else as it stands.  t/check_small compares them with the system's; t/test_cross.py sees that the sources ask
 * for nothing else.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NUMBER 24 /* room for the digits of 64 bits and a sign */
#define LINE 4352 /* what printf and dprintf are used for: a path of SOCK_PATH_MAX and some words */
#define PLACES_MAX 9

/* What is written to; ${len} goes on counting where ${dst} is full, as vsnprintf's result does. */
struct out {
	char *dst;
	size_t size, len;
};

struct spec {
	bool left, zero;
	int width, precision; /* precision -1: none */
	int longs;            /* how many l; z is one */
};

static void
put(struct out *o, const char *text, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++, o->len++)
		if (o->len + 1 < o->size)
			o->dst[o->len] = text[i];
}

static void
put_padded(struct out *o, const struct spec *s, const char *text, size_t n)
{
	size_t i;

	for (i = n; !s->left && i < (size_t)s->width; i++)
		put(o, s->zero ? "0" : " ", 1);
	put(o, text, n);
	for (i = n; s->left && i < (size_t)s->width; i++)
		put(o, " ", 1);
}

/* Write ${n} so that it ends before ${end}; return its start. */
static char *
digits(char *end, unsigned long long n, unsigned base)
{
	do
		*--end = "0123456789abcdef"[n % base];
	while ((n /= base) != 0);
	return end;
}

static void
put_number(struct out *o, const struct spec *s, bool negative, unsigned long long n, unsigned base)
{
	char room[NUMBER], *end = room + sizeof(room), *p = digits(end, n, base);

	if (negative)
		*--p = '-';
	put_padded(o, s, p, (size_t)(end - p));
}

/* Seconds with their thousandths: no more is asked of %f. */
static void
put_fixed(struct out *o, struct spec s, double f)
{
	static const struct spec plain = { .precision = -1 };
	unsigned long long scale = 1, n;
	int i;

	for (i = 0; i < s.precision && i < PLACES_MAX; i++)
		scale *= 10;
	n = (unsigned long long)((f < 0 ? -f : f) * (double)scale + 0.5);
	put_number(o, &plain, f < 0, n / scale, 10);
	s.zero = true;
	s.width = i;
	put(o, ".", i > 0);
	if (i > 0)
		put_number(o, &s, false, n % scale, 10);
}

static long long
signed_arg(va_list *ap, int longs)
{
	return longs == 0 ? va_arg(*ap, int) : longs == 1 ? va_arg(*ap, long) : va_arg(*ap, long long);
}

static unsigned long long
unsigned_arg(va_list *ap, int longs)
{
	return longs == 0 ? va_arg(*ap, unsigned) : longs == 1 ? va_arg(*ap, unsigned long) : va_arg(*ap, unsigned long long);
}

static int
number(const char **p)
{
	int n = 0;

	while (**p >= '0' && **p <= '9')
		n = n * 10 + *(*p)++ - '0';
	return n;
}

/* Read what stands between '%' and the letter. */
static const char *
read_spec(const char *p, struct spec *s, va_list *ap)
{
	memset(s, 0, sizeof(*s));
	s->left = *p == '-';
	p += s->left;
	s->zero = *p == '0';
	s->width = number(&p);
	s->precision = -1;
	if (*p == '.' && *++p == '*') {
		s->precision = va_arg(*ap, int);
		p++;
	} else if (p[-1] == '.') {
		s->precision = number(&p);
	}
	for (; *p == 'l' || *p == 'z'; p++)
		s->longs++;
	return p;
}

static void
put_text(struct out *o, const struct spec *s, const char *text)
{
	size_t n = 0;

	while ((s->precision < 0 || n < (size_t)s->precision) && text[n] != '\0')
		n++;
	put_padded(o, s, text, n);
}

/* One conversion, which begins at ${p}, behind its '%'; return what follows. */
static const char *
convert(struct out *o, const char *p, va_list *ap)
{
	const char *start = p - 1;
	struct spec s;
	long long n;
	char c;

	p = read_spec(p, &s, ap);
	switch (*p) {
	case 'c':
		c = (char)va_arg(*ap, int);
		put_padded(o, &s, &c, 1);
		break;
	case 's':
		put_text(o, &s, va_arg(*ap, const char *));
		break;
	case 'd':
		n = signed_arg(ap, s.longs);
		put_number(o, &s, n < 0, n < 0 ? 0 - (unsigned long long)n : (unsigned long long)n, 10);
		break;
	case 'u':
		put_number(o, &s, false, unsigned_arg(ap, s.longs), 10);
		break;
	case 'o':
		put_number(o, &s, false, unsigned_arg(ap, s.longs), 8);
		break;
	case 'x':
		put_number(o, &s, false, unsigned_arg(ap, s.longs), 16);
		break;
	case 'f':
		put_fixed(o, s, va_arg(*ap, double));
		break;
	case '%':
		put(o, "%", 1);
		break;
	default:
		put(o, start, (size_t)(p - start));
		return p;
	}
	return p + 1;
}

int
vsnprintf(char *dst, size_t size, const char *fmt, va_list arguments)
{
	struct out o = { .dst = dst, .size = size };
	va_list ap;
	size_t n;

	va_copy(ap, arguments);
	while (*fmt != '\0') {
		n = strcspn(fmt, "%");
		put(&o, fmt, n);
		fmt += n;
		if (*fmt == '%')
			fmt = convert(&o, fmt + 1, &ap);
	}
	va_end(ap);
	if (size > 0)
		dst[o.len < size ? o.len : size - 1] = '\0';
	return (int)o.len;
}

int
snprintf(char *dst, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(dst, size, fmt, ap);
	va_end(ap);
	return n;
}

int
printf(const char *fmt, ...)
{
	char line[LINE];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return fputs(line, stdout) == EOF ? -1 : n;
}

int
dprintf(int fd, const char *fmt, ...)
{
	char line[LINE];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return write(fd, line, strlen(line)) == -1 ? -1 : n;
}
