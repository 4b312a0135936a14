#include "tracestate.h"

#include <stdbool.h>
#include <string.h>

#define MOST_MEMBERS 32

static bool
is_letter(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
all_key_characters(const char *text, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        if (!is_letter(text[i]) && !is_digit(text[i]) && (text[i] == 0 || strchr("_-*/", text[i]) == NULL))
            return false;
    }
    return true;
}

static bool
is_key(const char *key, uint32_t bytes)
{
    if (bytes == 0)
        return false;
    const char *sign = memchr(key, '@', bytes);
    if (sign == NULL)
        return is_letter(key[0]) && bytes <= 256 && all_key_characters(key, bytes);
    uint32_t tenant = (uint32_t)(sign - key), system = bytes - tenant - 1;
    return tenant >= 1 && tenant <= 241 && (is_letter(key[0]) || is_digit(key[0])) && all_key_characters(key, tenant) &&
           system >= 1 && system <= 14 && is_letter(sign[1]) && all_key_characters(sign + 1, system);
}

static bool
is_value(const char *value, uint32_t bytes)
{
    if (bytes == 0 || bytes > 256 || value[bytes - 1] == ' ')
        return false;
    for (uint32_t i = 0; i < bytes; i++) {
        if (value[i] < 0x20 || value[i] > 0x7e || value[i] == ',' || value[i] == '=')
            return false;
    }
    return true;
}

static bool
is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* A member of a tracestate. */
struct member {
    const char *key; /* borrowed; the value follows after '=' */
    uint32_t key_bytes;
    uint32_t bytes; /* both and the '=' */
};

/* All members without the white space around them; -1 where one is wrong, or they are too many. */
static int
parse(const char *text, uint32_t bytes, struct member members[MOST_MEMBERS])
{
    unsigned count = 0;
    for (uint32_t at = 0; at < bytes;) {
        const char *comma = memchr(text + at, ',', bytes - at);
        uint32_t end = comma != NULL ? (uint32_t)(comma - text) : bytes, first = at;
        at = end + 1;
        while (first < end && is_space(text[first]))
            first++;
        while (end > first && is_space(text[end - 1]))
            end--;
        if (first == end)
            continue;
        const char *key = text + first, *equals = memchr(key, '=', end - first);
        if (equals == NULL || count == MOST_MEMBERS)
            return -1;
        uint32_t key_bytes = (uint32_t)(equals - key), value_bytes = end - first - key_bytes - 1;
        if (!is_key(key, key_bytes) || !is_value(equals + 1, value_bytes))
            return -1;
        for (unsigned i = 0; i < count; i++) {
            if (members[i].key_bytes == key_bytes && memcmp(members[i].key, key, key_bytes) == 0)
                return -1;
        }
        members[count++] = (struct member){key, key_bytes, end - first};
    }
    return (int)count;
}

/* Append a member; the bytes so far. */
static uint32_t
append(char *to, uint32_t used, const char *text, uint32_t bytes)
{
    if (used > 0)
        to[used++] = ',';
    memcpy(to + used, text, bytes);
    return used + bytes;
}

const char *
ot_tracestate_encode(struct ot_tracestate *t, const char *text, uint32_t bytes, uint32_t *encoded)
{
    if (t->text != text) {
        t->text = text;
        t->bytes = 0;
        struct member members[MOST_MEMBERS];
        int count = bytes > sizeof t->result ? -1 : parse(text, bytes, members);
        for (int i = 0; i < count; i++)
            t->bytes = append(t->result, t->bytes, members[i].key, members[i].bytes);
    }
    *encoded = t->bytes;
    return t->result;
}

/* ---- thresholds ---- */

#define OT_VALUE_BYTES 256
#define DIGITS 14 /* of 56 bits */

/* Hexadecimal digits, lower case; false for anything else. */
static bool
hex(const char *text, uint32_t bytes, uint64_t *value)
{
    *value = 0;
    for (uint32_t i = 0; i < bytes; i++) {
        if (!is_digit(text[i]) && !(text[i] >= 'a' && text[i] <= 'f'))
            return false;
        *value = *value << 4 | (uint64_t)(is_digit(text[i]) ? text[i] - '0' : text[i] - 'a' + 10);
    }
    return bytes >= 1 && bytes <= DIGITS;
}

/* What the value of an `ot` member says. */
struct earlier {
    uint64_t threshold; /* 0: none */
    uint64_t random;
};

static bool
begins(const char *part, uint32_t bytes, const char *key)
{
    return bytes >= 3 && memcmp(part, key, 3) == 0;
}

static uint32_t
part_bytes(const char *text, uint32_t left)
{
    const char *end = memchr(text, ';', left);
    return end != NULL ? (uint32_t)(end - text) : left;
}

static void
read_value(const char *text, uint32_t bytes, struct earlier *e)
{
    for (uint32_t at = 0; at < bytes;) {
        uint32_t part = part_bytes(text + at, bytes - at);
        uint64_t number;
        if (part > 3 && hex(text + at + 3, part - 3, &number)) {
            if (begins(text + at, part, "th:"))
                e->threshold = number << (DIGITS - (part - 3)) * 4;
            else if (begins(text + at, part, "rv:") && part - 3 == DIGITS)
                e->random = number;
        }
        at += part + 1;
    }
}

/* The `ot` member with our threshold: th first, then what else there was. */
static uint32_t
write_member(char *to, const char *text, uint32_t bytes, uint16_t threshold)
{
    static const char digits[] = "0123456789abcdef";
    uint32_t used = 6;
    memcpy(to, "ot=th:", 6);
    for (unsigned rest = threshold; rest != 0; rest = rest << 4 & 0xffff)
        to[used++] = digits[rest >> 12];
    for (uint32_t at = 0; at < bytes;) {
        uint32_t part = part_bytes(text + at, bytes - at);
        if (part > 0 && !begins(text + at, part, "th:")) {
            if (used - 3 + 1 + part > OT_VALUE_BYTES)
                break;
            to[used++] = ';';
            memcpy(to + used, text + at, part);
            used += part;
        }
        at += part + 1;
    }
    while (to[used - 1] == ' ') /* inside of a value it may be, at its end not */
        used--;
    return used;
}

uint32_t
ot_tracestate_threshold(char *to, const char *text, uint32_t bytes, const struct ot_odds *odds)
{
    struct member members[MOST_MEMBERS];
    int count = text == NULL || bytes > OT_TRACESTATE_BYTES ? 0 : parse(text, bytes, members), own = -1;
    uint64_t threshold = (uint64_t)odds->threshold << (OT_SAMPLE_BITS - OT_THRESHOLD_BITS);
    struct earlier e = {.random = odds->trace_lo & ((1ULL << OT_SAMPLE_BITS) - 1)};
    for (int i = 0; i < count; i++) {
        if (members[i].key_bytes == 2 && memcmp(members[i].key, "ot", 2) == 0)
            own = i;
    }
    const char *value = own >= 0 ? members[own].key + 3 : NULL;
    uint32_t value_bytes = own >= 0 ? members[own].bytes - 3 : 0, used = 0;
    if (own >= 0)
        read_value(value, value_bytes, &e);
    if (e.threshold >= threshold && e.threshold <= e.random) {
        for (int i = 0; i < count; i++)
            used = append(to, used, members[i].key, members[i].bytes);
        return used;
    }
    used = write_member(to, value, value_bytes, odds->threshold);
    int most = own >= 0 ? MOST_MEMBERS : MOST_MEMBERS - 1;
    for (int i = 0; i < count && i < most; i++) {
        if (i != own)
            used = append(to, used, members[i].key, members[i].bytes);
    }
    return used;
}
