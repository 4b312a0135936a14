/* Signals that end a process for what it did itself: noted in the life page before they do what they would have done.
 *
 * The handler only stores into a page of its own address, which is always mapped: the segment's life page while a segment is
 * open, an anonymous page else.  So it may run in any thread at any moment, also while the segment is closed. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "life.h"

#define STACK_BYTES (64U << 10)
#define SIGNALS 5

static const int numbers[SIGNALS] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
static struct sigaction before[SIGNALS]; /* what was there when ours was put in */
static bool put_in[SIGNALS];             /* ours is there, or below a handler that was put in later and chains to it */

static struct ot_life *page; /* owned: one page; NULL before the first note_signals(True) */
static int noting;           /* atomic: whether the handler notes at all */
static int noted_pid;        /* atomic: whose life page that is: a child of a fork has it mapped for a moment too */
static int busy;             /* atomic: 1 while a thread notes, or has noted */

static int
index_of(int number)
{
    int i = 0;
    while (i < SIGNALS - 1 && numbers[i] != number)
        i++;
    return i;
}

/* Whether it was noted: not where the process has told of its end already, nor while another thread does. */
static bool
note(int number)
{
    int idle = 0;
    if (!OT_LOAD_ACQUIRE(&noting) || OT_LOAD(&noted_pid) != (int)getpid() ||
        !__atomic_compare_exchange_n(&busy, &idle, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return false;
    uint64_t ending = OT_LOAD(&page->ending);
    if (ending == OT_ENDING_EXCEPTION || ending == OT_ENDING_SIGNAL) {
        OT_STORE_RELEASE(&busy, 0);
        return false;
    }
    OT_STORE(&page->ending, OT_ENDING_NONE);
    OT_FENCE_RELEASE();
    OT_STORE(&page->ending_code, (uint64_t)number);
    OT_STORE(&page->ending_ns, ot_nanoseconds(CLOCK_REALTIME));
    OT_STORE(&page->ending_name, OT_NAME_NONE);
    OT_STORE_RELEASE(&page->ending, OT_ENDING_SIGNAL);
    return true;
}

/* The process goes on: somebody's handler has seen to it. */
static void
take_back(void)
{
    OT_STORE_RELEASE(&page->ending, OT_ENDING_NONE);
    OT_STORE(&page->ending_code, 0);
    OT_STORE(&page->ending_ns, 0);
    OT_STORE_RELEASE(&busy, 0);
}

/* Told of memory that is broken and was not touched: nothing faults again. */
static bool
is_late(int number, const siginfo_t *info)
{
#if defined(BUS_MCEERR_AO)
    return number == SIGBUS && info->si_code == BUS_MCEERR_AO;
#else
    return number == SIGABRT && info->si_code > 0;
#endif
}

static void
on_signal(int number, siginfo_t *info, void *context)
{
    int error = errno;
    const struct sigaction *old = &before[index_of(number)];
    bool noted = note(number);
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(number, info, context);
    }
    else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
        old->sa_handler(number);
    }
    else {
        /* An instruction that faults does so again when we return, now with the default action, and so its core dump shows
         * it; what was sent has to be sent again, and waits until then. */
        struct sigaction standard = {.sa_handler = SIG_DFL};
        sigemptyset(&standard.sa_mask);
        (void)sigaction(number, &standard, NULL);
        if (info == NULL || info->si_code <= 0 || is_late(number, info))
            (void)raise(number);
        errno = error;
        return;
    }
    struct sigaction now;
    if (noted && sigaction(number, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_signal)
        take_back();
    errno = error;
}

/* Whether it's ours that the kernel calls. */
static bool
on_top(int number)
{
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_signal;
}

static void
put_in_one(int i)
{
    struct sigaction ours = {.sa_sigaction = on_signal, .sa_flags = SA_ONSTACK | SA_SIGINFO}, old;
    sigemptyset(&ours.sa_mask);
    if (sigaction(numbers[i], NULL, &old) != 0)
        return;
    bool standard = !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL;
    if (put_in[i] && !standard) /* it is ours, or may chain to ours: put in twice it would chain for ever */
        return;
    if (!(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_IGN) /* it does not end this process */
        return;
    before[i] = old;
    put_in[i] = sigaction(numbers[i], &ours, NULL) == 0;
}

/* So that a stack that has overflown can be noted; where there is one, faulthandler's, it is left alone. */
static void
have_stack(void)
{
    static bool had; /* one thread's, for good: the first that asks is as a rule the main one */
    stack_t stack;
    if (had || sigaltstack(NULL, &stack) != 0 || !(stack.ss_flags & SS_DISABLE))
        return;
    void *memory = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return;
    stack = (stack_t){.ss_sp = memory, .ss_size = STACK_BYTES};
    had = sigaltstack(&stack, NULL) == 0;
}

/* The page is the open segment's life page. */
static void
show_life(void)
{
    uint64_t offset = ot_rec.header->life_offset;
    long unit = sysconf(_SC_PAGESIZE);
    if (page == NULL || ot_rec.header->pid != (uint32_t)getpid())
        return;
    if (unit <= 0 || offset % (uint64_t)unit != 0)
        return; /* pages are larger than the format's: not noted */
    if (mmap(page, OT_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ot_rec.fd, (off_t)offset) == MAP_FAILED)
        return;
    OT_STORE(&busy, 0);
    OT_STORE(&noted_pid, (int)getpid());
}

void
ot_signals_open(void)
{
    if (OT_LOAD(&noting))
        show_life();
}

void
ot_signals_close(void)
{
    if (page == NULL || OT_LOAD(&noted_pid) == 0)
        return;
    OT_STORE(&noted_pid, 0);
    (void)mmap(page, OT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

PyObject *
ot_note_signals(PyObject *Py_UNUSED(module), PyObject *on)
{
    int wanted = PyObject_IsTrue(on);
    if (wanted < 0)
        return NULL;
    if (!wanted) {
        OT_STORE_RELEASE(&noting, 0);
        for (int i = 0; i < SIGNALS; i++) {
            /* under a handler that came later ours stays where it is, and only passes on */
            if (put_in[i] && on_top(numbers[i]) && sigaction(numbers[i], &before[i], NULL) == 0)
                put_in[i] = false;
        }
        ot_signals_close();
        Py_RETURN_NONE;
    }
    if (page == NULL) {
        void *memory = mmap(NULL, OT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return PyErr_SetFromErrno(PyExc_OSError);
        page = memory;
    }
    have_stack();
    if (ot_rec.epoch != OT_CLOSED && OT_LOAD(&noted_pid) != (int)getpid())
        show_life();
    OT_STORE_RELEASE(&noting, 1);
    for (int i = 0; i < SIGNALS; i++)
        put_in_one(i);
    Py_RETURN_NONE;
}
