/*
 * A library for LD_PRELOAD that makes a process' disk and clock misbehave while it runs.
 *
 * TRADEWIND_FAULTS names a file of at least one page, shared with whoever injects the faults (local/src/faults.rs):
 * 64-bit integers in the machine's byte order, all zero for no fault. TRADEWIND_FAULTS_BELOW is the directory whose
 * files are meant; sockets, logs and everything elsewhere work as ever.
 *
 * Only calls through libc are seen: those of Rust's standard library are, raw system calls are not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The order is that of `Field` in local/src/faults.rs. */
struct faults {
    volatile int64_t sync_errno;     /* each sync fails with it */
    volatile int64_t sync_delay_ms;  /* each sync takes so much longer */
    volatile int64_t write_errno;    /* each write fails with it */
    volatile int64_t clock_offset_s; /* what the time of day is ahead */
    volatile int64_t clock_frozen_s; /* the time of day, which does not move */
};

static struct faults none;
static struct faults *faults = &none;
static char below[PATH_MAX];

__attribute__((constructor)) static void attach(void) {
    const char *control = getenv("TRADEWIND_FAULTS");
    const char *directory = getenv("TRADEWIND_FAULTS_BELOW");
    if (!control || !directory || strlen(directory) >= sizeof below)
        return;
    int fd = open(control, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED)
        return;
    strcpy(below, directory);
    faults = page;
}

static int is_meant(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    size_t prefix = strlen(below);
    return length >= (ssize_t)prefix && memcmp(path, below, prefix) == 0;
}

/* Waits or fails as a sync is told to; 0 if it is to be done. */
static int before_sync(int fd) {
    if ((!faults->sync_delay_ms && !faults->sync_errno) || !is_meant(fd))
        return 0;
    /* In small steps, so that a disk that is healed goes on at once. */
    for (int64_t waited = 0; waited < faults->sync_delay_ms; waited += 10)
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    errno = (int)faults->sync_errno;
    return errno ? -1 : 0;
}

static int before_write(int fd) {
    if (!faults->write_errno || !is_meant(fd))
        return 0;
    errno = (int)faults->write_errno;
    return -1;
}

int fsync(int fd) { return before_sync(fd) ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return before_sync(fd) ? -1 : (int)syscall(SYS_fdatasync, fd); }
int syncfs(int fd) { return before_sync(fd) ? -1 : (int)syscall(SYS_syncfs, fd); }

ssize_t write(int fd, const void *bytes, size_t length) {
    return before_write(fd) ? -1 : syscall(SYS_write, fd, bytes, length);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return before_write(fd) ? -1 : syscall(SYS_writev, fd, parts, count);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return before_write(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, length, offset);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return pwrite64(fd, bytes, length, offset);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) {
        if (faults->clock_frozen_s)
            *now = (struct timespec){.tv_sec = faults->clock_frozen_s};
        now->tv_sec += faults->clock_offset_s;
    }
    return failed;
}
