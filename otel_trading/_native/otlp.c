/* Without the GIL: the spans are the batch's own copies, names are read from the mapped table, and the mapping stays as long as
 * its lock is held for reading. */
#include "otlp.h"

#include <stdlib.h>

#include "entry.h"
#include "spanstate.h"
#include "tracestate.h"
#include "wire.h"

#define REQUEST_BYTES (1U << 30) /* of one scope's spans: more than any server takes */
#define USUAL_BYTES 160          /* of one span */
#define MOST_ATTRIBUTES (OT_INLINE_ATTRIBUTES + OT_MAX_BLOCKS)

/* An attribute, ready to be written. */
struct pair {
    const char *key; /* borrowed */
    uint32_t key_bytes;
    uint32_t bytes; /* of the payload */
    uint8_t type;
    const uint8_t *payload; /* borrowed */
};

/* What is added to the attributes of spans that probes have made; each key once. */
struct extra {
    struct pair pair;
    uint64_t word;
    bool done;
};

struct encoder {
    struct ot_wire *out;
    const ot_batch *batch;
    struct ot_limits limits;
    uint32_t name_count; /* as of now: names that come later are no span's in this batch */
    struct ot_tracestate tracestate;
    char with_threshold[OT_NAME_BYTES];
    struct ot_contents contents;
    struct pair pairs[MOST_ATTRIBUTES];
    struct extra extras[6];
};

/* ---- names ---- */

static const char *
name_of(const struct encoder *e, uint64_t id, uint32_t *bytes)
{
    if (id < e->name_count) {
        struct ot_name n = ot_rec.names[id];
        if (n.bytes <= OT_NAME_BYTES && n.bytes <= ot_rec.text_bytes && n.offset <= ot_rec.text_bytes - n.bytes) {
            *bytes = n.bytes;
            return (const char *)ot_rec.text + n.offset;
        }
    }
    *bytes = 5;
    return "other";
}

/* ---- attributes ---- */

static uint64_t
word_of(const struct pair *p)
{
    uint64_t word = 0;
    memcpy(&word, p->payload, p->bytes < sizeof word ? p->bytes : sizeof word);
    return word;
}

/* KeyValue, with its tag and length. */
static void
put_pair(struct encoder *e, uint8_t tag, const struct pair *p)
{
    uint64_t word = 0;
    const void *text = p->payload;
    uint32_t bytes = p->bytes;
    size_t inner; /* of the AnyValue */
    switch (p->type) {
    case OT_TYPE_BOOL:
        word = word_of(p) != 0;
        inner = 2;
        break;
    case OT_TYPE_INT:
        word = word_of(p);
        inner = 1 + ot_varint_bytes(word);
        break;
    case OT_TYPE_DOUBLE:
        word = word_of(p);
        inner = 9;
        break;
    case OT_TYPE_NAME:
        text = name_of(e, word_of(p), &bytes); /* fall through */
    case OT_TYPE_TEXT:
        inner = 1 + ot_varint_bytes(bytes) + bytes;
        break;
    default:
        inner = bytes;
    }
    size_t key = p->key_bytes == 0 ? 0 : 1 + ot_varint_bytes(p->key_bytes) + p->key_bytes;
    size_t whole = key + 1 + ot_varint_bytes(inner) + inner;
    if (!ot_wire_room(e->out, whole + 11))
        return;
    uint8_t *at = e->out->data + e->out->used;
    *at++ = tag;
    at = ot_put_varint(at, whole);
    if (key > 0) {
        *at++ = OT_TAG_KEY;
        at = ot_put_varint(at, p->key_bytes);
        memcpy(at, p->key, p->key_bytes);
        at += p->key_bytes;
    }
    *at++ = OT_TAG_VALUE;
    at = ot_put_varint(at, inner);
    switch (p->type) {
    case OT_TYPE_BOOL:
        *at++ = OT_TAG_BOOL_VALUE;
        *at++ = (uint8_t)word;
        break;
    case OT_TYPE_INT:
        *at++ = OT_TAG_INT_VALUE;
        at = ot_put_varint(at, word);
        break;
    case OT_TYPE_DOUBLE:
        at = ot_put_fixed64(at, OT_TAG_DOUBLE_VALUE, word);
        break;
    case OT_TYPE_NAME:
    case OT_TYPE_TEXT:
        *at++ = OT_TAG_STRING_VALUE;
        at = ot_put_varint(at, bytes); /* fall through */
    default:
        memcpy(at, text, bytes);
        at += bytes;
    }
    e->out->used = (size_t)(at - e->out->data);
}

