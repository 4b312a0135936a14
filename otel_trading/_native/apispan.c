#include "apispan.h"

#include "arguments.h"
#include "hooks.h"

static PyObject *exception_name; /* "exception" */

static struct ot_signature set_attribute = {"set_attribute", 2, 2, {"key", "value"}, {0}};
static struct ot_signature set_attributes = {"set_attributes", 1, 1, {"attributes"}, {0}};
static struct ot_signature add_event = {"add_event", 1, 3, {"name", "attributes", "timestamp"}, {0}};
static struct ot_signature add_link = {"add_link", 1, 2, {"context", "attributes"}, {0}};
static struct ot_signature update_name = {"update_name", 1, 1, {"name"}, {0}};
static struct ot_signature set_status = {"set_status", 1, 2, {"status", "description"}, {0}};
static struct ot_signature record_exception = {
    "record_exception", 1, 4, {"exception", "attributes", "timestamp", "escaped"}, {0}};
static struct ot_signature end = {"end", 0, 1, {"end_time"}, {0}};

int
ot_api_start(void)
{
    struct ot_signature *const all[] = {&set_attribute, &set_attributes, &add_event,        &add_link,
                                        &update_name,   &set_status,     &record_exception, &end};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (ot_signature_start(all[i]) < 0)
            return -1;
    }
    exception_name = PyUnicode_InternFromString("exception");
    return exception_name != NULL ? 0 : -1;
}

/* The entry of a span that takes what it is told, or NULL: it has ended (a fault), or records nothing. */
static struct ot_slot *
entry_of(ot_span *s)
{
    if (OT_LIKELY(s->state == SPAN_OPEN)) {
        if (s->dropped || !ot_span_writable(s))
            return NULL;
        struct ot_slot *e = ot_entry(s->writer, s->entry);
        return e->state == OT_SLOT_OPEN && e->span_id == s->span_id ? e : NULL; /* else written as interrupted */
    }
    if ((s->state == SPAN_ENDED && !s->dropped) || s->state == SPAN_MADE)
        ot_fault();
    return NULL;
}

/* A str of what a program gave as a name, owned; NULL, and a fault, where it can't be had. */
static PyObject *
text_of(PyObject *name)
{
    if (OT_LIKELY(PyUnicode_CheckExact(name)))
        return Py_NewRef(name);
    PyObject *text = PyUnicode_Check(name) ? PyUnicode_FromObject(name) : PyObject_Str(name);
    if (text == NULL) {
        PyErr_Clear();
        ot_fault();
    }
    return text;
}

bool
ot_api_time(PyObject *given, uint64_t *unix_ns)
{
    if (given == NULL || given == Py_None)
        return false;
    PyObject *number = PyNumber_Long(given);
    uint64_t value = number != NULL ? PyLong_AsUnsignedLongLong(number) : 0;
    Py_XDECREF(number);
    if (OT_UNLIKELY(PyErr_Occurred() != NULL)) {
        PyErr_Clear();
        ot_fault();
        return false;
    }
    *unix_ns = value;
    return true;
}

static uint64_t
time_or_now(PyObject *given)
{
    uint64_t ns;
    return ot_api_time(given, &ns) ? ns : ot_nanoseconds(CLOCK_REALTIME);
}

static PyObject *
mapping_or_null(PyObject *attributes)
{
    if (attributes == NULL || attributes == Py_None)
        return NULL;
    if (PyDict_Check(attributes) || (PyMapping_Check(attributes) && PyObject_HasAttrString(attributes, "items")))
        return attributes;
    ot_fault();
    return NULL;
}

/* ---- attributes ---- */

/* `given`: in a mapping, where the SDK takes other keys than text by their text. */
static void
set_one(ot_span *s, PyObject *key, PyObject *value, bool given)
{
    PyObject *text = NULL;
    if (OT_LIKELY(PyUnicode_CheckExact(key))) {
        text = Py_NewRef(key);
    }
    else if (PyUnicode_Check(key)) {
        text = PyUnicode_FromObject(key);
    }
    else if (given && ot_hooks.clean != NULL && PyObject_IsTrue(key) > 0) {
        text = PyObject_CallOneArg(ot_hooks.clean, key);
        if (text != NULL && !PyUnicode_CheckExact(text))
            Py_SETREF(text, PyUnicode_Check(text) ? PyUnicode_FromObject(text) : PyObject_Str(text));
    }
    PyErr_Clear();
    if (OT_LIKELY(ot_span_writable(s))) {
        struct ot_writer *w = s->writer;
        struct ot_slot *e = ot_entry(w, s->entry);
        if (OT_LIKELY(text != NULL && PyUnicode_GET_LENGTH(text) > 0))
            ot_attribute_set(w, e, text, ot_probe_key(s->probe, text), value, true);
        else
            ot_attribute_drop(w, e);
    }
    Py_XDECREF(text);
}

