/* otel-trading-watchdog: sees that monitoring goes on (docs/watchdog.md).
 *
 *   otel-trading-watchdog --directory DIR [--late S] [--restarts N] [--python PATH] [--log PATH]
 *                         [--agent PID --started TICKS] [--supervised] [--tick MS] [-- COMMAND…]
 *
 * COMMAND starts an agent in place of one that has ended otherwise than by itself.  Exit codes: 0 the agent has ended in
 * an orderly way, or SIGTERM came; 1 the directory has a watchdog already; 2 wrong arguments, or it could not begin.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "look.h"
#include "process.h"
#include "report.h"
#include "rules.h"

#define NS_PER_MS 1000000

static volatile sig_atomic_t told_to_end;

static struct wd_rules rules;
static struct wd_report report;

static struct {
    const char *directory;
    char **command;  /* NULL: an agent can not be started */
    int fd;          /* the directory; -1: it is not there */
    int lock;        /* watchdog.lock, locked */
    int page;        /* agent.page as our agent has it, also after the file is gone; -1: not seen yet */
    int known;       /* there is an agent to look after */
    int64_t beat_ms; /* its newest beat, on CLOCK_MONOTONIC; -1: none yet */
    struct wd_process agent;
    pid_t emergency;      /* the emergency monitor, a child; 0: none */
    int64_t clocks_apart; /* CLOCK_BOOTTIME - CLOCK_MONOTONIC, ms: grows while the machine is suspended */
} watch = {.fd = -1, .lock = -1, .page = -1, .beat_ms = -1, .agent = {.fd = -1}};

static void
on_signal(int number)
{
    (void)number;
    told_to_end = 1;
}

static int64_t
now_ms(void)
{
    return wd_now_ns() / NS_PER_MS;
}

/* ---- the directory ---- */

static int
lock_directory(void)
{
    struct stat status;
    int fd = openat(watch.fd, "watchdog.lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0) {
        return 0;
    }
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid() ||
        flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int why = errno;
        close(fd);
        errno = why;
        return 0;
    }
    if (watch.lock >= 0) {
        close(watch.lock);
    }
    watch.lock = fd;
    return 1;
}

/* Open the directory as it is now; 0 where another watchdog is at work in it. */
static int
find_directory(void)
{
    struct stat before, now;
    int fd = wd_open_directory(watch.directory);
    int same = fd >= 0 && watch.fd >= 0 && fstat(watch.fd, &before) == 0 && fstat(fd, &now) == 0 &&
               before.st_ino == now.st_ino && before.st_dev == now.st_dev;
    if (watch.fd >= 0) {
        close(watch.fd);
    }
    watch.fd = fd;
    return same || fd < 0 || lock_directory();
}

/* ---- the agent ---- */

static int64_t
age_of(const struct ot_agent *page, int64_t now)
{
    int64_t beat = (int64_t)(page->beat_ns / NS_PER_MS);
    return beat > 0 && beat <= now ? now - beat : INT64_MAX;
}

static int
is_ours(const struct ot_agent *page)
{
    return watch.known && page->pid == (uint64_t)watch.agent.pid && page->process_start == watch.agent.start;
}

/* Whether the page is of an agent that is at work, and not ours. */
static int
another_is_at_work(const struct ot_agent *page, int64_t now)
{
    uint64_t start;
    char state;
    if (is_ours(page) || (page->state != OT_AGENT_STARTING && page->state != OT_AGENT_RUNNING) ||
        age_of(page, now) > rules.late) {
        return 0;
    }
    state = wd_process_state((pid_t)page->pid, &start);
    return state && state != 'Z' && start == page->process_start;
}

