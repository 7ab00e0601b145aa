# Robust mutexes and waiting for many of them, by the C library and the system.  robust.py says what each function
# promises.  For machport.ring.lifeline only.

from libc.stdint cimport int64_t, uint32_t

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/futex.h>
    #include <pthread.h>
    #include <stdatomic.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    /* Since Linux 5.16.  The headers of the machine that builds may be older than the system that runs. */
    #define MACHPORT_SYS_FUTEX_WAITV 449
    #define MACHPORT_FUTEX_U32 2
    #define MACHPORT_FUTEX_PRIVATE 128
    #define MACHPORT_WORDS 128

    struct machport_waited { uint64_t value; uint64_t address; uint32_t flags; uint32_t reserved; };

    /* The first of those that are waited for is the bell. */
    struct machport_words {
        _Atomic uint32_t bell;
        uint32_t count;
        struct machport_waited waited[MACHPORT_WORDS];
    };

    static inline size_t machport_page(void) {
        return (size_t)sysconf(_SC_PAGESIZE);
    }

    static inline int machport_lock(void *memory) {
        pthread_mutexattr_t attributes;
        int error = pthread_mutexattr_init(&attributes);
        if (error == 0) {
            error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
            if (error == 0) error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
            if (error == 0) error = pthread_mutex_init(memory, &attributes);
            pthread_mutexattr_destroy(&attributes);
        }
        return error != 0 ? error : pthread_mutex_lock(memory);
    }

    static inline int machport_hold(int descriptor) {
        size_t page = machport_page();
        char *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        if (memory == MAP_FAILED) return -errno;
        int error = madvise(memory, page, MADV_DONTFORK) != 0 ? errno : machport_lock(memory);
        if (error != 0) {
            munmap(memory, page);
            return -error;
        }
        /* Where a C library keeps the word is its own affair.  What counts is where the system will look. */
        struct robust_list_head *head;
        size_t length;
        if (syscall(SYS_get_robust_list, 0, &head, &length) == 0 && length == sizeof *head) {
            char *word = (char *)((uintptr_t)head->list.next & ~(uintptr_t)1) + head->futex_offset;
            if (word >= memory && word <= memory + page - sizeof(uint32_t) && ((uintptr_t)word & 3) == 0
                    && atomic_load((_Atomic uint32_t *)word) == (uint32_t)syscall(SYS_gettid)) {
                /* Nobody waits in a way that the C library knows, and the system wakes only where this is set. */
                atomic_fetch_or((_Atomic uint32_t *)word, FUTEX_WAITERS);
                return (int)(word - memory);
            }
        }
        pthread_mutex_unlock((pthread_mutex_t *)memory);
        munmap(memory, page);
        return -ENOTSUP;
    }

    static inline void *machport_view(int descriptor) {
        void *memory = mmap(NULL, machport_page(), PROT_READ, MAP_SHARED, descriptor, 0);
        return memory == MAP_FAILED ? PyErr_SetFromErrno(PyExc_OSError), NULL : memory;
    }
    static inline void machport_unview(void *memory) {
        if (memory != NULL) munmap(memory, machport_page());
    }

    static inline uint32_t machport_load(const char *memory, uint32_t offset) {
        return atomic_load_explicit((const _Atomic uint32_t *)(memory + offset), memory_order_acquire);
    }

    static inline struct machport_words *machport_make(void) {
        struct machport_words *words = PyMem_Calloc(1, sizeof *words);
        if (words == NULL) return (struct machport_words *)PyErr_NoMemory();
        words->count = 1;
        words->waited[0].address = (uintptr_t)&words->bell;
        words->waited[0].flags = MACHPORT_FUTEX_U32 | MACHPORT_FUTEX_PRIVATE;
        return words;
    }
    static inline void machport_free(struct machport_words *words) {
        PyMem_Free(words);
    }

    static inline int machport_add(struct machport_words *words, const char *memory, uint32_t offset, uint32_t value) {
        if (words->count == MACHPORT_WORDS) return 0;
        struct machport_waited waited = {value, (uintptr_t)(memory + offset), MACHPORT_FUTEX_U32, 0};
        words->waited[words->count++] = waited;
        return 1;
    }
    static inline void machport_remove(struct machport_words *words, uint32_t index) {
        words->waited[index] = words->waited[--words->count];
    }

    static inline void machport_ring(struct machport_words *words) {
        atomic_fetch_add(&words->bell, 1);
        syscall(SYS_futex, &words->bell, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
    }
    static inline void machport_heard(struct machport_words *words) {
        words->waited[0].value = atomic_load(&words->bell);
    }

    static inline int machport_wait(struct machport_words *words, int64_t nanoseconds) {
        struct timespec end = {0, 0};
        long index;
        int error;
        if (nanoseconds >= 0) {
            clock_gettime(CLOCK_MONOTONIC, &end);
            end.tv_sec += nanoseconds / 1000000000;
            end.tv_nsec += nanoseconds % 1000000000;
            if (end.tv_nsec >= 1000000000) {
                end.tv_sec++;
                end.tv_nsec -= 1000000000;
            }
        }
        Py_BEGIN_ALLOW_THREADS
        index = syscall(MACHPORT_SYS_FUTEX_WAITV, words->waited, words->count, 0, nanoseconds < 0 ? NULL : &end,
            CLOCK_MONOTONIC);
        error = errno;
        Py_END_ALLOW_THREADS
        return index < 0 ? -error : (int)index;
    }

    /* The system compares, not we: it answers where this process would get a SIGBUS. */
    static inline int machport_as_it_was(struct machport_words *words, uint32_t index) {
        struct timespec none = {0, 0};
        long answer = syscall(SYS_futex, (void *)(uintptr_t)words->waited[index].address, FUTEX_WAIT,
            (uint32_t)words->waited[index].value, &none, NULL, 0);
        return answer < 0 && (errno == ETIMEDOUT || errno == EINTR);
    }

    static inline void machport_wake(struct machport_words *words, uint32_t index) {
        syscall(SYS_futex, (void *)(uintptr_t)words->waited[index].address, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    }

    /* Fields of a stat file behind the name of the program, which may contain anything but the last parenthesis. */
    #define MACHPORT_FLAGS 7
    #define MACHPORT_THREADS 18
    #define MACHPORT_EXITING 4

    static inline int machport_read_stat(int process, unsigned long *flags, int *threads) {
        char text[1024];
        snprintf(text, sizeof text, "/proc/%d/stat", process);
        int stat = open(text, O_RDONLY | O_CLOEXEC);
        if (stat < 0) return -errno;
        ssize_t length = read(stat, text, sizeof text - 1);
        int error = errno;
        close(stat);
        if (length < 0) return -error;
        text[length] = 0;
        char *field = strrchr(text, ')');
        for (int i = 1; field != NULL && i <= MACHPORT_THREADS; i++) {
            field = strchr(field + 1, ' ');
            if (field != NULL && i == MACHPORT_FLAGS) *flags = strtoul(field, NULL, 10);
        }
        if (field == NULL) return -EPROTO;
        *threads = atoi(field);
        return 0;
    }

    static inline int machport_threads_left(int process) {
        unsigned long flags = 0;
        int threads = 0, error;
        Py_BEGIN_ALLOW_THREADS
        error = machport_read_stat(process, &flags, &threads);
        /* Counted again: as long as it was not exiting, it could start another. */
        if (error == 0 && (flags & MACHPORT_EXITING)) error = machport_read_stat(process, &flags, &threads);
        else threads = 0;
        Py_END_ALLOW_THREADS
        return error != 0 ? error : threads;
    }
    """
    ctypedef struct words "struct machport_words":
        pass

    const int BELL "0"
    const int AGAIN "-EAGAIN"
    const int FAULT "-EFAULT"
    const int TIMED_OUT "-ETIMEDOUT"
    const int INTERRUPTED "-EINTR"

    size_t page "machport_page" () noexcept
    int hold "machport_hold" (int descriptor) noexcept
    char *view "machport_view" (int descriptor) except NULL
    void unview "machport_unview" (char *memory) noexcept
    uint32_t load "machport_load" (const char *memory, uint32_t offset) noexcept
    words *make "machport_make" () except NULL
    void free "machport_free" (words *) noexcept
    bint add "machport_add" (words *, const char *memory, uint32_t offset, uint32_t value) noexcept
    void remove "machport_remove" (words *, uint32_t index) noexcept
    void ring "machport_ring" (words *) noexcept
    void heard "machport_heard" (words *) noexcept
    int wait "machport_wait" (words *, int64_t nanoseconds) noexcept
    bint as_it_was "machport_as_it_was" (words *, uint32_t index) noexcept
    void wake "machport_wake" (words *, uint32_t index) noexcept
    int threads_left "machport_threads_left" (int process) noexcept

cdef enum:
    NATIVE = 1
