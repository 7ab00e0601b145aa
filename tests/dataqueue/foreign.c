/* One side of a data queue, written from the published layout alone: what somebody else's program would be.
 *
 *     foreign attach DESCRIPTOR             use memory that was inherited
 *     foreign create CAPACITY plain|shared  make memory, which others open by /proc
 *
 * It prints "memory DESCRIPTOR" when it has mapped that.  Then it obeys, one line for each order, until its input ends:
 *
 *     look                        its trusted capacity, whether there is an appendix, head, tail
 *     port NAME                   set the notification port: CODE
 *     header                      the 24 bytes of the notification, or "none"
 *     enqueue [BYTES]             add an entry, in hexadecimal: CODE, and whether the rules ask for a notification
 *     reserve SIZE                the same with undefined content
 *     available                   0 or 1
 *     peek                        "null", or "entry BYTES"
 *     dequeue ROOM                CODE, the data size that comes out, and the bytes
 *     skip                        take an entry unseen: CODE
 *     produce COUNT SEED LARGEST  enqueue the entries of a stream: "done CHECKSUM", or "stopped CODE"
 *     consume COUNT               take as many entries: the same
 *     race ROUNDS LARGEST         enqueue two entries, print how many notifications the rules asked for, and yield until
 *                                 both are taken; again and again
 *     chase ROUNDS                take two entries, again and again, and read a line for each two; before the second if
 *                                 the queue is empty then.  For each round a digit: 1 if it was
 *     go                          nothing, if there is no wait that this ends
 *
 * It has no Mach ports.  Where it has to send a notification, it prints "notify BYTES" with the header that it would
 * send, before anything else.  Where it has to wait it prints "full" or "empty" and reads a line.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEAD_OFFSET = 4,
    TAIL_OFFSET = 8,
    MEMORY_HEADER_SIZE = 12,
    ENTRY_HEADER_SIZE = 4,
    APPENDIX_SIZE = 28,
    VERSION_SIZE = 4,
    NOTIFICATION_SIZE = 24,
    COPY_SEND = 19,
};

static const uint32_t SUCCESS = 0;
static const uint32_t ERROR = 0xe00002bc;
static const uint32_t BAD_ARGUMENT = 0xe00002c2;
static const uint32_t NO_SPACE = 0xe00002db;
static const uint32_t UNDERRUN = 0xe00002e7;
static const uint32_t OVERRUN = 0xe00002e8;

struct queue {
    uint32_t capacity; /* trusted from the beginning on: the shared field is not read again */
    _Atomic uint32_t *head;
    _Atomic uint32_t *tail;
    unsigned char *ring;
    unsigned char *notification; /* NULL for a plain queue */
    unsigned char *buffer;       /* private, for one entry of any size that fits */
};

struct entry {
    const unsigned char *data;
    uint32_t size;
    uint32_t end; /* the head behind it */
};

static void fail(const char *what) {
    perror(what);
    exit(EXIT_FAILURE);
}

