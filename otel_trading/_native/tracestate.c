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

/* Parse all members into t->result; false where one is wrong, or they are too many. */
static bool
encode(struct ot_tracestate *t, const char *text, uint32_t bytes)
{
    struct {
        const char *key;
        uint32_t bytes;
    } keys[MOST_MEMBERS];
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
            return false;
        uint32_t key_bytes = (uint32_t)(equals - key), value_bytes = end - first - key_bytes - 1;
        if (!is_key(key, key_bytes) || !is_value(equals + 1, value_bytes))
            return false;
        for (unsigned i = 0; i < count; i++) {
            if (keys[i].bytes == key_bytes && memcmp(keys[i].key, key, key_bytes) == 0)
                return false;
        }
        keys[count].key = key;
        keys[count++].bytes = key_bytes;
        if (t->bytes > 0)
            t->result[t->bytes++] = ',';
        memcpy(t->result + t->bytes, key, end - first);
        t->bytes += end - first;
    }
    return true;
}

const char *
ot_tracestate_encode(struct ot_tracestate *t, const char *text, uint32_t bytes, uint32_t *encoded)
{
    if (t->text != text) {
        t->text = text;
        t->bytes = 0;
        if (bytes > sizeof t->result || !encode(t, text, bytes))
            t->bytes = 0;
    }
    *encoded = t->bytes;
    return t->result;
}