void
ot_api_attributes(ot_span *s, PyObject *attributes)
{
    if (OT_LIKELY(PyDict_Check(attributes))) {
        PyObject *key, *value;
        Py_ssize_t at = 0;
        while (ot_span_writable(s) && PyDict_Next(attributes, &at, &key, &value)) {
            Py_INCREF(key); /* the code of a value's type may change the dict */
            Py_INCREF(value);
            set_one(s, key, value, true);
            Py_DECREF(key);
            Py_DECREF(value);
        }
        return;
    }
    PyObject *items = mapping_or_null(attributes) != NULL ? PyMapping_Items(attributes) : NULL;
    if (items == NULL) {
        PyErr_Clear();
        return;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items); i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);
        if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2)
            set_one(s, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1), true);
    }
    Py_DECREF(items);
}

OT_API_METHOD(set_attribute)
{
    PyObject *v[2];
    ot_span *s = (ot_span *)self;
    if (!ot_arguments(&set_attribute, args, nargs, kwnames, v))
        return NULL;
    if (OT_LIKELY(s->api)) {
        if (entry_of(s) != NULL)
            set_one(s, v[0], v[1], false);
        Py_RETURN_NONE;
    }
    if (s->state != SPAN_REMOTE && !PyUnicode_Check(v[0])) {
        PyErr_SetString(PyExc_TypeError, "set_attribute() takes a str and a value");
        return NULL;
    }
    ot_span_set_attribute(s, v[0], OT_NAME_NONE, v[1]);
    Py_RETURN_NONE;
}

OT_API_METHOD(set_attributes)
{
    PyObject *v[1];
    ot_span *s = (ot_span *)self;
    if (!ot_arguments(&set_attributes, args, nargs, kwnames, v))
        return NULL;
    if (entry_of(s) != NULL)
        ot_api_attributes(s, v[0]);
    Py_RETURN_NONE;
}

/* ---- events and links ---- */

OT_API_METHOD(add_event)
{
    PyObject *v[3];
    ot_span *s = (ot_span *)self;
    if (!ot_arguments(&add_event, args, nargs, kwnames, v))
        return NULL;
    if (entry_of(s) == NULL)
        Py_RETURN_NONE;
    uint64_t ns = time_or_now(v[2]);
    PyObject *name = text_of(v[0]), *attributes = mapping_or_null(v[1]);
    struct ot_slot *e = name != NULL ? entry_of(s) : NULL; /* again, as code of the program's may have run */
    if (e != NULL)
        ot_event_add(s->writer, e, name, attributes, ns);
    Py_XDECREF(name);
    Py_RETURN_NONE;
}

/* What a link points to.  False where the SDK takes none: no valid context, and nothing else to say. */
static bool
link_to(PyObject *context, PyObject *attributes, struct ot_origin *to, PyObject **tracestate)
{
    *tracestate = NULL;
    if (context == NULL || context == Py_None)
        return false;
    PyObject *trace_id = PyObject_GetAttrString(context, "trace_id");
    PyObject *span_id = trace_id != NULL ? PyObject_GetAttrString(context, "span_id") : NULL;
    PyObject *remote = span_id != NULL ? PyObject_GetAttrString(context, "is_remote") : NULL;
    PyObject *flags = remote != NULL ? PyObject_GetAttrString(context, "trace_flags") : NULL;
    PyObject *state = flags != NULL ? PyObject_GetAttrString(context, "trace_state") : NULL;
    uint64_t words[2] = {0, 0};
    bool known =
        state != NULL && PyLong_Check(trace_id) && PyLong_Check(span_id) && ot_long_words(trace_id, words) == 0;
    if (known) {
        *to = (struct ot_origin){.trace_hi = words[0], .trace_lo = words[1]};
        to->parent_id = PyLong_AsUnsignedLongLongMask(span_id);
        to->flags = PyObject_IsTrue(remote) > 0 ? OT_FLAG_REMOTE_PARENT : 0;
        if (PyLong_Check(flags) && !(PyLong_AsUnsignedLongMask(flags) & 1))
            to->flags |= OT_FLAG_UNSAMPLED;
        if (PyObject_IsTrue(state) > 0) {
            PyObject *header = PyObject_CallMethod(state, "to_header", NULL);
            if (header != NULL && PyUnicode_Check(header))
                *tracestate = Py_NewRef(header);
            Py_XDECREF(header);
        }
        to->tracestate = *tracestate;
        bool valid = (words[0] | words[1]) != 0 && to->parent_id != 0;
        known = valid || *tracestate != NULL || (attributes != NULL && PyObject_IsTrue(attributes) > 0);
    }
    else {
        ot_fault();
    }
    PyErr_Clear();
    Py_XDECREF(trace_id);
    Py_XDECREF(span_id);
    Py_XDECREF(remote);
    Py_XDECREF(flags);
    Py_XDECREF(state);
    return known;
}

