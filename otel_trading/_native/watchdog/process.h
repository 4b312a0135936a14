/* Processes: is one still the one that was meant, signals to it, and new ones. */
#ifndef OTEL_TRADING_WATCHDOG_PROCESS_H
#define OTEL_TRADING_WATCHDOG_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A process that may be sent signals: by pid and start time, so never one that got the pid later. */
struct wd_process {
    pid_t pid;      /* 0: none */
    uint64_t start; /* field 22 of /proc/PID/stat */
    int fd;         /* pidfd, owned; -1: this kernel has none, or the process is gone */
    int gone;
    int child; /* ours: to be reaped */
};

/* Its state, as the letter of /proc/PID/stat, and when it started; 0: there is none. */
char wd_process_state(pid_t pid, uint64_t *start);

/* Hold on to a process; start 0: as it is now.  Gives 0 where it is not there. */
int wd_hold(struct wd_process *p, pid_t pid, uint64_t start, int child);

/* A zombie does not live. */
int wd_lives(struct wd_process *p);

/* Gives 0, or -1 where it could not be sent. */
int wd_signal(struct wd_process *p, int number);

void wd_let_go(struct wd_process *p);

/* Start a program in a session of its own, with `input` on its standard input (at most 32 kB, NULL: none); it writes
 * nothing but its errors, to `errors` (-1: nowhere).  Gives its pid, or -1 with errno. */
pid_t wd_spawn(char *const argv[], const char *input, int errors);

#endif
