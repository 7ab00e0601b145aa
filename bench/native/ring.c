/* The limit for a data queue: one producer, one consumer, slots of one size, one memcpy in and one out.
 *
 *     ring SIZE SLOTS SECONDS PRODUCER_CORE CONSUMER_CORE      a core of -1 is any
 *
 * Prints the messages and the seconds that they took.  A side that has to wait gives its core away.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DISTINCT = 8, LINE = 128 };

struct shared {
    _Alignas(LINE) _Atomic uint64_t written;
    _Alignas(LINE) _Atomic uint64_t read;
    _Alignas(LINE) _Atomic uint64_t last; /* how many there will be, once that is known */
    _Alignas(LINE) char slots[];
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void run_on(int core) {
    cpu_set_t set;
    if (core < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void produce(struct shared *s, size_t size, uint64_t slots, double end) {
    char *source = malloc(DISTINCT * size);
    uint64_t count = 0, room = slots;
    memset(source, 7, DISTINCT * size);
    while (count % 64 || now() < end) {
        while (count == room) {
            room = atomic_load_explicit(&s->read, memory_order_acquire) + slots;
            if (count == room)
                sched_yield();
        }
        memcpy(s->slots + count % slots * size, source + count % DISTINCT * size, size);
        atomic_store_explicit(&s->written, ++count, memory_order_release);
    }
    atomic_store(&s->last, count);
    free(source);
}

static uint64_t consume(struct shared *s, size_t size, uint64_t slots) {
    char *target = malloc(size);
    uint64_t count = 0, there = 0;
    memset(target, 0, size);
    for (;;) {
        while (count == there) {
            there = atomic_load_explicit(&s->written, memory_order_acquire);
            if (count == there) {
                if (count && atomic_load(&s->last) == count) {
                    free(target);
                    return count;
                }
                sched_yield();
            }
        }
        memcpy(target, s->slots + count % slots * size, size);
        /* Without this the compiler could see that nobody looks at the target. */
        __asm__ volatile("" : : "r"(target) : "memory");
        atomic_store_explicit(&s->read, ++count, memory_order_release);
    }
}

int main(int argc, char **argv) {
    if (argc != 6)
        return 2;
    size_t size = strtoull(argv[1], 0, 10), slots = strtoull(argv[2], 0, 10);
    double seconds = atof(argv[3]);
    size_t length = sizeof(struct shared) + size * slots;
    struct shared *s = mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        return 1;
    memset(s, 0, length);
    double begun = now();
    pid_t child = fork();
    if (child < 0)
        return 1;
    if (child == 0) {
        run_on(atoi(argv[4]));
        produce(s, size, slots, begun + seconds);
        _exit(0);
    }
    run_on(atoi(argv[5]));
    uint64_t count = consume(s, size, slots);
    printf("%llu %.9f\n", (unsigned long long)count, now() - begun);
    waitpid(child, 0, 0);
    return 0;
}
