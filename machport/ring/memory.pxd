# Access to memory that two sides share, with the orders of C11.  memory.py says what each function promises.
#
# For machport.ring.queue only.  Everything is inline: a load or a store here is one instruction on x86-64.
# Nothing here checks an offset; queue.py has checked it against the trusted capacity.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <errno.h>
    #include <sched.h>
    #include <stdatomic.h>
    #include <stdint.h>
    #include <sys/socket.h>
    #include <time.h>

    /* A lock behind a u32 would be private to each process: the other side would never see it. */
    _Static_assert(ATOMIC_INT_LOCK_FREE == 2, "32-bit atomics must be lock-free");

    static inline uint32_t machport_load_relaxed(const char *memory, size_t offset) {
        return atomic_load_explicit((const _Atomic uint32_t *)(memory + offset), memory_order_relaxed);
    }
    static inline uint32_t machport_load_acquire(const char *memory, size_t offset) {
        return atomic_load_explicit((const _Atomic uint32_t *)(memory + offset), memory_order_acquire);
    }
    static inline void machport_store_release(char *memory, size_t offset, uint32_t value) {
        atomic_store_explicit((_Atomic uint32_t *)(memory + offset), value, memory_order_release);
    }
    static inline void machport_fence(void) {
        atomic_thread_fence(memory_order_seq_cst);
    }
    static inline uint32_t machport_exchange(char *memory, size_t offset, uint32_t value) {
        return atomic_exchange_explicit((_Atomic uint32_t *)(memory + offset), value, memory_order_seq_cst);
    }

    /* The first looks are for a peer that runs on another core.  Few, because one that waits for this core gets it
       only by the yield. */
    #define MACHPORT_PAUSES 8
    /* To let go of the interpreter lock and take it again costs a good part of a microsecond; who is answered at once
       keeps it. */
    #define MACHPORT_YIELDS_LOCKED 3

    static inline void machport_pause(void) {
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ volatile("yield");
    #endif
    }
    static inline uint64_t machport_now(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    /* 1 for eight zeros, which are taken; 0 for another packet, and the end; -1 for nothing; -2 with errno. */
    static inline int machport_take_wake(int descriptor, int wait) {
        uint64_t packet = 1;
        ssize_t size;
        if (wait) {
            Py_BEGIN_ALLOW_THREADS
            size = recv(descriptor, &packet, sizeof(packet), MSG_PEEK | MSG_TRUNC);
            Py_END_ALLOW_THREADS
        } else {
            size = recv(descriptor, &packet, sizeof(packet), MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
        }
        if (size < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? -1 : -2;
        if (size != sizeof(packet) || packet != 0)
            return 0;
        return recv(descriptor, &packet, sizeof(packet), MSG_DONTWAIT) < 0 ? -2 : 1;
    }
    static inline void machport_send_wake(int descriptor) {
        static const uint64_t packet = 0;
        (void)!send(descriptor, &packet, sizeof(packet), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    static inline uint64_t machport_this_thread(void) {
        return PyThread_get_thread_ident();
    }
    static inline void machport_give_way(void) {
        sched_yield();
    }
    static inline int machport_look(const char *memory, size_t offset, uint32_t value, uint64_t nanoseconds) {
        int found = machport_load_acquire(memory, offset) != value;
        if (found || nanoseconds == 0)
            return found;
        for (int i = 0; i < MACHPORT_PAUSES; i++) {
            machport_pause();
            if (machport_load_acquire(memory, offset) != value)
                return 1;
        }
        uint64_t end = machport_now() + nanoseconds;
        for (int i = 0; i < MACHPORT_YIELDS_LOCKED; i++) {
            sched_yield();
            if (machport_load_acquire(memory, offset) != value)
                return 1;
        }
        Py_BEGIN_ALLOW_THREADS
        while (!found && machport_now() < end) {
            sched_yield();
            found = machport_load_acquire(memory, offset) != value;
        }
        Py_END_ALLOW_THREADS
        return found;
    }

    /* Entries start at any byte.  Volatile: the peer may write meanwhile, and a compiler that read a size a second
       time after it was checked would use a size that nobody checked (Q42). */
    struct machport_unaligned { uint32_t value; } __attribute__((packed, may_alias));

    static inline uint32_t machport_get_u32(const char *memory, size_t offset) {
        return ((const volatile struct machport_unaligned *)(memory + offset))->value;
    }
    static inline void machport_put_u32(char *memory, size_t offset, uint32_t value) {
        ((volatile struct machport_unaligned *)(memory + offset))->value = value;
    }
    """
    uint32_t load_relaxed "machport_load_relaxed" (const char *memory, size_t offset) noexcept nogil
    uint32_t load_acquire "machport_load_acquire" (const char *memory, size_t offset) noexcept nogil
    void store_release "machport_store_release" (char *memory, size_t offset, uint32_t value) noexcept nogil
    void fence "machport_fence" () noexcept nogil
    uint32_t exchange "machport_exchange" (char *memory, size_t offset, uint32_t value) noexcept nogil
    uint64_t now "machport_now" () noexcept nogil
    uint64_t this_thread "machport_this_thread" () noexcept nogil
    void give_way "machport_give_way" () noexcept nogil
    int machport_take_wake(int descriptor, int wait) noexcept
    void send_wake "machport_send_wake" (int descriptor) noexcept
    bint look "machport_look" (const char *memory, size_t offset, uint32_t value, uint64_t nanoseconds) noexcept
    uint32_t get_u32 "machport_get_u32" (const char *memory, size_t offset) noexcept nogil
    void put_u32 "machport_put_u32" (char *memory, size_t offset, uint32_t value) noexcept nogil

cdef extern from "Python.h":
    Py_buffer *PyMemoryView_GET_BUFFER(object view)
    object PyMemoryView_FromObject(object data)
    bint PyBuffer_IsContiguous(Py_buffer *buffer, char order)

cdef extern from "sys/mman.h":
    void *mmap(void *address, size_t size, int protection, int flags, int descriptor, long offset)
    void *MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_FIXED

cdef enum:
    NATIVE = 1


cdef inline char *address(object view) noexcept:
    return <char *>PyMemoryView_GET_BUFFER(view).buf


cdef inline bint aligned(const char *memory) noexcept:
    return <uintptr_t>memory % sizeof(uint32_t) == 0


cdef inline int map_over(char *memory, size_t size, int descriptor) except -1:
    if mmap(memory, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, 0) == MAP_FAILED:
        PyErr_SetFromErrno(OSError)
    return 0


cdef inline int take_wake(int descriptor, int wait) except -2:
    cdef int taken = machport_take_wake(descriptor, wait)
    if taken == -2:
        if errno != EINTR:
            PyErr_SetFromErrno(OSError)
        # The handler may have closed the descriptor; whoever waits looks, and sleeps again if it may.
        PyErr_CheckSignals()
        return 1
    return taken


cdef inline int check_signals() except -1:
    return PyErr_CheckSignals()


cdef inline object readable(object data):
    if PyBytes_Check(data):
        return data
    view = PyMemoryView_FromObject(data)
    if PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(view), b"C"):
        return view
    return view.tobytes()


cdef inline tuple readable_parts(object parts):
    cdef tuple given = tuple(parts)
    cdef object part
    for part in given:
        if not PyBytes_Check(part):
            return tuple([readable(part) for part in given])
    return given


cdef inline object writable(object buffer):
    view = PyMemoryView_FromObject(buffer)
    if PyMemoryView_GET_BUFFER(view).readonly or not PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(view), b"C"):
        raise BufferError("the buffer must be writable and contiguous")
    return view


cdef inline size_t length(object source) noexcept:
    if PyBytes_Check(source):
        return PyBytes_GET_SIZE(source)
    return PyMemoryView_GET_BUFFER(source).len


cdef inline void copy_in(char *memory, size_t offset, object source, size_t size) noexcept:
    if PyBytes_Check(source):
        memcpy(memory + offset, PyBytes_AS_STRING(source), size)
    else:
        memcpy(memory + offset, PyMemoryView_GET_BUFFER(source).buf, size)


cdef inline void copy_out(const char *memory, size_t offset, object target, size_t size) noexcept:
    memcpy(PyMemoryView_GET_BUFFER(target).buf, memory + offset, size)


cdef inline bytes take(const char *memory, size_t offset, size_t size):
    return PyBytes_FromStringAndSize(memory + offset, size)
