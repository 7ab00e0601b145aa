# Sleeping at a word, and waking who sleeps there.  futex.py says what each function promises.  For
# machport.ring.sleeping only.

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t

cdef extern from *:
    """
    #include <errno.h>
    #include <linux/futex.h>
    #include <poll.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    enum { MACHPORT_CHANGED, MACHPORT_LINE, MACHPORT_TIMED_OUT, MACHPORT_INTERRUPTED, MACHPORT_UNABLE };

    /* Since Linux 5.16.  The headers of the machine that builds may be older than the system that runs. */
    #define MACHPORT_SLEEP_WAITV 449
    #define MACHPORT_SLEEP_U32 2

    struct machport_slept { uint64_t value; uint64_t address; uint32_t flags; uint32_t reserved; };

    static inline int machport_futex_sleep(const char *word, uint32_t value, const char *line, uint32_t held,
            int64_t nanoseconds) {
        struct machport_slept both[2] = {
            {value, (uintptr_t)word, MACHPORT_SLEEP_U32, 0},
            {held, (uintptr_t)line, MACHPORT_SLEEP_U32, 0},
        };
        struct timespec end = {0, 0}, *until = NULL;
        long answer;
        int error;
        if (nanoseconds >= 0) {
            clock_gettime(CLOCK_MONOTONIC, &end);
            end.tv_sec += nanoseconds / 1000000000;
            end.tv_nsec += nanoseconds % 1000000000;
            if (end.tv_nsec >= 1000000000) {
                end.tv_sec++;
                end.tv_nsec -= 1000000000;
            }
            until = &end;
        }
        Py_BEGIN_ALLOW_THREADS
        if (line == NULL)
            answer = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, until, NULL, FUTEX_BITSET_MATCH_ANY);
        else
            answer = syscall(MACHPORT_SLEEP_WAITV, both, 2, 0, until, CLOCK_MONOTONIC);
        error = errno;
        Py_END_ALLOW_THREADS
        if (answer >= 0)
            return answer == 1 ? MACHPORT_LINE : MACHPORT_CHANGED;
        switch (error) {
            case EAGAIN: return MACHPORT_CHANGED;
            case ETIMEDOUT: return MACHPORT_TIMED_OUT;
            case EINTR: return MACHPORT_INTERRUPTED;
            default: return MACHPORT_UNABLE;
        }
    }
    static inline int machport_futex_sleep_alone(const char *word, uint32_t value, int64_t nanoseconds) {
        return machport_futex_sleep(word, value, NULL, 0, nanoseconds);
    }
    static inline void machport_poll(int descriptor, int other, int64_t nanoseconds) {
        struct pollfd both[2] = {{descriptor, POLLIN, 0}, {other, POLLIN, 0}};
        struct timespec left = {nanoseconds / 1000000000, nanoseconds % 1000000000};
        Py_BEGIN_ALLOW_THREADS
        ppoll(both, 2, nanoseconds < 0 ? NULL : &left, NULL);
        Py_END_ALLOW_THREADS
    }
    static inline void machport_futex_wake(const char *word) {
        syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    """
    int sleep_both "machport_futex_sleep" (
        const char *word, uint32_t value, const char *line, uint32_t held, int64_t nanoseconds
    ) noexcept
    int sleep "machport_futex_sleep_alone" (const char *word, uint32_t value, int64_t nanoseconds) noexcept
    void poll "machport_poll" (int descriptor, int other, int64_t nanoseconds) noexcept
    void wake "machport_futex_wake" (const char *word) noexcept

cdef enum:
    NATIVE = 1

    CHANGED = 0
    LINE = 1
    TIMED_OUT = 2
    INTERRUPTED = 3
    UNABLE = 4


cdef inline int check_signals() except -1:
    return PyErr_CheckSignals()
