/* What there is to see in a directory of segments.  All of it is hostile: links are not followed, files are regular and
 * this user's, offsets are checked, nothing is mapped, and a look has an end whatever the files say. */
#ifndef OTEL_TRADING_WATCHDOG_LOOK_H
#define OTEL_TRADING_WATCHDOG_LOOK_H

#include <stdint.h>

#include "../segment.h"
#include "rules.h"

#define WD_MAX_SEGMENTS 256
#define WD_MAX_ENTRIES 4096 /* names in the directory that are gone through */

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t wd_now_ns(void);

/* A directory of this user's that nobody else can enter; -1 with errno, ENOTDIR where it is not like that. */
int wd_open_directory(const char *path);

/* Open agent.page; -1 where it is not there, or not what it should be. */
int wd_open_page(int directory);

/* Read it; 0 where it is not a page of an agent. */
int wd_read_page(int page, struct ot_agent *agent);

/* Write the watchdog's own part of it. */
void wd_write_page(int page, uint64_t pid, uint64_t beat_ns, uint64_t restarts, uint64_t gave_up);

/* Tell the rules of each drain and each loop there is.  Gives how many segments were looked at. */
int wd_look_at_segments(int directory, struct wd_rules *r);

/* One segment, of which the name is `name`: for wd_look_at_segments, and for tests. */
int wd_look_at_segment(int file, const char *name, struct wd_rules *r);

#endif