/* The pairs of a span, by replaying how they were set. */
struct replay {
    uint32_t first; /* live ones are pairs[first … count - 1], oldest first */
    uint32_t count;
    uint32_t dropped;
};

static void
put(struct encoder *e, struct replay *r, const struct ot_attribute *a)
{
    if (e->limits.attributes == 0 || r->count >= MOST_ATTRIBUTES) {
        r->dropped++;
        return;
    }
    struct pair p = {a->text, a->text_bytes, a->bytes, a->type, a->payload};
    if (p.key == NULL)
        p.key = name_of(e, a->key, &p.key_bytes);
    uint32_t i = r->first;
    while (i < r->count && (e->pairs[i].key_bytes != p.key_bytes ||
                            (e->pairs[i].key != p.key && memcmp(e->pairs[i].key, p.key, p.key_bytes) != 0)))
        i++;
    if (i < r->count) {
        memmove(&e->pairs[i], &e->pairs[i + 1], sizeof p * (r->count - i - 1));
        r->count--;
    }
    else if (r->count - r->first >= e->limits.attributes) {
        r->first++;
        r->dropped++;
    }
    e->pairs[r->count++] = p;
}

static void
replay_all(struct encoder *e, const struct ot_slot *s, struct replay *r)
{
    unsigned count = s->count < OT_INLINE_ATTRIBUTES ? s->count : OT_INLINE_ATTRIBUTES;
    for (unsigned i = 0; i < count; i++) {
        if (s->type[i] >= OT_TYPE_BOOL && s->type[i] <= OT_TYPE_NAME)
            put(e, r,
                &(struct ot_attribute){
                    .key = s->key[i], .bytes = 8, .type = s->type[i], .payload = (const uint8_t *)&s->value[i]});
    }
    const struct ot_contents *c = &e->contents;
    for (uint32_t i = c->count; i-- > 0;) {
        struct ot_block b = ot_block_at(c, c->start[i]);
        struct ot_attribute a;
        if (b.kind == OT_BLOCK_ATTRIBUTE && ot_attribute_parse(&b, ot_block_payload(c, c->start[i]), &a))
            put(e, r, &a);
    }
}

static struct extra *
add_extra(struct encoder *e, unsigned *count, const char *key, unsigned type)
{
    struct extra *x = &e->extras[(*count)++];
    *x = (struct extra){.pair = {key, (uint32_t)strlen(key), sizeof x->word, (uint8_t)type, (const uint8_t *)&x->word}};
    return x;
}

static const char *const tier_names[OT_TIERS] = {"P0", "P1", "P2", "P3"};

/* What drain/spans.py adds to the attributes of a span that a probe made. */
static unsigned
find_extras(struct encoder *e, const struct ot_slot *s)
{
    static const char *const marks[3] = {"trading.cancelled", "trading.abandoned", "trading.interrupted"};
    unsigned count = 0;
    struct extra *x = add_extra(e, &count, "trading.tier", OT_TYPE_TEXT);
    x->pair.payload = (const uint8_t *)tier_names[s->tier % OT_TIERS];
    x->pair.bytes = 2;
    for (unsigned i = 0; i < 3; i++) {
        if (s->flags & (OT_FLAG_CANCELLED << i))
            add_extra(e, &count, marks[i], OT_TYPE_BOOL)->word = 1;
    }
    if (s->extra && s->error != 0)
        add_extra(e, &count, "error.type", OT_TYPE_NAME)->word = s->error;
    return count;
}

/* Attributes, and how many were dropped.  A key that is among the extras takes the extra's value in its own place. */
static void
put_attributes(struct encoder *e, const struct ot_slot *s, bool api)
{
    struct replay r = {.dropped = s->extra ? s->dropped : 0};
    unsigned extras = api ? 0 : find_extras(e, s);
    if (s->extra)
        replay_all(e, s, &r);
    for (uint32_t i = r.first; i < r.count; i++) {
        struct pair p = e->pairs[i];
        for (unsigned x = 0; x < extras; x++) {
            struct extra *extra = &e->extras[x];
            if (p.key_bytes == extra->pair.key_bytes && memcmp(p.key, extra->pair.key, p.key_bytes) == 0) {
                extra->done = true;
                p = extra->pair;
                break;
            }
        }
        put_pair(e, 9 << 3 | 2, &p);
    }
    for (unsigned x = 0; x < extras; x++) {
        if (!e->extras[x].done)
            put_pair(e, 9 << 3 | 2, &e->extras[x].pair);
    }
    if (r.dropped != 0)
        ot_wire_varint(e->out, 10 << 3, r.dropped);
}

/* ---- events and links ---- */