/* On a span that is open or has its entry reserved. */
static void
link_one(ot_span *s, PyObject *context, PyObject *attributes)
{
    struct ot_origin to;
    PyObject *tracestate;
    attributes = mapping_or_null(attributes);
    if (link_to(context, attributes, &to, &tracestate) && ot_span_writable(s))
        ot_link_add(s->writer, ot_entry(s->writer, s->entry), &to, attributes);
    Py_XDECREF(tracestate);
}

void
ot_api_links(ot_span *s, PyObject *links)
{
    PyObject *each = PySequence_Fast(links, "links");
    if (each == NULL) {
        PyErr_Clear();
        ot_fault();
        return;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(each); i++) {
        PyObject *link = Py_NewRef(PySequence_Fast_GET_ITEM(each, i));
        if (link != Py_None) {
            PyObject *context = PyObject_GetAttrString(link, "context");
            PyObject *attributes = context != NULL ? PyObject_GetAttrString(link, "attributes") : NULL;
            PyErr_Clear();
            if (context != NULL)
                link_one(s, context, attributes);
            else
                ot_fault();
            Py_XDECREF(context);
            Py_XDECREF(attributes);
        }
        Py_DECREF(link);
    }
    Py_DECREF(each);
}

OT_API_METHOD(add_link)
{
    PyObject *v[2];
    ot_span *s = (ot_span *)self;
    if (!ot_arguments(&add_link, args, nargs, kwnames, v))
        return NULL;
    if (entry_of(s) != NULL)
        link_one(s, v[0], v[1]);
    Py_RETURN_NONE;
}

/* ---- name, status, exceptions ---- */

OT_API_METHOD(update_name)
{
    PyObject *v[1];
    ot_span *s = (ot_span *)self;
    if (!ot_arguments(&update_name, args, nargs, kwnames, v))
        return NULL;
    if (entry_of(s) == NULL)
        Py_RETURN_NONE;
    PyObject *name = text_of(v[0]);
    struct ot_slot *e = name != NULL ? entry_of(s) : NULL;
    if (e != NULL)
        ot_name_set(s->writer, e, name);
    Py_XDECREF(name);
    Py_RETURN_NONE;
}

/* The status that the hook makes of a Status, a StatusCode, or an exception. */
static void
status_of(ot_span *s, PyObject *given, PyObject *description)
{
    struct ot_slot *e = entry_of(s);
    if (e == NULL || e->status == OT_STATUS_OK) /* which is final */
        return;
    PyObject *told = NULL;
    if (ot_hooks.status != NULL)
        told = PyObject_CallFunctionObjArgs(ot_hooks.status, given, description, NULL);
    if (told != NULL && PyTuple_Check(told) && PyTuple_GET_SIZE(told) == 2) {
        unsigned long code = PyLong_AsUnsignedLongMask(PyTuple_GET_ITEM(told, 0));
        PyObject *text = PyTuple_GET_ITEM(told, 1);
        e = entry_of(s);
        if (e != NULL && (code == OT_STATUS_OK || code == OT_STATUS_ERROR)) /* UNSET changes nothing */
            ot_status_set(s->writer, e, (unsigned)code, PyUnicode_Check(text) ? text : NULL);
    }
    else {
        ot_fault();
    }
    PyErr_Clear();
    Py_XDECREF(told);
}