static enum wd_state
look_at_agent(int64_t now, int64_t *age, int *stopped)
{
    struct ot_agent page = {0}, last = {0};
    int fd = watch.fd >= 0 ? wd_open_page(watch.fd) : -1;
    int there = fd >= 0 && wd_read_page(fd, &page);
    int ours = there && is_ours(&page);
    int other = there && another_is_at_work(&page, now);
    if (fd >= 0 && (ours || !watch.known)) {
        if (watch.page >= 0) {
            close(watch.page);
        }
        watch.page = fd;
    }
    else if (fd >= 0) {
        close(fd);
    }
    *age = 0;
    *stopped = 0;
    if (!watch.known) {
        return other ? WD_OTHER : WD_NONE;
    }
    int known = watch.page >= 0 && wd_read_page(watch.page, &last) && is_ours(&last);
    if (!wd_lives(&watch.agent)) {
        if (other) {
            return WD_OTHER;
        }
        /* It may have written its last word after it was read above. */
        known = known && wd_read_page(watch.page, &last);
        int orderly = known && (last.state == OT_AGENT_STOPPED || last.state == OT_AGENT_STOPPING);
        return orderly || watch.fd < 0 ? WD_ENDED : WD_GONE;
    }
    if (!known) {
        return WD_STARTING;
    }
    if (last.state == OT_AGENT_STOPPING || last.state == OT_AGENT_STOPPED) {
        return WD_STOPPING;
    }
    *age = age_of(&last, now);
    if (*age == INT64_MAX && watch.beat_ms < 0) {
        return WD_STARTING;
    }
    if (*age == INT64_MAX) {
        *age = now - watch.beat_ms;
    }
    else {
        watch.beat_ms = now - *age;
    }
    if (*age > rules.late) {
        uint64_t start;
        char state = wd_process_state(watch.agent.pid, &start);
        *stopped = state == 'T' || state == 't';
    }
    return WD_RUNNING;
}

static void
start_agent(void)
{
    watch.beat_ms = -1; /* the page stays, to be written to, until the new agent has its own */
    /* Its errors go where this one's go: that is where the agent before had them. */
    pid_t child = wd_spawn(watch.command, NULL, STDERR_FILENO);
    if (child < 0 || !wd_hold(&watch.agent, child, 0, 1)) {
        if (child < 0) {
            wd_log(&report, "%s can not be started: %s", watch.command[0], strerror(errno));
        }
        else {
            waitpid(child, NULL, WNOHANG);
        }
        watch.agent.gone = 1;
    }
}

/* ---- the emergency monitor ---- */

static int
emergency_lives(void)
{
    if (watch.emergency > 0 && waitpid(watch.emergency, NULL, WNOHANG) != 0) {
        watch.emergency = 0;
    }
    return watch.emergency > 0;
}

static void
start_emergency(void)
{
    if (!report.python || emergency_lives()) {
        return;
    }
    char *const command[] = {(char *)report.python, "-m", "otel_trading", "agent", "--emergency", NULL};
    int errors = wd_open_log(&report);
    watch.emergency = wd_spawn(command, NULL, errors);
    if (watch.emergency < 0) {
        watch.emergency = 0;
        wd_log(&report, "the emergency monitor can not be started: %s", strerror(errno));
    }
    if (errors >= 0) {
        close(errors);
    }
}

/* It takes back what it did to the segments, so it is waited for. */
static void
end_emergency(void)
{
    if (!emergency_lives()) {
        return;
    }
    kill(watch.emergency, SIGTERM); /* a child that was not waited for yet: the pid is still its own */
    for (int i = 0; i < 200 && emergency_lives(); i++) {
        const struct timespec pause = {.tv_nsec = 10 * NS_PER_MS};
        nanosleep(&pause, NULL);
    }
    if (watch.emergency > 0) {
        kill(watch.emergency, SIGKILL);
        waitpid(watch.emergency, NULL, 0);
        watch.emergency = 0;
    }
}

/* ---- looks ---- */

static void
carry_out(const struct wd_action *a)
{
    wd_tell(&report, a, (uint64_t)watch.agent.pid, rules.total);
    switch (a->what) {
    case WD_DO_EMERGENCY:
        start_emergency();
        break;
    case WD_DO_NORMAL:
        end_emergency();
        break;
    case WD_DO_TERM:
    case WD_DO_KILL:
        if (wd_signal(&watch.agent, a->what == WD_DO_TERM ? SIGTERM : SIGKILL) < 0 && wd_lives(&watch.agent)) {
            wd_log(&report, "the agent takes no signal: %s", strerror(errno));
        }
        break;
    case WD_DO_START:
        start_agent();
        break;
    default:
        break;
    }
}

