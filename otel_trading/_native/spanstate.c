#include "spanstate.h"

#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "doubles.h"
#include "drain.h"
#include "entry.h"
#include "names.h"
#include "span.h"
#include "tracestate.h"

/* Where names come from. */
struct namer {
    ot_name_fn name;
    void *context;
};

static PyObject *
value_of(unsigned type, const uint8_t *payload, size_t bytes, const struct namer *n)
{
    uint64_t word = 0;
    if (type == OT_TYPE_TEXT)
        return PyUnicode_DecodeUTF8((const char *)payload, (Py_ssize_t)bytes, "replace");
    if (type == OT_TYPE_MESSAGE)
        return PyBytes_FromStringAndSize((const char *)payload, (Py_ssize_t)bytes);
    memcpy(&word, payload, bytes < sizeof word ? bytes : sizeof word);
    switch (type) {
    case OT_TYPE_BOOL:
        return PyBool_FromLong(word != 0);
    case OT_TYPE_INT:
        return PyLong_FromLongLong((long long)word);
    case OT_TYPE_DOUBLE:
        return PyFloat_FromDouble(ot_double_of(word));
    default:
        return n->name(n->context, word > UINT32_MAX ? UINT32_MAX : (uint32_t)word);
    }
}

/* Attributes as they are replayed. */
struct replay {
    PyObject *attributes; /* dict */
    uint32_t limit;
    uint32_t dropped;
};

/* Take the oldest out; 0 or -1. */
static int
evict(struct replay *r)
{
    PyObject *key;
    Py_ssize_t at = 0;
    r->dropped++;
    if (!PyDict_Next(r->attributes, &at, &key, NULL))
        return 0;
    Py_INCREF(key);
    int result = PyDict_DelItem(r->attributes, key);
    Py_DECREF(key);
    return result;
}

/* As the SDK does it: a key that comes again moves to the end, the oldest makes room; 0 or -1 for want of memory. */
static int
put(struct replay *r, const struct ot_attribute *a, const struct namer *n)
{
    if (r->limit == 0) {
        r->dropped++;
        return 0;
    }
    PyObject *k = a->text != NULL ? PyUnicode_DecodeUTF8(a->text, (Py_ssize_t)a->text_bytes, "replace")
                                  : n->name(n->context, a->key);
    PyObject *v = k != NULL ? value_of(a->type, a->payload, a->bytes, n) : NULL;
    int result = k != NULL && v != NULL ? PyDict_Contains(r->attributes, k) : -1;
    if (result == 1)
        result = PyDict_DelItem(r->attributes, k);
    if (result == 0 && PyDict_GET_SIZE(r->attributes) >= (Py_ssize_t)r->limit)
        result = evict(r);
    if (result == 0)
        result = PyDict_SetItem(r->attributes, k, v);
    Py_XDECREF(k);
    Py_XDECREF(v);
    return result;
}

static int
replay_all(struct replay *r, const struct ot_slot *s, const struct ot_contents *c, const struct namer *n)
{
    unsigned count = s->count < OT_INLINE_ATTRIBUTES ? s->count : OT_INLINE_ATTRIBUTES;
    for (unsigned i = 0; i < count; i++) {
        struct ot_attribute a = {
            .key = s->key[i], .bytes = 8, .type = s->type[i], .payload = (const uint8_t *)&s->value[i]};
        if (a.type >= OT_TYPE_BOOL && a.type <= OT_TYPE_NAME && put(r, &a, n) < 0)
            return -1;
    }
    for (uint32_t i = c->count; i-- > 0;) {
        struct ot_block b = ot_block_at(c, c->start[i]);
        struct ot_attribute a;
        if (b.kind == OT_BLOCK_ATTRIBUTE && ot_attribute_parse(&b, ot_block_payload(c, c->start[i]), &a) &&
            put(r, &a, n) < 0)
            return -1;
    }
    return 0;
}

/* The messages of a kind, oldest first, the newest `limit`. */
static PyObject *
messages_of(const struct ot_contents *c, unsigned kind, uint32_t found, uint32_t limit)
{
    uint32_t skip = found > limit ? found - limit : 0;
    PyObject *list = PyList_New(0);
    for (uint32_t i = c->count; list != NULL && i-- > 0;) {
        struct ot_block b = ot_block_at(c, c->start[i]);
        if (b.kind != kind)
            continue;
        if (skip > 0) {
            skip--;
            continue;
        }
        PyObject *message = PyBytes_FromStringAndSize((const char *)ot_block_payload(c, c->start[i]), b.bytes);
        if (message == NULL || PyList_Append(list, message) < 0)
            Py_CLEAR(list);
        Py_XDECREF(message);
    }
    return list;
}

/* The text of a block by its offset + 1; None where there is none. */
static PyObject *
text_of(const struct ot_contents *c, uint32_t place)
{
    if (place == 0)
        return Py_NewRef(Py_None);
    struct ot_block b = ot_block_at(c, place - 1);
    return PyUnicode_DecodeUTF8((const char *)ot_block_payload(c, place - 1), b.bytes, "replace");
}

static uint32_t
beyond(uint32_t total, uint32_t found, uint32_t limit)
{
    return total - (found < limit ? found : limit);
}

