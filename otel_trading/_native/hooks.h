/* What the backend needs of OpenTelemetry's API, which it does not import itself. */
#ifndef OTEL_TRADING_HOOKS_H
#define OTEL_TRADING_HOOKS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Each owned, and NULL before api_install; see _native.pyi. */
extern struct ot_hooks {
    PyObject *context;
    PyObject *span_key; /* str */
    PyObject *kinds;    /* tuple of five */
    PyObject *span_context;
    PyObject *foreign;
    PyObject *exception;
    PyObject *status;
    PyObject *clean;
    PyObject *readable;
    PyObject *decorate;
    PyObject *fault;
} ot_hooks;

PyObject *ot_api_install(PyObject *module, PyObject *hooks);

/* Clear the exception that is set, which came out of the application's or a plugin's code, and tell of it once under `key`.
 * An interrupt from the keyboard is not lost: it comes again at the next chance. */
void ot_told(const char *key, const char *where);

#endif