OT_API_METHOD(set_status)
{
    PyObject *v[2];
    ot_span *s = (ot_span *)self;
    if (!ot_arguments(&set_status, args, nargs, kwnames, v))
        return NULL;
    if (entry_of(s) != NULL)
        status_of(s, v[0], v[1] != NULL ? v[1] : Py_None);
    Py_RETURN_NONE;
}

static void
record(ot_span *s, PyObject *error, PyObject *attributes, uint64_t ns, PyObject *escaped)
{
    if (ot_hooks.exception == NULL) {
        ot_fault();
        return;
    }
    PyObject *made = PyObject_CallFunctionObjArgs(ot_hooks.exception, error, attributes, escaped, NULL);
    PyErr_Clear();
    PyObject *mapping = mapping_or_null(made);
    struct ot_slot *e = entry_of(s);
    if (e != NULL)
        ot_event_add(s->writer, e, exception_name, mapping, ns);
    Py_XDECREF(made);
}

OT_API_METHOD(record_exception)
{
    PyObject *v[4];
    ot_span *s = (ot_span *)self;
    if (!ot_arguments(&record_exception, args, nargs, kwnames, v))
        return NULL;
    if (entry_of(s) == NULL)
        Py_RETURN_NONE;
    PyObject *attributes = mapping_or_null(v[1]);
    record(s, v[0], attributes != NULL ? attributes : Py_None, time_or_now(v[2]), v[3] != NULL ? v[3] : Py_False);
    Py_RETURN_NONE;
}

void
ot_api_raised(ot_span *s, PyObject *error, bool escaped)
{
    if (s->state != SPAN_OPEN || entry_of(s) == NULL)
        return;
    if (s->record_exception)
        record(s, error, Py_None, ot_nanoseconds(CLOCK_REALTIME), escaped ? Py_True : Py_False);
    if (s->set_status_on_exception && s->state == SPAN_OPEN)
        status_of(s, error, Py_None);
}

void
ot_api_left(ot_span *s, PyObject *Py_UNUSED(type), PyObject *error)
{
    if (OT_UNLIKELY(error != NULL && error != Py_None))
        ot_api_raised(s, error, true);
    ot_span_end(s, NULL);
}

OT_API_METHOD(end)
{
    PyObject *v[1];
    uint64_t ns;
    ot_span *s = (ot_span *)self;
    if (!ot_arguments(&end, args, nargs, kwnames, v))
        return NULL;
    if (OT_UNLIKELY(ot_api_time(v[0], &ns)))
        ot_span_end_at(s, ns);
    else
        ot_span_end(s, NULL);
    Py_RETURN_NONE;
}

/* ---- what it says of itself ---- */

PyObject *
ot_api_is_recording(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const ot_span *s = (const ot_span *)self;
    return PyBool_FromLong(s->state == SPAN_OPEN && !s->dropped && ot_span_writable(s));
}

PyObject *
ot_api_get_span_context(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ot_span *s = (ot_span *)self;
    if (OT_LIKELY(s->span_context != NULL))
        return Py_NewRef(s->span_context);
    if (ot_hooks.span_context == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "otel_trading: get_span_context() needs a tracer provider; make one first");
        return NULL;
    }
    bool valid = s->span_id != 0;
    PyObject *trace_id = ot_long_128(valid ? s->trace_hi : 0, valid ? s->trace_lo : 0);
    if (trace_id == NULL)
        return NULL;
    int flags = !valid ? 0 : (s->flags & OT_FLAG_UNSAMPLED ? 0 : 1) | (s->random ? 2 : 0);
    PyObject *made = PyObject_CallFunction(ot_hooks.span_context, "NKOiO", trace_id, (unsigned long long)s->span_id,
                                           s->remote && valid ? Py_True : Py_False, flags,
                                           s->tracestate != NULL ? s->tracestate : Py_None);
    if (made != NULL && s->state != SPAN_MADE && s->span_context == NULL)
        s->span_context = Py_NewRef(made);
    return made;
}

PyObject *
ot_api_readable(PyObject *self, void *name)
{
    if (ot_hooks.readable == NULL) {
        PyErr_Format(PyExc_AttributeError, "'%s' object has no attribute '%s'", Py_TYPE(self)->tp_name,
                     (const char *)name);
        return NULL;
    }
    return PyObject_CallFunction(ot_hooks.readable, "Os", self, (const char *)name);
}
