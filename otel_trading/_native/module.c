#include "adopt.h"
#include "batch.h"
#include "buffers.h"
#include "context.h"
#include "drain.h"
#include "governor.h"
#include "hooks.h"
#include "instruments.h"
#include "life.h"
#include "market.h"
#include "message.h"
#include "meter.h"
#include "names.h"
#include "orders.h"
#include "perf.h"
#include "pressure.h"
#include "probe.h"
#include "reader.h"
#include "span.h"
#include "tracer.h"
#include "vitals.h"

static PyMethodDef methods[] = {
    {"traced", ot_traced, METH_VARARGS, NULL},
    {"current", ot_current, METH_NOARGS, NULL},
    {"api_install", ot_api_install, METH_O, NULL},
    {"get_context", ot_get_context, METH_NOARGS, NULL},
    {"attach_context", ot_attach_context, METH_O, NULL},
    {"detach_context", ot_detach_context, METH_O, NULL},
    {"remote", ot_remote, METH_VARARGS, NULL},
    {"open", ot_open, METH_VARARGS, NULL},
    {"close", ot_close, METH_NOARGS, NULL},
    {"is_open", ot_is_open, METH_NOARGS, NULL},
    {"interrupt_open", ot_interrupt_open, METH_VARARGS, NULL},
    {"forked", ot_forked, METH_O, NULL},
    {"gc_callback", (PyCFunction)(void (*)(void))ot_gc_callback, METH_FASTCALL, NULL},
    {"fault", ot_fault_py, METH_NOARGS, NULL},
    {"drain_start", ot_drain_start, METH_O, NULL},
    {"drain_stop", ot_drain_stop, METH_O, NULL},
    {"drain", ot_drain_now, METH_VARARGS, NULL},
    {"share", ot_share, METH_O, NULL},
    {"pin", ot_pin, METH_O, NULL},
    {"await_kept", ot_await_kept, METH_VARARGS, NULL},
    {"wake", ot_wake, METH_NOARGS, NULL},
    {"govern_start", ot_govern_start, METH_NOARGS, NULL},
    {"govern_stop", ot_govern_stop, METH_NOARGS, NULL},
    {"govern", ot_govern, METH_VARARGS, NULL},
    {"await_decision", ot_await_decision, METH_VARARGS, NULL},
    {"fit_buffers", ot_fit_buffers, METH_NOARGS, NULL},
    {"count_thread", ot_count_thread, METH_O, NULL},
    {"count_io", ot_count_io, METH_VARARGS, NULL},
    OT_MARKET_METHODS,
    {"market_condition", ot_market_condition, METH_VARARGS, NULL},
    {"mode", ot_mode, METH_NOARGS, NULL},
    {"system_root", ot_system_root, METH_O, NULL},
    {"hardware_cycles", ot_hardware_cycles, METH_NOARGS, NULL},
    {"drain_give", ot_drain_give, METH_NOARGS, NULL},
    {"drain_take", ot_drain_take, METH_NOARGS, NULL},
    {"adopt", ot_adopt, METH_O, NULL},
    {"let_go", ot_let_go, METH_NOARGS, NULL},
    {"inherit", ot_inherit, METH_NOARGS, NULL},
    {"adopted", ot_adopted, METH_NOARGS, NULL},
    {"await_host", ot_await_host, METH_VARARGS, NULL},
    {"ask_host", ot_ask_host, METH_VARARGS, NULL},
    {"critical", (PyCFunction)(void (*)(void))ot_critical, METH_FASTCALL, NULL},
    {"beat", (PyCFunction)(void (*)(void))ot_beat, METH_FASTCALL, NULL},
    {"queue_gauge", ot_queue_gauge, METH_O, NULL},
    {"ending", ot_ending, METH_VARARGS, NULL},
    {"note_signals", ot_note_signals, METH_O, NULL},
    {"accounts", ot_accounts, METH_NOARGS, NULL},
    {"snapshot", ot_snapshot, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
start(PyObject *module)
{
    static bool started;
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError,
                        "otel_trading: the recorder is one a process and runs in the main interpreter only; "
                        "import it there, or run the subinterpreter's work in a process of its own");
        return -1;
    }
    if (started) {
        PyErr_SetString(PyExc_ImportError, "otel_trading: the native recorder can be loaded only once in a process");
        return -1;
    }
    if (ot_recorder_start() < 0 || ot_messages_start() < 0 || ot_batches_start(module) < 0 ||
        ot_orders_start(module) < 0 || ot_spans_start(module) < 0 || ot_probes_start(module) < 0 ||
        ot_traced_start(module) < 0 || ot_tracer_start(module) < 0 || ot_scope_start(module) < 0 ||
        ot_instruments_start(module) < 0 || ot_reader_start(module) < 0 ||
        PyModule_AddStringConstant(module, "BACKEND", "native") < 0)
        return -1;
    started = true;
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)start},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "otel_trading._native",
    .m_doc = "The C recorder, drain and reader; see _native.pyi.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
