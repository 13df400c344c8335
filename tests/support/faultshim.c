/* Faults at the calls by which a program touches its files, preloaded into the real program (LD_PRELOAD).
 *
 * What to do, and what was done, is in a file that test and program both have in memory (FAULTSHIM_CONTROL), so a fault
 * is armed and taken back while the program runs. The layout is known to faultshim.py, which is the only one to use it.
 * Only calls on files whose path contains `text` count, and those on TCP sockets with the local port `port`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE, SYNC, TRUNCATE, UNLINK, CREATE, SEND, KINDS };
enum mode { NOTHING, KILL, FAIL, DELAY, HANG, LIE };
enum when { BEFORE, MIDDLE, AFTER };

struct control {
    uint64_t mode;
    uint64_t kinds;    /* a bit for each kind of call that the fault is for */
    uint64_t at;       /* the first call to be hit, counted from 1 */
    uint64_t times;    /* how many in a row are hit; 0: every one from there on */
    uint64_t when;
    uint64_t argument; /* an errno, or milliseconds */
    uint64_t seen;     /* calls of `kinds` since this was armed */
    uint64_t hit;      /* of those, how many were hit */
    uint64_t waiting;  /* calls that hang or are delayed at this moment */
    uint64_t last;     /* the kind of call that was hit last */
    int64_t clock_ns;  /* what is added to the wall clock */
    uint64_t port;
    uint64_t calls[KINDS]; /* all that ever matched */
    char text[256];
    char last_path[256];
    char note[64]; /* what the program says it is doing; only faultshim.py reads and writes it */
};

static struct control nobody;
static struct control *control = &nobody;

static long (*real_syscall(void))(long, ...) {
    static long (*found)(long, ...);
    if (!found)
        found = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return found;
}
#define RAW (real_syscall())

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTSHIM_CONTROL");
    int fd = path ? (int)RAW(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0)
        return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED)
        control = shared;
}

static uint64_t load(uint64_t *field) { return __atomic_load_n(field, __ATOMIC_SEQ_CST); }

static void pause_ms(uint64_t ms) {
    struct timespec left = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    while (RAW(SYS_nanosleep, &left, &left) == -1 && errno == EINTR) {
    }
}

static int matches(const char *path) { return control->text[0] && strstr(path, control->text); }

