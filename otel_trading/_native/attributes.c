/* Attributes: four inline, the rest and long texts in the thread's arena. */
#include <string.h>

#include "doubles.h"
#include "entry.h"
#include "names.h"

/* A value as the format has it. */
struct value {
    uint8_t type;
    uint64_t word;
    const char *text; /* for OT_TYPE_TEXT, borrowed from the value */
    uint32_t bytes;
};

/* Longest prefix that fits and ends at a character's border. */
static uint32_t
cut(const char *utf8, Py_ssize_t bytes)
{
    if (bytes <= OT_TEXT_MAX)
        return (uint32_t)bytes;
    uint32_t n = OT_TEXT_MAX;
    while (n > 0 && ((unsigned char)utf8[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static bool
from_text(PyObject *text, struct value *v)
{
    uint32_t id = ot_value_id(text);
    if (id != OT_NAME_NONE) {
        v->type = OT_TYPE_NAME;
        v->word = id;
        return true;
    }
    Py_ssize_t bytes;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &bytes);
    if (utf8 == NULL) {
        PyErr_Clear();
        return false;
    }
    v->type = OT_TYPE_TEXT;
    v->text = utf8;
    v->bytes = cut(utf8, bytes);
    return true;
}

/* `*keep` is what must stay alive while v->text is used. */
static bool
convert(PyObject *value, struct value *v, PyObject **keep)
{
    if (PyFloat_Check(value)) {
        v->type = OT_TYPE_DOUBLE;
        v->word = ot_bits_of(PyFloat_AS_DOUBLE(value));
        return true;
    }
    if (PyUnicode_Check(value))
        return from_text(value, v);
    if (PyBool_Check(value)) {
        v->type = OT_TYPE_BOOL;
        v->word = value == Py_True;
        return true;
    }
    if (PyLong_Check(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow == 0) {
            v->type = OT_TYPE_INT;
            v->word = (uint64_t)number;
            return true;
        }
        *keep = PyObject_Str(value); /* beyond 64 bits: as text */
        if (*keep != NULL && from_text(*keep, v))
            return true;
        PyErr_Clear();
        return false;
    }
    if (PyIndex_Check(value)) { /* numpy's integers */
        PyObject *number = PyNumber_Index(value);
        bool done = number != NULL && PyLong_CheckExact(number) && convert(number, v, keep);
        Py_XDECREF(number);
        PyErr_Clear();
        return done;
    }
    PyNumberMethods *methods = Py_TYPE(value)->tp_as_number;
    if (methods != NULL && methods->nb_float != NULL) { /* Decimal, numpy's floats */
        double d = PyFloat_AsDouble(value);
        if (d == -1.0 && PyErr_Occurred()) {
            PyErr_Clear();
            return false;
        }
        v->type = OT_TYPE_DOUBLE;
        v->word = ot_bits_of(d);
        return true;
    }
    return false;
}

/* Append a block; its position + 1, or 0 where it can never fit. */
static uint64_t
arena_append(struct ot_writer *w, uint64_t previous, uint16_t key, const struct value *v)
{
    uint32_t payload = v->type == OT_TYPE_TEXT ? v->bytes : 8;
    uint64_t need = (sizeof(struct ot_block) + payload + 7) & ~7ULL;
    uint64_t size = w->arena_mask + 1;
    if (need > size / 4)
        return 0;
    uint64_t at = w->arena_head;
    uint64_t left = size - (at & w->arena_mask);
    if (left < need)
        at += left; /* never across the end */
    w->arena_head = at + need;
    /* readers that copied an older block find by the head that it is gone */
    OT_STORE(&w->ring->arena_head, w->arena_head);
    OT_FENCE_RELEASE();
    struct ot_block *b = (struct ot_block *)(void *)(w->arena + (at & w->arena_mask));
    b->position = at;
    b->previous = previous;
    b->bytes = payload;
    b->key = key;
    b->type = v->type;
    b->kind = 1;
    memcpy(b + 1, v->type == OT_TYPE_TEXT ? (const void *)v->text : (const void *)&v->word, payload);
    return at + 1;
}

static void
drop(struct ot_writer *w, struct ot_slot *e)
{
    OT_STORE(&e->dropped, e->dropped + 1);
    OT_STORE(&w->ring->attributes_dropped, w->ring->attributes_dropped + 1);
}

/* How many blocks hang on an entry; also whether the newest of them is still there. */
static unsigned
chain_length(const struct ot_writer *w, const struct ot_slot *e)
{
    unsigned n = 0;
    for (uint64_t at = e->arena; at != 0 && n < OT_MAX_ATTRIBUTES; n++) {
        uint64_t position = at - 1;
        if (w->arena_head - position > w->arena_mask + 1)
            break; /* overwritten */
        at = ((const struct ot_block *)(const void *)(w->arena + (position & w->arena_mask)))->previous;
    }
    return n;
}

void
ot_attribute_set(struct ot_writer *w, struct ot_slot *e, PyObject *key, uint32_t key_id, PyObject *value)
{
    struct value v = {0};
    PyObject *keep = NULL;
    if (key_id == OT_NAME_NONE)
        key_id = PyUnicode_GET_LENGTH(key) != 0 ? ot_name_id(key) : OT_NAME_OTHER;
    uint64_t epoch = ot_rec.epoch;
    bool known = convert(value, &v, &keep); /* may run the value's own code, which may even close the segment */
    if (!known || epoch != ot_rec.epoch) {
        Py_XDECREF(keep);
        ot_fault();
        return;
    }
    ot_entry_extra(e);
    unsigned i = 0;
    while (i < e->count && (e->key[i] != key_id || key_id == OT_NAME_OTHER))
        i++;
    bool inside = v.type != OT_TYPE_TEXT;
    if (i < OT_INLINE_ATTRIBUTES && (inside || i < e->count)) {
        if (!inside) { /* an inline value that becomes a long text: OT_TYPE_NONE sends readers to the arena */
            uint64_t at = arena_append(w, e->arena, (uint16_t)key_id, &v);
            if (at == 0) {
                drop(w, e);
            }
            else {
                OT_STORE(&e->type[i], OT_TYPE_NONE);
                OT_STORE_RELEASE(&e->arena, at);
            }
        }
        else {
            uint64_t seq = e->seq;
            OT_STORE(&e->seq, seq + 1);
            OT_FENCE_RELEASE();
            OT_STORE(&e->key[i], (uint16_t)key_id);
            OT_STORE(&e->type[i], v.type);
            OT_STORE(&e->value[i], v.word);
            if (i == e->count)
                OT_STORE(&e->count, (uint8_t)(i + 1));
            OT_STORE_RELEASE(&e->seq, seq + 2);
        }
    }
    else if (chain_length(w, e) + OT_INLINE_ATTRIBUTES >= OT_MAX_ATTRIBUTES) {
        drop(w, e);
    }
    else {
        uint64_t at = arena_append(w, e->arena, (uint16_t)key_id, &v);
        if (at == 0)
            drop(w, e);
        else
            OT_STORE_RELEASE(&e->arena, at);
    }
    Py_XDECREF(keep);
}

uint32_t
ot_error_name(PyObject *type)
{
    PyObject *name = PyObject_GetAttrString(type, "__qualname__");
    PyObject *module = name ? PyObject_GetAttrString(type, "__module__") : NULL;
    PyObject *full = NULL;
    if (name && module && PyUnicode_Check(name) && PyUnicode_Check(module))
        full = PyUnicode_CompareWithASCIIString(module, "builtins") == 0 ? Py_NewRef(name)
                                                                         : PyUnicode_FromFormat("%U.%U", module, name);
    uint32_t id = full != NULL ? ot_name_id(full) : OT_NAME_OTHER;
    Py_XDECREF(name);
    Py_XDECREF(module);
    Py_XDECREF(full);
    PyErr_Clear();
    return id;
}