/* The tracestate with the threshold in it; takes `before` over. */
static PyObject *
with_threshold(PyObject *before, const struct ot_odds *odds)
{
    char text[OT_NAME_BYTES];
    Py_ssize_t bytes = 0;
    const char *given = before == NULL || before == Py_None ? NULL : PyUnicode_AsUTF8AndSize(before, &bytes);
    if (before == NULL)
        return NULL;
    PyErr_Clear(); /* a text that is no UTF-8 is no tracestate */
    uint32_t used = ot_tracestate_threshold(text, given, (uint32_t)(bytes < UINT32_MAX ? bytes : UINT32_MAX), odds);
    Py_DECREF(before);
    return PyUnicode_DecodeASCII(text, used, "replace");
}

static PyObject *
state_of(const struct ot_slot *s, uint64_t start_ns, uint64_t end_ns, const uint8_t *blocks, size_t bytes,
         const struct ot_limits *limits, const struct namer *namer, const struct ot_odds *odds)
{
    struct namer n = *namer;
    ot_name_fn name = n.name;
    void *context = n.context;
    struct ot_contents c;
    struct replay r = {PyDict_New(), limits->attributes, s->extra ? s->dropped : 0};
    ot_blocks_index(blocks, s->extra ? bytes : 0, &c);
    if (r.attributes != NULL && s->extra && replay_all(&r, s, &c, &n) < 0)
        Py_CLEAR(r.attributes);
    PyObject *trace_id = ot_long_128(s->trace_hi, s->trace_lo);
    PyObject *error = s->extra && s->error != 0 ? name(context, s->error) : Py_NewRef(Py_None);
    PyObject *tracestate = s->extra && s->tracestate != 0 ? name(context, s->tracestate) : text_of(&c, c.tracestate);
    if (odds != NULL)
        tracestate = with_threshold(tracestate, odds);
    PyObject *own_name = text_of(&c, c.name), *description = text_of(&c, c.status);
    PyObject *events = messages_of(&c, OT_BLOCK_EVENT, c.events, limits->events);
    PyObject *links = messages_of(&c, OT_BLOCK_LINK, c.links, limits->links);
    PyObject *result = NULL;
    if (trace_id && r.attributes && error && tracestate && own_name && description && events && links)
        result = Py_BuildValue("(IIOKKKKIIOOOIOOOOII)", (unsigned)s->probe, (unsigned)s->tier, trace_id,
                               (unsigned long long)s->span_id, (unsigned long long)s->parent_id,
                               (unsigned long long)start_ns, (unsigned long long)end_ns, (unsigned)s->status,
                               (unsigned)s->flags, error, tracestate, r.attributes, (unsigned)r.dropped, own_name,
                               description, events, links, (unsigned)beyond(c.events_total, c.events, limits->events),
                               (unsigned)beyond(c.links_total, c.links, limits->links));
    Py_XDECREF(trace_id);
    Py_XDECREF(r.attributes);
    Py_XDECREF(error);
    Py_XDECREF(tracestate);
    Py_XDECREF(own_name);
    Py_XDECREF(description);
    Py_XDECREF(events);
    Py_XDECREF(links);
    return result;
}

PyObject *
ot_span_state(const struct ot_slot *s, uint64_t start_ns, uint64_t end_ns, const uint8_t *blocks, size_t bytes,
              const struct ot_limits *limits, ot_name_fn name, void *context)
{
    struct namer n = {name, context};
    return state_of(s, start_ns, end_ns, blocks, bytes, limits, &n, NULL);
}

PyObject *
ot_kept_state(const struct ot_slot *s, uint64_t start_ns, uint64_t end_ns, const uint8_t *blocks, size_t bytes,
              const struct ot_limits *limits, const struct ot_odds *odds)
{
    struct namer n = {ot_own_name, NULL};
    return state_of(s, start_ns, end_ns, blocks, bytes, limits, &n, odds);
}

struct ot_limits
ot_own_limits(void)
{
    const struct ot_settings *s = &ot_rec.settings;
    return (struct ot_limits){s->attribute_limit, s->event_limit, s->link_limit};
}

PyObject *
ot_own_name(void *Py_UNUSED(context), uint32_t id)
{
    return Py_NewRef(ot_name_text(id));
}

PyObject *
ot_entry_state(struct ot_writer *w, const struct ot_slot *e)
{
    struct ot_slot copy = *e; /* a finalizer that runs meanwhile may end the span */
    struct ot_blocks blocks = {0};
    struct ot_calibration calibration;
    ot_drain_calibration(&calibration);
    if (copy.extra && copy.arena != 0)
        ot_blocks_copy(w, copy.arena, &blocks);
    uint64_t start = copy.flags & OT_FLAG_START_UNIX ? copy.start : ot_unix_ns(&calibration, copy.start);
    uint64_t end = copy.state != OT_SLOT_SPAN      ? 0
                   : copy.flags & OT_FLAG_END_UNIX ? copy.end
                                                   : ot_unix_ns(&calibration, copy.end);
    struct ot_limits limits = ot_own_limits();
    PyObject *state = ot_span_state(&copy, start, end, blocks.data, blocks.bytes, &limits, ot_own_name, NULL);
    free(blocks.data);
    return state;
}