static int64_t
clocks_apart(void)
{
#ifdef CLOCK_BOOTTIME
    struct timespec boot;
    if (clock_gettime(CLOCK_BOOTTIME, &boot) == 0) {
        return boot.tv_sec * 1000LL + boot.tv_nsec / NS_PER_MS - now_ms();
    }
#endif
    return 0;
}

static void
look(int64_t due)
{
    int64_t age, apart = clocks_apart();
    int stopped;
    if (apart - watch.clocks_apart > 1000) { /* CLOCK_MONOTONIC stood still meanwhile, so nothing is late by that */
        wd_log(&report, "the machine was suspended for %.1f s", (double)(apart - watch.clocks_apart) / 1e3);
    }
    watch.clocks_apart = apart;
    if (!find_directory()) {
        wd_log(&report, "the directory is another one now, and has a watchdog");
        rules.ended = 1;
        return;
    }
    int64_t now = now_ms();
    enum wd_state state = look_at_agent(now, &age, &stopped);
    now = now_ms(); /* a stop of this process while it looked is its own delay, too */
    wd_begin(&rules, now, due, state, age, stopped, emergency_lives());
    if (watch.fd >= 0) {
        wd_look_at_segments(watch.fd, &rules);
    }
    wd_finish(&rules);
    for (int i = 0; i < rules.actions; i++) {
        carry_out(&rules.action[i]);
    }
    wd_send(&report, now);
    if (watch.page >= 0) {
        wd_write_page(watch.page, rules.ended ? 0 : (uint64_t)getpid(), (uint64_t)wd_now_ns(), rules.total,
                      (uint64_t)rules.gave_up);
    }
}

/* Until the time has come, or the agent has ended, or a signal came. */
static void
wait_until(int64_t until, const sigset_t *mask)
{
    for (;;) {
        int64_t left = until - now_ms();
        if (left <= 0 || told_to_end) {
            return;
        }
        struct pollfd ended = {.fd = watch.agent.fd, .events = POLLIN};
        struct timespec wait = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * NS_PER_MS};
        int n = ppoll(&ended, 1, &wait, mask);
        if (n > 0 || (n < 0 && errno != EINTR)) {
            if (n < 0) {
                nanosleep(&wait, NULL);
            }
            return;
        }
    }
}

static void
run(void)
{
    struct sigaction ends = {.sa_handler = on_signal}, ignored = {.sa_handler = SIG_IGN};
    sigset_t blocked, mask;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &mask);
    sigdelset(&mask, SIGTERM);
    sigdelset(&mask, SIGINT);
    sigaction(SIGTERM, &ends, NULL);
    sigaction(SIGINT, &ends, NULL);
    sigaction(SIGPIPE, &ignored, NULL);
    sigaction(SIGHUP, &ignored, NULL);
    watch.clocks_apart = clocks_apart();
    int64_t next = now_ms();
    while (!told_to_end && !rules.ended) {
        int64_t now = now_ms();
        look(now < next ? now : next); /* the agent's end brings a look before its time */
        now = now_ms();
        if (now >= next) {
            next = next + rules.tick > now ? next + rules.tick : now + rules.tick;
        }
        if (!rules.ended) {
            wait_until(next, &mask);
        }
    }
    end_emergency();
    for (int i = 0; i < 20 && report.waiting; i++) { /* a few seconds for the last alerts */
        const struct timespec pause = {.tv_nsec = 100 * NS_PER_MS};
        wd_send(&report, now_ms());
        nanosleep(&pause, NULL);
    }
    if (watch.page >= 0) {
        wd_write_page(watch.page, 0, (uint64_t)wd_now_ns(), rules.total, (uint64_t)rules.gave_up);
    }
}

/* ---- arguments ---- */

static int
number(const char *text, double least, double most, double *to)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || *end || end == text || !(value >= least && value <= most)) {
        return 0;
    }
    *to = value;
    return 1;
}