static void require(bool condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "foreign: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

/* Sizes stand at any offset.  Each byte is read once, because the other side may write at any moment. */
static uint32_t read_u32(const volatile unsigned char *at) {
    unsigned char bytes[4];
    uint32_t value;
    for (int i = 0; i < 4; i++)
        bytes[i] = at[i];
    memcpy(&value, bytes, sizeof value);
    return value;
}

static void write_u32(unsigned char *at, uint32_t value) {
    memcpy(at, &value, sizeof value);
}

/* Memory */

static int create(uint32_t capacity, bool shared) {
    uint64_t size = MEMORY_HEADER_SIZE + (uint64_t)capacity + (shared ? APPENDIX_SIZE : 0);
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    require(size <= UINT32_MAX, "too large for 32 bits");
    if (shared)
        size = (size + page - 1) / page * page;
    int fd = memfd_create("foreign", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        fail("memfd_create");
    require(posix_fallocate(fd, 0, (off_t)size) == 0, "no memory");
    if (pwrite(fd, &capacity, sizeof capacity, 0) != sizeof capacity)
        fail("pwrite");
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        fail("F_ADD_SEALS");
    return fd;
}

static struct queue attach(int fd) {
    struct stat status;
    struct queue q;
    if (fstat(fd, &status) < 0)
        fail("fstat");
    uint64_t size = (uint64_t)status.st_size;
    require(size >= MEMORY_HEADER_SIZE, "no room for a header");
    unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    q.capacity = read_u32(memory);
    uint64_t appendix = MEMORY_HEADER_SIZE + (uint64_t)q.capacity;
    require(appendix <= size, "the ring is larger than its memory");
    q.head = (_Atomic uint32_t *)(void *)(memory + HEAD_OFFSET);
    q.tail = (_Atomic uint32_t *)(void *)(memory + TAIL_OFFSET);
    q.ring = memory + MEMORY_HEADER_SIZE;
    q.notification = appendix + APPENDIX_SIZE <= size ? memory + appendix + VERSION_SIZE : NULL;
    q.buffer = malloc((size_t)q.capacity + 1);
    require(q.buffer != NULL, "no memory");
    return q;
}

/* The notification */

static uint32_t set_notification_port(struct queue *q, uint32_t port) {
    unsigned char *header = q->notification;
    if (header == NULL)
        return BAD_ARGUMENT;
    write_u32(header, COPY_SEND);
    write_u32(header + 4, NOTIFICATION_SIZE);
    write_u32(header + 8, port);
    write_u32(header + 12, 0); /* the voucher, at 16, is left alone */
    write_u32(header + 20, 0);
    return SUCCESS;
}

static void print_bytes(const unsigned char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++)
        printf("%02x", bytes[i]);
}

static void notify(const struct queue *q) {
    unsigned char header[NOTIFICATION_SIZE];
    if (q->notification == NULL)
        return;
    memcpy(header, q->notification, sizeof header);
    if (read_u32(header + 8) == 0)
        return;
    printf("notify ");
    print_bytes(header, sizeof header);
    printf("\n");
}

/* The producer */

/* The offset of an entry of `need` bytes, its header included; false if there is none. */
static bool place(uint64_t capacity, uint64_t head, uint64_t tail, uint64_t need, uint64_t *at) {
    if (tail < head) {
        *at = tail;
        return head - tail > need;
    }
    if (tail + need <= capacity && tail + need <= UINT32_MAX) {
        *at = tail;
        return true;
    }
    *at = 0;
    return head > need;
}

/* `data` may be NULL for undefined content; `wake` tells whether a notification was due. */
static uint32_t enqueue(struct queue *q, const unsigned char *data, uint32_t size, bool *wake) {
    uint64_t at;
    *wake = false;
    if (size > UINT32_MAX - ENTRY_HEADER_SIZE)
        return OVERRUN;
    uint32_t tail = atomic_load_explicit(q->tail, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(q->head, memory_order_acquire);
    if (q->capacity < tail || q->capacity < head)
        return UNDERRUN;
    if (!place(q->capacity, head, tail, (uint64_t)size + ENTRY_HEADER_SIZE, &at)) {
        *wake = true;
        notify(q);
        return OVERRUN;
    }
    if (data != NULL)
        memcpy(q->ring + at + ENTRY_HEADER_SIZE, data, size);
    write_u32(q->ring + at, size);
    if (at != tail && q->capacity - tail >= ENTRY_HEADER_SIZE)
        write_u32(q->ring + tail, size); /* the marker: too large for where it stands */
    atomic_store_explicit(q->tail, (uint32_t)(at + ENTRY_HEADER_SIZE + size), memory_order_release);
    if (head == tail) {
        *wake = true;
    } else {
        atomic_thread_fence(memory_order_seq_cst);
        *wake = atomic_load_explicit(q->head, memory_order_relaxed) == tail;
    }
    if (*wake)
        notify(q);
    return SUCCESS;
}

/* The consumer */

static uint32_t find(const struct queue *q, uint32_t head, uint32_t tail, struct entry *found) {
    uint64_t at = head;
    uint32_t size = 0;
    if (head == tail)
        return UNDERRUN;
    if (head > q->capacity)
        return ERROR;
    if (at + ENTRY_HEADER_SIZE <= q->capacity)
        size = read_u32(q->ring + at);
    if (at + ENTRY_HEADER_SIZE + size > q->capacity) {
        at = 0; /* the producer has wrapped */
        if (q->capacity < ENTRY_HEADER_SIZE)
            return ERROR;
        size = read_u32(q->ring);
        if ((uint64_t)size + ENTRY_HEADER_SIZE > q->capacity)
            return ERROR;
    }
    found->data = q->ring + at + ENTRY_HEADER_SIZE;
    found->size = size;
    found->end = (uint32_t)(at + ENTRY_HEADER_SIZE + size);
    return SUCCESS;
}

static bool data_available(const struct queue *q) {
    return atomic_load_explicit(q->head, memory_order_relaxed) != atomic_load_explicit(q->tail, memory_order_acquire);
}

static bool peek(const struct queue *q, struct entry *found) {
    uint32_t head = atomic_load_explicit(q->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(q->tail, memory_order_acquire);
    return find(q, head, tail, found) == SUCCESS;
}

/* `data` may be NULL, to throw the entry away; `size` is then left alone. */
static uint32_t dequeue(struct queue *q, unsigned char *data, uint32_t *size) {
    struct entry entry;
    uint32_t head = atomic_load_explicit(q->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(q->tail, memory_order_acquire);
    uint32_t code = find(q, head, tail, &entry);
    if (code != SUCCESS)
        return code;
    if (data != NULL) {
        uint32_t room = *size;
        *size = entry.size;
        if (entry.size > room)
            return NO_SPACE;
        memcpy(data, entry.data, entry.size);
    }
    atomic_store_explicit(q->head, entry.end, memory_order_release);
    if (entry.end == tail)
        atomic_thread_fence(memory_order_seq_cst);
    return SUCCESS;
}

/* Orders */

static char *line;
static size_t line_room;

static bool read_line(void) {
    ssize_t length = getline(&line, &line_room, stdin);
    if (length > 0 && line[length - 1] == '\n')
        line[length - 1] = '\0';
    return length > 0;
}

/* Nothing comes of a side that waits when nobody is left to tell it to go on. */
static void wait_because(const char *reason) {
    puts(reason);
    require(read_line(), "the input has ended");
}

static uint32_t parse(const char *word) {
    char *end;
    require(word != NULL, "a number is missing");
    unsigned long long value = strtoull(word, &end, 0);
    require(end != word && *end == '\0' && value <= UINT32_MAX, "no number of 32 bits");
    return (uint32_t)value;
}

static uint32_t next_number(void) {
    return parse(strtok(NULL, " "));
}

/* Hexadecimal to bytes, in place; no word is no bytes. */
static uint32_t decode(char *word) {
    uint32_t size = 0;
    if (word == NULL)
        return 0;
    for (const char *from = word; *from != '\0'; from += 2) {
        char pair[3] = {from[0], from[1], '\0'};
        word[size++] = (char)strtoul(pair, NULL, 16);
    }
    return size;
}

/* Updates a CRC-32, as in zip files. */
static uint32_t checksum(uint32_t sum, const unsigned char *bytes, size_t count) {
    sum = ~sum;
    while (count-- > 0) {
        sum ^= *bytes++;
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xedb88320 : 0);
    }
    return ~sum;
}

static uint32_t checksum_entry(uint32_t sum, const unsigned char *data, uint32_t size) {
    unsigned char header[ENTRY_HEADER_SIZE];
    write_u32(header, size);
    return checksum(checksum(sum, header, sizeof header), data, size);
}

static void finish(uint32_t code, uint32_t sum) {
    if (code == SUCCESS)
        printf("done %#x\n", (unsigned)sum);
    else
        printf("stopped %#x\n", (unsigned)code);
}

/* One draw for each entry: the upper 24 bits, modulo LARGEST + 1, are its size; the upper 8 are its first byte, and
 * each following byte is one more. */
static void produce(struct queue *q, uint32_t count, uint32_t seed, uint32_t largest) {
    uint32_t sum = 0, code = SUCCESS;
    bool wake;
    require(largest <= q->capacity, "larger than the ring");
    while (count-- > 0 && code == SUCCESS) {
        seed = seed * 1664525 + 1013904223;
        uint32_t size = (seed >> 8) % (largest + 1);
        for (uint32_t i = 0; i < size; i++)
            q->buffer[i] = (unsigned char)((seed >> 24) + i);
        while ((code = enqueue(q, q->buffer, size, &wake)) == OVERRUN)
            wait_because("full");
        sum = checksum_entry(sum, q->buffer, size);
    }
    finish(code, sum);
}

static void consume(struct queue *q, uint32_t count) {
    uint32_t sum = 0, code = SUCCESS;
    while (count-- > 0 && code == SUCCESS) {
        uint32_t size = q->capacity;
        while ((code = dequeue(q, q->buffer, &size)) == UNDERRUN)
            wait_because("empty");
        if (code == SUCCESS)
            sum = checksum_entry(sum, q->buffer, size);
    }
    finish(code, sum);
}

/* For what happens too fast to sleep for; looks now and then whether anybody is left. */
static void let_the_other_run(void) {
    static unsigned times;
    struct pollfd input = {.fd = STDIN_FILENO};
    sched_yield();
    if (++times % 1024 == 0)
        require(poll(&input, 1, 0) == 0, "the input has ended");
}

static void race(struct queue *q, uint32_t rounds, uint32_t largest) {
    bool first, second;
    require(largest < q->capacity, "larger than the ring");
    memset(q->buffer, 0, largest + 1);
    for (uint32_t i = 0; i < rounds; i++) {
        require(enqueue(q, q->buffer, 1, &first) == SUCCESS, "no room");
        require(enqueue(q, q->buffer, i * 7919 % (largest + 1), &second) == SUCCESS, "no room");
        printf("%d\n", first + second);
        while (data_available(q))
            let_the_other_run();
    }
}

static void chase(struct queue *q, uint32_t rounds) {
    while (rounds-- > 0) {
        while (dequeue(q, NULL, NULL) == UNDERRUN)
            let_the_other_run();
        uint32_t code = dequeue(q, NULL, NULL);
        putchar(code == UNDERRUN ? '1' : '0');
        require(read_line(), "the input has ended");
        if (code == UNDERRUN)
            code = dequeue(q, NULL, NULL);
        require(code == SUCCESS, "the second entry is not there");
    }
    putchar('\n');
}

static void obey(struct queue *q) {
    const char *order = strtok(line, " ");
    bool wake;
    require(order != NULL, "an empty order");
    if (strcmp(order, "look") == 0) {
        printf("%u %d %u %u\n", (unsigned)q->capacity, q->notification != NULL,
               (unsigned)atomic_load_explicit(q->head, memory_order_acquire),
               (unsigned)atomic_load_explicit(q->tail, memory_order_acquire));
    } else if (strcmp(order, "port") == 0) {
        printf("%#x\n", (unsigned)set_notification_port(q, next_number()));
    } else if (strcmp(order, "header") == 0) {
        if (q->notification == NULL)
            printf("none");
        else
            print_bytes(q->notification, NOTIFICATION_SIZE);
        printf("\n");
    } else if (strcmp(order, "enqueue") == 0) {
        char *data = strtok(NULL, " ");
        uint32_t size = decode(data);
        uint32_t code = enqueue(q, (const unsigned char *)(data ? data : ""), size, &wake);
        printf("%#x %d\n", (unsigned)code, wake);
    } else if (strcmp(order, "reserve") == 0) {
        uint32_t code = enqueue(q, NULL, next_number(), &wake);
        printf("%#x %d\n", (unsigned)code, wake);
    } else if (strcmp(order, "available") == 0) {
        printf("%d\n", data_available(q));
    } else if (strcmp(order, "peek") == 0) {
        struct entry entry;
        if (peek(q, &entry)) {
            printf("entry ");
            print_bytes(entry.data, entry.size);
            printf("\n");
        } else {
            puts("null");
        }
    } else if (strcmp(order, "dequeue") == 0) {
        uint32_t size = next_number();
        uint32_t code = dequeue(q, q->buffer, &size);
        printf("%#x %u ", (unsigned)code, (unsigned)size);
        if (code == SUCCESS)
            print_bytes(q->buffer, size);
        printf("\n");
    } else if (strcmp(order, "skip") == 0) {
        printf("%#x\n", (unsigned)dequeue(q, NULL, NULL));
    } else if (strcmp(order, "produce") == 0) {
        uint32_t count = next_number(), seed = next_number();
        produce(q, count, seed, next_number());
    } else if (strcmp(order, "consume") == 0) {
        consume(q, next_number());
    } else if (strcmp(order, "race") == 0) {
        uint32_t rounds = next_number();
        race(q, rounds, next_number());
    } else if (strcmp(order, "chase") == 0) {
        chase(q, next_number());
    } else {
        require(strcmp(order, "go") == 0, "an unknown order");
    }
}

int main(int argc, char **argv) {
    int fd = -1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 3 && strcmp(argv[1], "attach") == 0) {
        fd = (int)parse(argv[2]);
    } else if (argc == 4 && strcmp(argv[1], "create") == 0) {
        fd = create(parse(argv[2]), strcmp(argv[3], "shared") == 0);
    }
    require(fd >= 0, "usage: foreign attach DESCRIPTOR | foreign create CAPACITY plain|shared");
    struct queue q = attach(fd);
    printf("memory %d\n", fd);
    while (read_line())
        obey(&q);
    return EXIT_SUCCESS;
}