/* A link as the stock encoder writes it: without the tracestate (field 3) and the trace's own flags, which ours has for others. */
static void
put_link(struct encoder *e, const uint8_t *message, uint32_t bytes)
{
    uint32_t from = 28, to = 28; /* trace_id and span_id */
    if (bytes > 29 && message[28] == (3 << 3 | 2)) {
        uint64_t length = message[29] & 0x7f;
        uint32_t head = 30;
        for (unsigned shift = 7; message[head - 1] & 0x80 && head < bytes && shift < 35; shift += 7)
            length |= (uint64_t)(message[head++] & 0x7f) << shift;
        if (length <= bytes - head)
            to = head + (uint32_t)length;
    }
    from = from < bytes ? from : bytes;
    to = to < bytes ? to : bytes;
    uint32_t left = bytes - to;
    if (!ot_wire_room(e->out, from + left + 11))
        return;
    uint8_t *at = e->out->data + e->out->used;
    *at++ = 13 << 3 | 2;
    at = ot_put_varint(at, from + left);
    memcpy(at, message, from);
    memcpy(at + from, message + to, left);
    at += from + left;
    if (left >= 5 && at[-5] == (6 << 3 | 5))
        at[-4] = 0; /* the low byte of flags */
    e->out->used = (size_t)(at - e->out->data);
}

/* The messages of a kind, oldest first, the newest `limit`; how many they are. */
static uint32_t
put_messages(struct encoder *e, unsigned kind, uint32_t found, uint32_t limit)
{
    const struct ot_contents *c = &e->contents;
    uint32_t skip = found > limit ? found - limit : 0, written = found - skip;
    for (uint32_t i = c->count; i-- > 0 && found > 0;) {
        struct ot_block b = ot_block_at(c, c->start[i]);
        if (b.kind != kind)
            continue;
        found--;
        if (skip > 0)
            skip--;
        else if (kind == OT_BLOCK_EVENT)
            ot_wire_bytes(e->out, 11 << 3 | 2, ot_block_payload(c, c->start[i]), b.bytes);
        else
            put_link(e, ot_block_payload(c, c->start[i]), b.bytes);
    }
    return written;
}

/* The event that stands for an exception which left a probe's span. */
static void
put_exception(struct encoder *e, uint32_t error, uint64_t end_ns)
{
    uint64_t word = error;
    struct pair type = {"exception.type", 14, sizeof word, OT_TYPE_NAME, (const uint8_t *)&word};
    size_t event = ot_wire_open(e->out, 11 << 3 | 2);
    if (end_ns != 0)
        ot_wire_fixed64(e->out, 1 << 3 | 1, end_ns);
    ot_wire_bytes(e->out, 2 << 3 | 2, "exception", 9);
    put_pair(e, 3 << 3 | 2, &type);
    ot_wire_close(e->out, event);
}

/* ---- spans ---- */

static const char *
block_text(const struct encoder *e, uint32_t place, uint32_t *bytes)
{
    *bytes = ot_block_at(&e->contents, place - 1).bytes;
    return (const char *)ot_block_payload(&e->contents, place - 1);
}

static void
put_status(struct encoder *e, const struct ot_slot *s)
{
    uint32_t bytes = 0;
    const char *text =
        s->status == OT_STATUS_ERROR && e->contents.status != 0 ? block_text(e, e->contents.status, &bytes) : NULL;
    size_t status = ot_wire_open(e->out, 15 << 3 | 2);
    if (bytes > 0)
        ot_wire_bytes(e->out, 2 << 3 | 2, text, bytes);
    if (s->status == OT_STATUS_OK || s->status == OT_STATUS_ERROR)
        ot_wire_varint(e->out, 3 << 3, s->status);
    ot_wire_close(e->out, status);
}

