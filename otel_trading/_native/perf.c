/* The processor's own count of cycles, to check calibrated costs against; where the kernel lets us have it. */
#include "perf.h"

#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#endif

#include "recorder.h"

#if defined(__linux__)
static pthread_key_t at_thread_end;
static bool keyed;
static OT_TLS int counter; /* owned: file descriptor + 1; 0 = not yet, -1 = refused */

static void
thread_ended(void *Py_UNUSED(argument))
{
    if (counter > 0)
        close(counter - 1);
    counter = 0;
}

/* The calling thread's cycles in user space. */
static int
open_counter(void)
{
    struct perf_event_attr wanted;
    memset(&wanted, 0, sizeof wanted);
    wanted.size = sizeof wanted;
    wanted.type = PERF_TYPE_HARDWARE;
    wanted.config = PERF_COUNT_HW_CPU_CYCLES;
    wanted.exclude_kernel = 1;
    wanted.exclude_hv = 1;
    return (int)syscall(SYS_perf_event_open, &wanted, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}
#endif

PyObject *
ot_hardware_cycles(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
#if defined(__linux__)
    if (counter == 0) {
        keyed = keyed || pthread_key_create(&at_thread_end, thread_ended) == 0;
        int fd = keyed ? open_counter() : -1;
        counter = fd >= 0 ? fd + 1 : -1;
        if (fd >= 0)
            pthread_setspecific(at_thread_end, &counter);
    }
    uint64_t cycles;
    if (counter > 0 && read(counter - 1, &cycles, sizeof cycles) == (ssize_t)sizeof cycles)
        return PyLong_FromUnsignedLongLong(cycles);
#endif
    Py_RETURN_NONE;
}