/* The path of a descriptor, if it is one of ours. */
static int file(int fd, char path[256]) {
    char link[64];
    if (!control->text[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = RAW(SYS_readlinkat, AT_FDCWD, link, path, 255);
    if (length < 0)
        return 0;
    path[length] = 0;
    return matches(path);
}

/* Count the call, and say whether it is hit. */
static int hit(enum kind kind, const char *path) {
    __atomic_fetch_add(&control->calls[kind], 1, __ATOMIC_SEQ_CST);
    if (load(&control->mode) == NOTHING || !(control->kinds & (1u << kind)))
        return 0;
    uint64_t number = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
    if (number < control->at || (control->times && number >= control->at + control->times))
        return 0;
    control->last = kind;
    strncpy(control->last_path, path, sizeof control->last_path - 1);
    __atomic_fetch_add(&control->hit, 1, __ATOMIC_SEQ_CST);
    return 1;
}

static void end(void) {
    RAW(SYS_kill, (long)getpid(), SIGKILL);
    for (;;)
        pause_ms(1000);
}

struct call {
    enum kind kind;
    long number;
    long arguments[4];
    int middle; /* which argument is a length, of which half can be done; 0: none */
};

static long make(const struct call *call) {
    const long *a = call->arguments;
    return RAW(call->number, a[0], a[1], a[2], a[3]);
}

static void make_half(const struct call *call) {
    struct call half = *call;
    if (!call->middle)
        return;
    half.arguments[call->middle] /= 2;
    make(&half);
}

static long faulty(const struct call *call) {
    long result;
    int error;
    switch (load(&control->mode)) {
    case KILL:
        if (control->when == MIDDLE)
            make_half(call);
        if (control->when == AFTER)
            make(call);
        end();
        return -1;
    case FAIL:
        error = (int)control->argument;
        if (control->when == MIDDLE)
            make_half(call);
        if (control->when == AFTER)
            make(call);
        errno = error;
        return -1;
    case DELAY:
        __atomic_fetch_add(&control->waiting, 1, __ATOMIC_SEQ_CST);
        pause_ms(control->argument);
        result = make(call);
        error = errno;
        __atomic_fetch_sub(&control->waiting, 1, __ATOMIC_SEQ_CST);
        errno = error;
        return result;
    case HANG:
        __atomic_fetch_add(&control->waiting, 1, __ATOMIC_SEQ_CST);
        while (load(&control->mode) == HANG)
            pause_ms(1);
        __atomic_fetch_sub(&control->waiting, 1, __ATOMIC_SEQ_CST);
        return make(call);
    case LIE:
        return call->kind == WRITE ? call->arguments[2] : 0;
    default:
        return make(call);
    }
}

static long on_file(int fd, const struct call *call) {
    char path[256];
    return file(fd, path) && hit(call->kind, path) ? faulty(call) : make(call);
}

static long on_path(const char *path, const struct call *call) {
    return matches(path) && hit(call->kind, path) ? faulty(call) : make(call);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct call call = {WRITE, SYS_write, {fd, (long)bytes, (long)length, 0}, 2};
    return on_file(fd, &call);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    struct call call = {WRITE, SYS_pwrite64, {fd, (long)bytes, (long)length, offset}, 2};
    return on_file(fd, &call);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return pwrite(fd, bytes, length, offset); }

int fsync(int fd) {
    struct call call = {SYNC, SYS_fsync, {fd, 0, 0, 0}, 0};
    return (int)on_file(fd, &call);
}

int fdatasync(int fd) {
    struct call call = {SYNC, SYS_fdatasync, {fd, 0, 0, 0}, 0};
    return (int)on_file(fd, &call);
}

int ftruncate(int fd, off_t length) {
    struct call call = {TRUNCATE, SYS_ftruncate, {fd, length, 0, 0}, 0};
    return (int)on_file(fd, &call);
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int unlink(const char *path) {
    struct call call = {UNLINK, SYS_unlinkat, {AT_FDCWD, (long)path, 0, 0}, 0};
    return (int)on_path(path, &call);
}

static int opened(const char *path, int flags, mode_t mode) {
    struct call call = {CREATE, SYS_openat, {AT_FDCWD, (long)path, flags, mode}, 0};
    return (int)(flags & O_CREAT ? on_path(path, &call) : make(&call));
}

static mode_t mode_of(int flags, va_list more) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return opened(path, flags | O_LARGEFILE, mode);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    struct call call = {SEND, SYS_sendmsg, {fd, (long)message, flags, 0}, 0};
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    if (!control->port || getsockname(fd, (struct sockaddr *)&name, &length))
        return make(&call);
    uint64_t port = 0;
    if (name.ss_family == AF_INET)
        port = ntohs(((struct sockaddr_in *)&name)->sin_port);
    if (name.ss_family == AF_INET6)
        port = ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
    return port == control->port && hit(SEND, "answer") ? faulty(&call) : make(&call);
}

/* The wall clock jumps; the monotonic one does not. A wait until a wall-clock time is told the kernel's time. */

static struct timespec moved(struct timespec time, int64_t by_ns) {
    int64_t ns = time.tv_nsec + by_ns % 1000000000;
    time.tv_sec += by_ns / 1000000000;
    if (ns >= 1000000000) {
        ns -= 1000000000;
        time.tv_sec++;
    } else if (ns < 0) {
        ns += 1000000000;
        time.tv_sec--;
    }
    time.tv_nsec = ns;
    return time;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *time = moved(*time, control->clock_ns);
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into)
        *into = now.tv_sec;
    return now.tv_sec;
}

long syscall(long number, ...) {
    long a[6];
    struct timespec until;
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_futex && a[3] && (a[1] & FUTEX_CLOCK_REALTIME) && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) {
        until = moved(*(struct timespec *)a[3], -control->clock_ns);
        a[3] = (long)&until;
    }
    return RAW(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real)
        real = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))dlsym(RTLD_NEXT,
                                                                                           "pthread_cond_timedwait");
    /* By which clock it waits is not told here, but no machine has been up since 2001. */
    struct timespec kernel = until->tv_sec > 1000000000 ? moved(*until, -control->clock_ns) : *until;
    return real(condition, mutex, &kernel);
}

int sem_timedwait(void *semaphore, const struct timespec *until) {
    static int (*real)(void *, const struct timespec *);
    if (!real)
        real = (int (*)(void *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec kernel = moved(*until, -control->clock_ns);
    return real(semaphore, &kernel);
}
