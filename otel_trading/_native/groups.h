/* Control groups: where this process's are, of version 1 or 2. */
#ifndef OTEL_TRADING_GROUPS_H
#define OTEL_TRADING_GROUPS_H

#include <limits.h>
#include <stdbool.h>

#define OT_GROUP_LEVELS 8

/* A process's group of one controller, and those above it, innermost first, as far as they can be seen. */
struct ot_groups {
    char path[OT_GROUP_LEVELS][PATH_MAX];
    int count;
    int version; /* 1, 2; 0: there is none */
};

/* `root`: what /proc and /sys are below of, "" for the real ones.  `pid`: whose groups, 0 = this process's.  `controller`: "cpu", "cpuacct" or "memory"; version 2 is
 * where the file `probe` exists in one of its groups. */
void ot_groups_find(struct ot_groups *groups, const char *root, unsigned pid, const char *controller,
                    const char *probe);

#endif
