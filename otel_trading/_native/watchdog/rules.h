/* What the watchdog does about what it sees: no clock, no system call, no memory of its own in here.
 *
 * Once a look: wd_begin, wd_subject for each heartbeat but the agent's, wd_finish; then `action` holds what is to be done,
 * in that order.  otel_trading/agent/watchdog_rules.py is its twin; tests/unit/test_watchdog_rules.py has the cases for both.
 * Times are milliseconds; a tick is the time between two looks, 1 s but in tests.
 */
#ifndef OTEL_TRADING_WATCHDOG_RULES_H
#define OTEL_TRADING_WATCHDOG_RULES_H

#include <stdint.h>

#define WD_MAX_SUBJECTS 1024
#define WD_MAX_ACTIONS 256
#define WD_MAX_RESTARTS 64 /* starts that are remembered; more than that are not allowed in ten minutes */
#define WD_NAME_BYTES 40

/* Late looks in a row after which … */
#define WD_WARN 1
#define WD_ALERT 3
#define WD_RESTART 5

/* Ticks. */
#define WD_SIGTERM_TICKS 2    /* between SIGTERM and SIGKILL */
#define WD_GRACE_TICKS 10     /* a process that has just started may take so long until its first beat */
#define WD_PASS_TICKS 60      /* the longest period that a drain can be configured to have */
#define WD_BACKOFF_TICKS 60   /* the longest time between two starts */
#define WD_WINDOW_TICKS 600   /* over which starts are counted */
#define WD_EMERGENCY_TICKS 10 /* between two starts of the emergency monitor */

enum wd_kind {
    WD_AGENT,          /* its loop */
    WD_DRAIN_AGENT,    /* the drain of a segment, in a process of the agent's */
    WD_DRAIN_EMBEDDED, /* the drain of a segment, in the program itself */
    WD_DRAIN_MISSING,  /* nobody drains the segment, and the agent should */
    WD_LOOP,           /* a loop of a program */
};

enum wd_state {
    WD_NONE,     /* there is no agent to look after */
    WD_STARTING, /* it has not said anything yet */
    WD_RUNNING,  /* … and its beat is `age` old */
    WD_STOPPING, /* it is about to end */
    WD_GONE,     /* its process is gone, without a word */
    WD_ENDED,    /* its process is gone, in an orderly way */
    WD_OTHER,    /* another agent than ours is at work in the directory */
};

enum wd_phase {
    WD_WATCHED,
    WD_KILLING,  /* SIGTERM was sent */
    WD_WAITING,  /* it is gone; a new one is started when the time has come */
    WD_GIVEN_UP, /* too many starts: it is started no more */
};

enum wd_what {
    WD_DO_SKIP,      /* tell: the watchdog itself was late, this look does not count */
    WD_DO_WARN,      /* tell: a heartbeat is late */
    WD_DO_ALERT,     /* raise the alert: a heartbeat stays late */
    WD_DO_RESOLVE,   /* … it is over */
    WD_DO_EMERGENCY, /* start the emergency monitor */
    WD_DO_NORMAL,    /* end it */
    WD_DO_TERM,      /* send SIGTERM to the agent */
    WD_DO_KILL,      /* send SIGKILL to it */
    WD_DO_DIED,      /* raise the alert: the agent is gone without a word */
    WD_DO_BACK,      /* … it is over */
    WD_DO_START,     /* start an agent */
    WD_DO_GIVE_UP,   /* raise the alert: no more starts */
    WD_DO_RECOVERED, /* … it is over */
    WD_DO_END,       /* end the watchdog */
};

struct wd_label {
    uint32_t pid;                /* of the program; 0 for the agent */
    char service[WD_NAME_BYTES]; /* printable ASCII, without quotes and backslashes; so is name */
    char name[WD_NAME_BYTES];    /* of the loop, else "" */
};

struct wd_action {
    enum wd_what what;
    enum wd_kind kind;
    int stopped; /* the process is stopped by a signal */
    uint64_t key;
    int64_t age;
    struct wd_label label;
};

struct wd_subject {
    uint64_t key;
    int64_t value;   /* of a drain: its passes */
    int64_t changed; /* when they were first seen to be so many */
    int64_t gap;     /* the time that the last change took, -1: none was seen yet */
    enum wd_kind kind;
    int looks; /* late ones in a row */
    uint8_t alerted;
    uint8_t restarted; /* the agent was started again for it; that has not helped if it is still late */
    uint8_t seen;      /* in this look */
    struct wd_label label;
};

struct wd_rules {
    /* as it is told */
    int64_t tick;
    int64_t late;
    int restarts;   /* starts in ten minutes, at most */
    int startable;  /* there is a command that starts an agent */
    int supervised; /* somebody else (systemd) starts it again when it has ended */
    /* what it knows */
    int64_t now;
    int skipping;
    enum wd_state state;
    enum wd_phase phase;
    int looks;
    int alerted, died, gave_up, killed, wanted, ended;
    int emergency, emergency_alive;
    int64_t since; /* when the agent that is looked after was started, or first seen; -1: not yet */
    int64_t term_at, down_at, emergency_at;
    int64_t started[WD_MAX_RESTARTS]; /* starts within the window, oldest first */
    int starts;
    uint64_t total;    /* starts ever */
    uint64_t left_out; /* subjects that found no place */
    int subjects;
    int cursor; /* where the next subject is likely to be: they come in the same order each time */
    struct wd_subject subject[WD_MAX_SUBJECTS];
    int actions;
    struct wd_action action[WD_MAX_ACTIONS];
};

/* Begin a look at `now` that was due at `due`; `age` is the age of the agent's beat, of WD_RUNNING. */
void wd_begin(struct wd_rules *r, int64_t now, int64_t due, enum wd_state state, int64_t age, int stopped,
              int emergency_alive);

/* A heartbeat: of a drain the `value` is its passes, of a loop the age of its beat, and `limit` what is late. */
void wd_subject(struct wd_rules *r, enum wd_kind kind, uint64_t key, int64_t value, int64_t limit, int stopped,
                const struct wd_label *label);

/* -1: such a subject is not known yet; else whether its passes are not those of the look before. */
int wd_passed(struct wd_rules *r, uint64_t key, int64_t value);

void wd_finish(struct wd_rules *r);

/* Read looks from standard input, print what is to be done: for tests.  Gives the exit code. */
int wd_simulate(struct wd_rules *r);

/* Print what was seen (kind, key, passes, pid, service, name): for tests. */
void wd_print_subjects(const struct wd_rules *r);

#endif