enum mode {
    MODE_WATCH,
    MODE_SIMULATE, /* looks from standard input: for tests */
    MODE_LOOK,     /* look once, and print what there is: for tests */
    MODE_WRONG,    /* wrong arguments */
};

static enum mode
take_arguments(int argc, char **argv, double *pid, double *started)
{
    static const struct option options[] = {
        {"directory", required_argument, NULL, 'd'},
        {"late", required_argument, NULL, 'l'},
        {"restarts", required_argument, NULL, 'r'},
        {"python", required_argument, NULL, 'p'},
        {"log", required_argument, NULL, 'o'},
        {"agent", required_argument, NULL, 'a'},
        {"started", required_argument, NULL, 's'},
        {"supervised", no_argument, NULL, 'u'},
        {"tick", required_argument, NULL, 't'},
        {"simulate", no_argument, NULL, 'S'},
        {"look", no_argument, NULL, 'L'},
        {NULL, 0, NULL, 0},
    };
    int option;
    enum mode mode = MODE_WATCH;
    double value;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        int good = 1;
        switch (option) {
        case 'd':
            watch.directory = optarg;
            break;
        case 'l':
            good = number(optarg, 0.001, 86400, &value);
            rules.late = good ? (int64_t)(value * 1000) : 0;
            break;
        case 'r':
            good = number(optarg, 0, 1e6, &value);
            rules.restarts = good ? (int)value : 0;
            break;
        case 'p':
            report.python = optarg;
            break;
        case 'o':
            report.log = optarg;
            break;
        case 'a':
            good = number(optarg, 2, INT32_MAX, pid);
            break;
        case 's':
            good = number(optarg, 0, 9007199254740992.0, started);
            break;
        case 'u':
            rules.supervised = 1;
            break;
        case 't':
            good = number(optarg, 1, 60000, &value);
            rules.tick = good ? (int64_t)value : 0;
            break;
        case 'S':
            mode = MODE_SIMULATE;
            break;
        case 'L':
            mode = MODE_LOOK;
            break;
        default:
            good = 0;
        }
        if (!good) {
            return MODE_WRONG;
        }
    }
    if (optind < argc) {
        watch.command = argv + optind;
        rules.startable = !rules.supervised;
    }
    return watch.directory || mode == MODE_SIMULATE ? mode : MODE_WRONG;
}

int
main(int argc, char **argv)
{
    double pid = 0, started = 0;
    rules.tick = 1000;
    rules.late = 5000;
    rules.restarts = 5;
    rules.since = -1;
    enum mode mode = take_arguments(argc, argv, &pid, &started);
    if (mode == MODE_SIMULATE) {
        return wd_simulate(&rules);
    }
    if (mode == MODE_WRONG) {
        return 2;
    }
    for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = dup(fd)) { /* 0 to 2 are open from here on */
        if (fd > STDERR_FILENO) {
            close(fd);
            break;
        }
    }
    report.tick = rules.tick;
    report.terminal = isatty(STDERR_FILENO);
    watch.fd = wd_open_directory(watch.directory);
    if (watch.fd < 0) {
        fprintf(stderr, "otel-trading-watchdog: %s can not be watched: %s\n", watch.directory, strerror(errno));
        return 2;
    }
    if (mode == MODE_LOOK) {
        wd_look_at_segments(watch.fd, &rules);
        wd_print_subjects(&rules);
        return 0;
    }
    if (!lock_directory()) {
        if (errno == EWOULDBLOCK) {
            if (report.terminal) {
                fprintf(stderr, "otel-trading-watchdog: %s has a watchdog already\n", watch.directory);
            }
            return 1;
        }
        fprintf(stderr, "otel-trading-watchdog: %s can not be locked: %s\n", watch.directory, strerror(errno));
        return 2;
    }
    setenv("OTEL_TRADING_DIR", watch.directory, 1); /* for what is started from here */
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    if (pid > 0) {
        watch.known = 1;
        wd_hold(&watch.agent, (pid_t)pid, (uint64_t)started, 0);
    }
    wd_log(&report, "looks after %s", watch.directory);
    run();
    return 0;
}
