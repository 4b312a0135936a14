/* OpenTelemetry's contexts as values of the context variable that says what is current. */
#ifndef OTEL_TRADING_CONTEXT_H
#define OTEL_TRADING_CONTEXT_H

#include "span.h"

/* What attach_context made current.  It lives as long as the context variable's values and tokens do. */
typedef struct {
    PyObject_HEAD
    PyObject *context; /* owned: what was attached */
    ot_span *below; /* owned: the nearest span below, or NULL; frames are left out, so that frames which nobody detaches
                        * do not pile up */
    ot_span
        *span; /* owned: the context's span, or what stands for it; NULL: it has none.  Looked at when the context is
                        * attached, so that whoever asks for the current span runs no code but ours */
} ot_frame;

extern PyTypeObject ot_frame_type;

int ot_contexts_start(void); /* once, at import */

/* The span of an OpenTelemetry context: ours, or a stand-in of state SPAN_REMOTE for one that is not; owned.  NULL where it
 * has none. */
ot_span *ot_context_span(PyObject *context);

PyObject *ot_get_context(PyObject *module, PyObject *ignored);
PyObject *ot_attach_context(PyObject *module, PyObject *context);
PyObject *ot_detach_context(PyObject *module, PyObject *token);

#endif
