/* Eight threads write rings as fast as they can while another process reads them: no record that the
 * protocol calls whole may hold a mixture of two.
 *
 * usage: torn RECORDS [unchecked]
 * RECORDS in all.  Prints "written W read R torn T overwritten O", exits 1 where T is not 0.  With "unchecked" the reader
 * does not look at the sequence numbers: then it must find torn ones, which shows that the test can.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring.h"

#define THREADS 8
#define CAPACITY 1024 /* small, so that writers lap the reader all the time */

struct shared {
    struct ot_ring rings[THREADS];
    struct ot_slot slots[THREADS][CAPACITY];
    uint64_t done; /* threads that have ended */
};

static struct shared *shared;
static uint64_t per_thread;
static bool unchecked;

static uint64_t
mix(uint64_t thread, uint64_t n, uint64_t field)
{
    uint64_t z = thread * 0x9e3779b97f4a7c15ULL + n * 0xbf58476d1ce4e5b9ULL + field * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static void
fill(struct ot_slot *e, uint64_t thread, uint64_t n)
{
    e->trace_hi = mix(thread, n, 1);
    e->trace_lo = mix(thread, n, 2);
    e->span_id = mix(thread, n, 3);
    e->parent_id = mix(thread, n, 4);
    e->start = mix(thread, n, 5);
    e->extra = n % 2;
    e->tier = n % OT_TIERS;
    e->probe = (uint16_t)mix(thread, n, 6);
    for (int i = 0; i < 4; i++)
        e->value[i] = mix(thread, n, 8 + (uint64_t)i);
    e->arena = mix(thread, n, 12);
}

static bool
whole(const struct ot_slot *s, uint64_t thread, uint64_t n)
{
    struct ot_slot e = {0};
    fill(&e, thread, n);
    return s->trace_hi == e.trace_hi && s->trace_lo == e.trace_lo && s->span_id == e.span_id &&
           s->parent_id == e.parent_id && s->start == e.start && s->end == mix(thread, n, 7) && s->probe == e.probe &&
           s->extra == e.extra && s->tier == e.tier && s->state == OT_SLOT_SPAN &&
           (!e.extra || (memcmp(s->value, e.value, sizeof e.value) == 0 && s->arena == e.arena));
}

static void *
writer(void *argument)
{
    uint64_t thread = (uint64_t)(uintptr_t)argument;
    struct ot_writer w = {.ring = &shared->rings[thread], .slots = shared->slots[thread], .mask = CAPACITY - 1};
    struct ot_slot e = {0};
    for (uint64_t n = 0; n < per_thread; n++) {
        fill(&e, thread, n);
        ot_commit(&w, &e, mix(thread, n, 7));
    }
    __atomic_fetch_add(&shared->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static int
reader(void)
{
    uint64_t next[THREADS] = {0}, read = 0, torn = 0, gone = 0;
    for (bool last = false; !last;) {
        last = OT_LOAD_ACQUIRE(&shared->done) == THREADS;
        for (uint64_t t = 0; t < THREADS; t++) {
            uint64_t head, recorded[OT_TIERS], values;
            (void)ot_ring_look(&shared->rings[t], &head, recorded, &values);
            if (head - next[t] > CAPACITY) {
                gone += head - CAPACITY - next[t];
                next[t] = head - CAPACITY;
            }
            for (; next[t] < head; next[t]++) {
                struct ot_slot s = {0};
                if (unchecked)
                    memcpy(&s, &shared->slots[t][next[t] % CAPACITY], sizeof s);
                else if (!ot_slot_copy(&shared->slots[t][next[t] % CAPACITY], next[t], &s)) {
                    gone++;
                    continue;
                }
                if (whole(&s, t, next[t]))
                    read++;
                else
                    torn++;
            }
        }
    }
    printf("written %llu read %llu torn %llu overwritten %llu\n", (unsigned long long)per_thread * THREADS,
           (unsigned long long)read, (unsigned long long)torn, (unsigned long long)gone);
    return torn != 0 || read + gone != per_thread * THREADS;
}

int
main(int argc, char **argv)
{
    per_thread = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000) / THREADS;
    unchecked = argc > 2 && strcmp(argv[2], "unchecked") == 0;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 2;
    pid_t child = fork();
    if (child == 0) {
        int result = reader();
        fflush(stdout);
        _exit(result);
    }
    pthread_t threads[THREADS];
    for (uint64_t t = 0; t < THREADS; t++)
        pthread_create(&threads[t], NULL, writer, (void *)(uintptr_t)t);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}