/* Fields 1 to 8. */
static void
put_head(struct encoder *e, const struct ot_kept *k, const struct ot_batch_probe *probe)
{
    const struct ot_slot *s = &k->slot;
    uint32_t state_bytes = 0, name_bytes = probe->name_bytes;
    const char *state = NULL, *name = probe->name;
    uint32_t given_bytes = 0;
    const char *given = NULL;
    if (s->extra && s->tracestate != 0)
        given = name_of(e, s->tracestate, &given_bytes);
    else if (e->contents.tracestate != 0)
        given = block_text(e, e->contents.tracestate, &given_bytes);
    if (k->threshold != 0) {
        struct ot_odds odds = {k->threshold, s->trace_lo};
        state_bytes = ot_tracestate_threshold(e->with_threshold, given, given_bytes, &odds);
        state = e->with_threshold;
    }
    else if (given != NULL)
        state = ot_tracestate_encode(&e->tracestate, given, given_bytes, &state_bytes);
    if (e->contents.name != 0)
        name = block_text(e, e->contents.name, &name_bytes);
    if (!ot_wire_room(e->out, 96 + (size_t)state_bytes + name_bytes))
        return;
    uint8_t *at = e->out->data + e->out->used;
    *at++ = 1 << 3 | 2;
    *at++ = 16;
    at = ot_put_id(ot_put_id(at, s->trace_hi), s->trace_lo);
    *at++ = 2 << 3 | 2;
    *at++ = 8;
    at = ot_put_id(at, s->span_id);
    if (state_bytes > 0) {
        *at++ = 3 << 3 | 2;
        at = ot_put_varint(at, state_bytes);
        memcpy(at, state, state_bytes);
        at += state_bytes;
    }
    if (s->parent_id != 0) {
        *at++ = 4 << 3 | 2;
        *at++ = 8;
        at = ot_put_id(at, s->parent_id);
    }
    if (name_bytes > 0) {
        *at++ = 5 << 3 | 2;
        at = ot_put_varint(at, name_bytes);
        memcpy(at, name, name_bytes);
        at += name_bytes;
    }
    *at++ = 6 << 3;
    *at++ = (uint8_t)(probe->kind + 1);
    if (k->start_ns != 0)
        at = ot_put_fixed64(at, 7 << 3 | 1, k->start_ns);
    if (k->end_ns != 0)
        at = ot_put_fixed64(at, 8 << 3 | 1, k->end_ns);
    e->out->used = (size_t)(at - e->out->data);
}

static void
put_span(struct encoder *e, const struct ot_kept *k, const struct ot_batch_probe *probe)
{
    const struct ot_slot *s = &k->slot;
    bool api = probe->scope_is_api, failed = !api && s->extra && s->error != 0;
    struct ot_contents *c = &e->contents;
    ot_blocks_index(k->blocks.data, s->extra ? k->blocks.bytes : 0, c);
    size_t span = ot_wire_open(e->out, 2 << 3 | 2);
    put_head(e, k, probe);
    put_attributes(e, s, api);
    uint32_t events = put_messages(e, OT_BLOCK_EVENT, c->events, e->limits.events);
    if (failed)
        put_exception(e, s->error, k->end_ns);
    if (c->events_total > events)
        ot_wire_varint(e->out, 12 << 3, c->events_total - events);
    uint32_t links = put_messages(e, OT_BLOCK_LINK, c->links, e->limits.links);
    if (c->links_total > links)
        ot_wire_varint(e->out, 14 << 3, c->links_total - links);
    put_status(e, s);
    if (ot_wire_room(e->out, 6)) {
        uint32_t flags = OT_SPAN_FLAGS_HAS_REMOTE;
        if (s->parent_id != 0 && s->flags & OT_FLAG_REMOTE_PARENT)
            flags |= OT_SPAN_FLAGS_REMOTE;
        uint8_t *at = ot_put_varint(e->out->data + e->out->used, 16 << 3 | 5);
        e->out->used = (size_t)(ot_put_fixed32(at, flags) - e->out->data);
    }
    ot_wire_close(e->out, span);
}

/* ---- the request ---- */

/* The spans of each scope into a buffer of its own; false where the segment is gone. */
static bool
encode_all(const ot_batch *b, struct encoder *e, struct ot_wire *wires, uint32_t scopes)
{
    pthread_rwlock_rdlock(&ot_mapping);
    bool there = OT_LOAD(&ot_rec.mapped) == b->epoch;
    if (there) {
        const struct ot_settings *s = &ot_rec.settings;
        e->batch = b;
        e->limits = (struct ot_limits){s->attribute_limit, s->event_limit, s->link_limit};
        e->name_count = OT_LOAD_ACQUIRE(&ot_rec.header->name_count);
        e->name_count = e->name_count < s->max_names ? e->name_count : s->max_names;
        ot_tracestate_start(&e->tracestate);
        for (uint32_t i = 0; i < b->count; i++) {
            const struct ot_batch_probe *probe = &b->probes[b->probe_of[i]];
            if (probe->scope < scopes) {
                e->out = &wires[probe->scope];
                put_span(e, &b->kept[i], probe);
            }
        }
    }
    pthread_rwlock_unlock(&ot_mapping);
    return there;
}

/* A ScopeSpans or ResourceSpans is field `tag` of its parent; it has a head, a body and a tail. */
static size_t
message_bytes(size_t content)
{
    return 1 + ot_varint_bytes(content) + content;
}

