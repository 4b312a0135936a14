/* Threads of our own, and what they wait on. */
#ifndef OTEL_TRADING_THREADS_H
#define OTEL_TRADING_THREADS_H

#include <pthread.h>

/* Of the monotonic clock, so that a clock that is set does not change a wait. */
void ot_condition_make(pthread_cond_t *condition);
/* 0 or an errno.  Signals are the application's: none is handled in the thread. */
int ot_thread_start(pthread_t *thread, void *(*body)(void *));

#endif
