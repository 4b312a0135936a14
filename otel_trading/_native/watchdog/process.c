#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

extern char **environ;

char
wd_process_state(pid_t pid, uint64_t *start)
{
    char path[32], text[1024];
    *start = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0) {
        return 0;
    }
    text[n] = 0;
    char *at = memrchr(text, ')', (size_t)n); /* the name before it may hold anything */
    if (!at || at[1] != ' ') {
        return 0;
    }
    char state = at[2];
    at += 2;
    for (int field = 3; field < 22 && at; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    if (!at) {
        return 0;
    }
    *start = strtoull(at, NULL, 10);
    return state;
}

static int
is_it(const struct wd_process *p)
{
    uint64_t start;
    char state = wd_process_state(p->pid, &start);
    return state && state != 'Z' && state != 'X' && state != 'x' && start == p->start;
}

int
wd_hold(struct wd_process *p, pid_t pid, uint64_t start, int child)
{
    wd_let_go(p);
    if (pid <= 1 || pid == getpid()) {
        return 0;
    }
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (start == 0 && !wd_process_state(pid, &start)) {
        start = 0;
    }
    *p = (struct wd_process){.pid = pid, .start = start, .fd = fd, .child = child};
    /* Only now is it sure that fd is of the process that was meant. */
    if (is_it(p)) {
        return 1;
    }
    if (fd >= 0) {
        close(fd);
        p->fd = -1;
    }
    p->gone = 1;
    return 0;
}

int
wd_lives(struct wd_process *p)
{
    if (p->pid == 0 || p->gone) {
        return 0;
    }
    if (p->fd >= 0) {
        struct pollfd ended = {.fd = p->fd, .events = POLLIN};
        if (poll(&ended, 1, 0) <= 0) {
            return 1;
        }
    }
    else if (is_it(p)) {
        return 1;
    }
    p->gone = 1;
    if (p->fd >= 0) { /* else each wait would end at once from now on */
        close(p->fd);
        p->fd = -1;
    }
    if (p->child) {
        waitpid(p->pid, NULL, WNOHANG);
    }
    return 0;
}

int
wd_signal(struct wd_process *p, int number)
{
    if (!wd_lives(p)) {
        return -1;
    }
    if (p->fd >= 0 && syscall(SYS_pidfd_send_signal, p->fd, number, NULL, 0) == 0) {
        return 0;
    }
    return is_it(p) ? kill(p->pid, number) : -1;
}

void
wd_let_go(struct wd_process *p)
{
    if (p->pid && p->fd >= 0) {
        close(p->fd);
    }
    *p = (struct wd_process){.fd = -1};
}

static int
actions_of(posix_spawn_file_actions_t *actions, int input, int errors)
{
    int wrong = input >= 0 ? posix_spawn_file_actions_adddup2(actions, input, 0)
                           : posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    wrong = wrong ? wrong : posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_WRONLY, 0);
    if (wrong) {
        return wrong;
    }
    return errors >= 0 ? posix_spawn_file_actions_adddup2(actions, errors, 2)
                       : posix_spawn_file_actions_addopen(actions, 2, "/dev/null", O_WRONLY, 0);
}

static int
attributes_of(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigemptyset(&all);
    for (int number = 1; number < 32; number++) {
        if (number != SIGKILL && number != SIGSTOP) {
            sigaddset(&all, number);
        }
    }
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
#ifdef POSIX_SPAWN_SETSID
    flags |= POSIX_SPAWN_SETSID;
#endif
    int wrong = posix_spawnattr_setsigmask(attributes, &none);
    wrong = wrong ? wrong : posix_spawnattr_setsigdefault(attributes, &all);
    return wrong ? wrong : posix_spawnattr_setflags(attributes, flags);
}

pid_t
wd_spawn(char *const argv[], const char *input, int errors)
{
    int ends[2] = {-1, -1};
    pid_t pid = -1;
    if (input) {
        size_t bytes = strlen(input);
        if (pipe2(ends, O_CLOEXEC) < 0) {
            return -1;
        }
        fcntl(ends[1], F_SETFL, O_NONBLOCK);
        if (write(ends[1], input, bytes) != (ssize_t)bytes) { /* a pipe holds 64 kB */
            close(ends[0]);
            close(ends[1]);
            errno = EAGAIN;
            return -1;
        }
        close(ends[1]);
    }
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int wrong = posix_spawn_file_actions_init(&actions);
    if (!wrong) {
        wrong = posix_spawnattr_init(&attributes);
        if (!wrong) {
            wrong = actions_of(&actions, ends[0], errors);
            wrong = wrong ? wrong : attributes_of(&attributes);
            wrong = wrong ? wrong : posix_spawn(&pid, argv[0], &actions, &attributes, argv, environ);
            posix_spawnattr_destroy(&attributes);
        }
        posix_spawn_file_actions_destroy(&actions);
    }
    if (ends[0] >= 0) {
        close(ends[0]);
    }
    if (wrong) {
        errno = wrong;
        return -1;
    }
    return pid;
}