static uint8_t *
copy_bytes(uint8_t *at, PyObject *bytes)
{
    size_t n = (size_t)PyBytes_GET_SIZE(bytes);
    memcpy(at, PyBytes_AS_STRING(bytes), n);
    return at + n;
}

static size_t
scope_bytes(PyObject *const *pair, const struct ot_wire *spans)
{
    return (size_t)PyBytes_GET_SIZE(pair[0]) + spans->used + (size_t)PyBytes_GET_SIZE(pair[1]);
}

static PyObject *
assemble(PyObject *resource, PyObject *schema_url, PyObject *const *pairs, const struct ot_wire *wires, uint32_t scopes)
{
    size_t content = (size_t)PyBytes_GET_SIZE(resource) + (size_t)PyBytes_GET_SIZE(schema_url);
    for (uint32_t i = 0; i < scopes; i++) {
        if (wires[i].failed)
            return PyErr_NoMemory();
        content += message_bytes(scope_bytes(&pairs[2 * i], &wires[i]));
    }
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)message_bytes(content));
    if (result == NULL)
        return NULL;
    uint8_t *at = (uint8_t *)PyBytes_AS_STRING(result);
    Py_BEGIN_ALLOW_THREADS
        *at++ = 1 << 3 | 2;
        at = copy_bytes(ot_put_varint(at, content), resource);
        for (uint32_t i = 0; i < scopes; i++) {
            *at++ = 2 << 3 | 2;
            at = copy_bytes(ot_put_varint(at, scope_bytes(&pairs[2 * i], &wires[i])), pairs[2 * i]);
            memcpy(at, wires[i].data, wires[i].used);
            at = copy_bytes(at + wires[i].used, pairs[2 * i + 1]);
        }
        (void)copy_bytes(at, schema_url);
    Py_END_ALLOW_THREADS
    return result;
}

/* The scopes' messages, flat and borrowed from `list`; 0 or -1 with an exception set. */
static int
read_scopes(PyObject *list, Py_ssize_t count, PyObject **pairs)
{
    if (PyTuple_GET_SIZE(list) != count) {
        PyErr_Format(PyExc_ValueError, "otlp() needs as many scopes as scopes() gives: %zd", count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyTuple_GET_ITEM(list, i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyBytes_Check(PyTuple_GET_ITEM(pair, 0)) ||
            !PyBytes_Check(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_SetString(PyExc_TypeError, "otlp() needs of each scope a tuple of two bytes");
            return -1;
        }
        pairs[2 * i] = PyTuple_GET_ITEM(pair, 0);
        pairs[2 * i + 1] = PyTuple_GET_ITEM(pair, 1);
    }
    return 0;
}

PyObject *
ot_batch_otlp(PyObject *self, PyObject *args)
{
    const ot_batch *b = (const ot_batch *)self;
    PyObject *resource, *schema_url, *given, *result = NULL;
    if (!PyArg_ParseTuple(args, "SSO:otlp", &resource, &schema_url, &given))
        return NULL;
    PyObject *list = PySequence_Tuple(given);
    if (list == NULL)
        return NULL;
    uint32_t scopes = (uint32_t)PyList_GET_SIZE(b->scopes);
    PyObject **pairs = malloc(sizeof *pairs * 2 * ((size_t)scopes + 1));
    struct ot_wire *wires = malloc(sizeof *wires * ((size_t)scopes + 1));
    struct encoder *e = malloc(sizeof *e);
    bool there = true;
    for (uint32_t i = 0; wires != NULL && i < scopes; i++)
        ot_wire_start(&wires[i], REQUEST_BYTES);
    if (wires != NULL && scopes == 1) /* spare the growing what most spans need */
        (void)ot_wire_room(&wires[0], (size_t)b->count * USUAL_BYTES);
    if (pairs == NULL || wires == NULL || e == NULL) {
        PyErr_NoMemory();
    }
    else if (read_scopes(list, scopes, pairs) == 0) {
        Py_BEGIN_ALLOW_THREADS
            there = encode_all(b, e, wires, scopes);
        Py_END_ALLOW_THREADS
        if (!there)
            PyErr_SetString(PyExc_RuntimeError, "the segment that these spans are of is gone");
        else if (scopes == 0)
            result = PyBytes_FromStringAndSize(NULL, 0);
        else
            result = assemble(resource, schema_url, pairs, wires, scopes);
    }
    for (uint32_t i = 0; wires != NULL && i < scopes; i++)
        ot_wire_free(&wires[i]);
    free(e);
    free(wires);
    free(pairs);
    Py_DECREF(list);
    return result;
}
