/* What the watchdog tells: lines of a log of bounded size, and alerts, which short processes of their own send. */
#ifndef OTEL_TRADING_WATCHDOG_REPORT_H
#define OTEL_TRADING_WATCHDOG_REPORT_H

#include <sys/types.h>

#include "rules.h"

#define WD_LOG_BYTES (256 * 1024) /* then it is renamed to LOG.1, in place of the one before */
#define WD_ALERT_BYTES 2048
#define WD_ALERTS_AT_ONCE 4
#define WD_ALERTS_WAITING 16
#define WD_ALERT_TICKS 60 /* a process that sends an alert may take so long */

struct wd_report {
    const char *log;    /* path, NULL: none */
    const char *python; /* that sends alerts, NULL: none are sent */
    int terminal;       /* standard error is one */
    int64_t tick;       /* ms */
    pid_t sending[WD_ALERTS_AT_ONCE];
    int64_t since[WD_ALERTS_AT_ONCE];
    uint64_t busy[WD_ALERTS_AT_ONCE]; /* identities of the alerts that are being sent */
    int waiting;
    struct {
        char text[WD_ALERT_BYTES];
        uint64_t identity; /* hash of name and labels: what is over must not overtake what began */
        uint32_t hung;     /* pid of a program that hangs, whose report goes with it; 0: none */
    } alert[WD_ALERTS_WAITING];
};

void wd_log(struct wd_report *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The log, to be a child's standard error; -1 where it can not be opened.  The caller closes it. */
int wd_open_log(const struct wd_report *w);

/* Log an action, and raise or resolve its alert if it has one. */
void wd_tell(struct wd_report *w, const struct wd_action *a, uint64_t agent, uint64_t restarts);

/* Send what waits, as far as children are free; take the ends of those that have sent. */
void wd_send(struct wd_report *w, int64_t now_ms);

#endif
