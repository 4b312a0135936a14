#include "spanstate.h"

#include <string.h>

#include "doubles.h"
#include "entry.h"
#include "span.h"

static PyObject *
value_of(unsigned type, const uint8_t *payload, size_t bytes, ot_name_fn name, void *context)
{
    uint64_t word = 0;
    if (type == OT_TYPE_TEXT)
        return PyUnicode_DecodeUTF8((const char *)payload, (Py_ssize_t)bytes, "replace");
    memcpy(&word, payload, bytes < sizeof word ? bytes : sizeof word);
    switch (type) {
    case OT_TYPE_BOOL:
        return PyBool_FromLong(word != 0);
    case OT_TYPE_INT:
        return PyLong_FromLongLong((long long)word);
    case OT_TYPE_DOUBLE:
        return PyFloat_FromDouble(ot_double_of(word));
    case OT_TYPE_NAME:
        return name(context, word > UINT32_MAX ? UINT32_MAX : (uint32_t)word);
    default:
        return NULL;
    }
}

/* 0, or -1 for want of memory; an unknown type is left out. */
static int
put(PyObject *attributes, uint32_t key, unsigned type, const uint8_t *payload, size_t bytes, ot_name_fn name,
    void *context)
{
    if (type < OT_TYPE_BOOL || type > OT_TYPE_TEXT)
        return 0;
    PyObject *k = name(context, key), *v = k != NULL ? value_of(type, payload, bytes, name, context) : NULL;
    int result = k != NULL && v != NULL ? PyDict_SetItem(attributes, k, v) : -1;
    Py_XDECREF(k);
    Py_XDECREF(v);
    return result;
}

static bool
is_inline(const struct ot_slot *s, unsigned count, uint32_t key)
{
    for (unsigned i = 0; i < count; i++) {
        if (s->key[i] == key && s->type[i] != OT_TYPE_NONE && key != OT_NAME_OTHER)
            return true;
    }
    return false;
}

static PyObject *
attributes_of(const struct ot_slot *s, const uint8_t *blocks, size_t bytes, ot_name_fn name, void *context)
{
    PyObject *attributes = PyDict_New();
    if (attributes == NULL || !s->extra)
        return attributes;
    unsigned count = s->count < OT_INLINE_ATTRIBUTES ? s->count : OT_INLINE_ATTRIBUTES;
    for (unsigned i = 0; i < count; i++) {
        if (s->type[i] != OT_TYPE_TEXT && /* texts are in the arena */
            put(attributes, s->key[i], s->type[i], (const uint8_t *)&s->value[i], 8, name, context) < 0)
            goto failed;
    }
    /* oldest first, so that the newest of a key stays */
    size_t starts[OT_MAX_ATTRIBUTES];
    unsigned total = 0;
    for (size_t at = 0; at + sizeof(struct ot_block) <= bytes && total < OT_MAX_ATTRIBUTES;) {
        struct ot_block b;
        memcpy(&b, blocks + at, sizeof b);
        if (b.bytes > bytes - at - sizeof b)
            break;
        starts[total++] = at;
        at += (sizeof b + b.bytes + 7) & ~(size_t)7;
    }
    while (total-- > 0) {
        struct ot_block b;
        memcpy(&b, blocks + starts[total], sizeof b);
        if (!is_inline(s, count, b.key) &&
            put(attributes, b.key, b.type, blocks + starts[total] + sizeof b, b.bytes, name, context) < 0)
            goto failed;
    }
    return attributes;
failed:
    Py_DECREF(attributes);
    return NULL;
}

PyObject *
ot_span_state(const struct ot_slot *s, uint64_t start_ns, uint64_t end_ns, const uint8_t *blocks, size_t bytes,
              ot_name_fn name, void *context)
{
    PyObject *trace_id = ot_long_128(s->trace_hi, s->trace_lo);
    PyObject *attributes = attributes_of(s, blocks, bytes, name, context);
    PyObject *error = s->extra && s->error != 0 ? name(context, s->error) : Py_NewRef(Py_None);
    PyObject *tracestate = s->extra && s->tracestate != 0 ? name(context, s->tracestate) : Py_NewRef(Py_None);
    PyObject *result = NULL;
    if (trace_id && attributes && error && tracestate)
        result = Py_BuildValue("(IIOKKKKIIOOOI)", (unsigned)s->probe, (unsigned)s->tier, trace_id,
                               (unsigned long long)s->span_id, (unsigned long long)s->parent_id,
                               (unsigned long long)start_ns, (unsigned long long)end_ns, (unsigned)s->status,
                               (unsigned)s->flags, error, tracestate, attributes, s->extra ? (unsigned)s->dropped : 0U);
    Py_XDECREF(trace_id);
    Py_XDECREF(attributes);
    Py_XDECREF(error);
    Py_XDECREF(tracestate);
    return result;
}
