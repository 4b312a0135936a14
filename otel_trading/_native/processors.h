/* The load of the processors that a process may use, and of the control groups that limit its CPU time. */
#ifndef OTEL_TRADING_PROCESSORS_H
#define OTEL_TRADING_PROCESSORS_H

#include <stdbool.h>

#include "groups.h"

/* All with the governor's lock held. */

/* `pid`: whose processors, 0 = this process's.  `limits` and `use`: its groups of the controllers cpu and, of version 1, cpuacct. */
void ot_processors_open(const char *root, unsigned pid, const struct ot_groups *limits, const struct ot_groups *use);
void ot_processors_close(void);
void ot_processors_another_clock(void);
double ot_processors_newest(void); /* when it was last looked, s; -infinity = not yet */
/* The load now, 0 until there are two looks; NaN = can not be told.  `limits`: also look what it may use. */
double ot_processors_load(double now, bool limits);
/* The same, cheaper and a little too high where somebody waits for a disk; NaN where that can not be had. */
double ot_processors_glance(double now);
/* Is there such a cheap look here? */
bool ot_processors_glances(void);
/* Has the load just risen so much that the next look should come sooner? */
bool ot_processors_rise(void);

#endif
