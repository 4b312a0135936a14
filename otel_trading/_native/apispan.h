/* A span as OpenTelemetry's API has it: the methods of the type Span that follow the SDK's rules. */
#ifndef OTEL_TRADING_APISPAN_H
#define OTEL_TRADING_APISPAN_H

#include "span.h"

int ot_api_start(void); /* once, at import */

/* Attributes from a mapping, of a span that is open or has its entry reserved. */
void ot_api_attributes(ot_span *s, PyObject *attributes);
/* Links from what start_span() was given. */
void ot_api_links(ot_span *s, PyObject *links);
/* The time that the program gave, in Unix ns; false where it gave none, or none that can be told. */
bool ot_api_time(PyObject *given, uint64_t *unix_ns);
/* Record an exception, and the status that comes of it, as the span was told to. */
void ot_api_raised(ot_span *s, PyObject *error, bool escaped);
/* `with span:` is left. */
void ot_api_left(ot_span *s, PyObject *type, PyObject *error);

#define OT_API_METHOD(name) \
    PyObject *ot_api_##name(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
OT_API_METHOD(set_attribute);
OT_API_METHOD(set_attributes);
OT_API_METHOD(add_event);
OT_API_METHOD(add_link);
OT_API_METHOD(update_name);
OT_API_METHOD(set_status);
OT_API_METHOD(record_exception);
OT_API_METHOD(end);
PyObject *ot_api_get_span_context(PyObject *self, PyObject *ignored);
PyObject *ot_api_is_recording(PyObject *self, PyObject *ignored);
/* What the SDK's ReadableSpan or Tracer has: told by the hook `readable`, by name.  Descriptors, and no fallback for any name, as a type
 * with a __getattr__ of its own loses the interpreter's short cuts to methods. */
PyObject *ot_api_readable(PyObject *self, void *name);

#define OT_API_ENTRY(name) {#name, (PyCFunction)(void (*)(void))ot_api_##name, METH_FASTCALL | METH_KEYWORDS, NULL}
#define OT_API_METHODS                                                                                          \
    OT_API_ENTRY(set_attribute), OT_API_ENTRY(set_attributes), OT_API_ENTRY(add_event), OT_API_ENTRY(add_link), \
        OT_API_ENTRY(update_name), OT_API_ENTRY(set_status), OT_API_ENTRY(record_exception), OT_API_ENTRY(end), \
        {"get_span_context", ot_api_get_span_context, METH_NOARGS, NULL},                                       \
    {                                                                                                           \
        "is_recording", ot_api_is_recording, METH_NOARGS, NULL                                                  \
    }

#define OT_READABLE(name) {name, ot_api_readable, NULL, NULL, (void *)(name)}
#define OT_API_READABLE                                                                                           \
    OT_READABLE("name"), OT_READABLE("context"), OT_READABLE("kind"), OT_READABLE("parent"),                      \
        OT_READABLE("start_time"), OT_READABLE("end_time"), OT_READABLE("status"), OT_READABLE("attributes"),     \
        OT_READABLE("events"), OT_READABLE("links"), OT_READABLE("resource"), OT_READABLE("dropped_attributes"),  \
        OT_READABLE("dropped_events"), OT_READABLE("dropped_links"), OT_READABLE("instrumentation_scope"),        \
        OT_READABLE("instrumentation_info"), OT_READABLE("to_json"), OT_READABLE("_readable_span"),               \
        OT_READABLE("_name"), OT_READABLE("_context"), OT_READABLE("_kind"), OT_READABLE("_parent"),              \
        OT_READABLE("_start_time"), OT_READABLE("_end_time"), OT_READABLE("_status"), OT_READABLE("_attributes"), \
        OT_READABLE("_events"), OT_READABLE("_links"), OT_READABLE("_resource"),                                  \
        OT_READABLE("_instrumentation_scope"), OT_READABLE("_instrumentation_info")

#endif
