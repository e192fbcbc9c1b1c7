/* Stands between a program and its disk: writes down every change to the files below one directory, and makes the
 * disk fail at a chosen one of them. It exists because no file system fails on request, and what a program does when
 * one fails cannot be seen otherwise.
 *
 * Loaded with LD_PRELOAD. What it is told, by the environment:
 *   DISK_ROOT    only what lies below this directory is looked at
 *   DISK_TRACE   every change is appended to this file, which must lie elsewhere
 *   DISK_BYTES   set: the trace holds the bytes of each write, too
 *   DISK_AT      the number, from 1, of the change that the disk fails at; absent: it never does
 *   DISK_FAULT   how: kill (the process dies before it), torn (it dies in the middle of a write), eio, enospc
 *   DISK_STICKY  set: from then on every change fails
 *   DISK_MENDED  once this file exists, nothing fails any more
 *
 * A trace is a sequence of records: `struct head`, then the path, the other path, the bytes. Changes are numbered and
 * written down under one lock, so the order in the trace is the order on the disk. Memory that is mapped is not seen:
 * SQLite maps only its shared-memory file, which is void after a crash. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 'C', EMPTY = 'E', WRITE = 'W', LENGTH = 'L', SYNC = 'S', RENAME = 'R', REMOVE = 'D', FOLDER = 'F' };
enum fault { NONE, KILL, TORN, FAIL_IO, FULL };

struct head {
    uint8_t op;
    uint8_t injected; /* whether the failure is ours */
    uint16_t error;   /* 0, or errno */
    uint16_t path_len;
    uint16_t other_len;
    uint64_t at;      /* offset of a write, length after LENGTH */
    uint32_t len;     /* bytes of the write */
    uint32_t stored;  /* of them, in the trace */
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char root[PATH_MAX];
static size_t root_len;
static int trace = -1, bytes, sticky, struck;
static long count, fail_at;
static const char *mended;
static enum fault fault;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *), (*real_mkdir)(const char *, mode_t);

static void begin(void) {
    *(void **)&real_open = dlsym(RTLD_NEXT, "open64");
    *(void **)&real_openat = dlsym(RTLD_NEXT, "openat64");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    *(void **)&real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_unlink = dlsym(RTLD_NEXT, "unlink");
    *(void **)&real_rename = dlsym(RTLD_NEXT, "rename");
    *(void **)&real_mkdir = dlsym(RTLD_NEXT, "mkdir");
    const char *given = getenv("DISK_ROOT");
    if (given) root_len = (size_t)snprintf(root, sizeof root, "%s/", given);
    if ((given = getenv("DISK_TRACE"))) trace = real_open(given, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    if ((given = getenv("DISK_AT"))) fail_at = atol(given);
    if ((given = getenv("DISK_FAULT"))) {
        fault = !strcmp(given, "kill") ? KILL : !strcmp(given, "torn") ? TORN : !strcmp(given, "eio") ? FAIL_IO
              : !strcmp(given, "enospc") ? FULL : NONE;
    }
    mended = getenv("DISK_MENDED");
    bytes = getenv("DISK_BYTES") != NULL;
    sticky = getenv("DISK_STICKY") != NULL;
}

/* Whether `path` lies below the root; makes it absolute. */
static int below(const char *path, char *absolute) {
    pthread_once(&once, begin);
    if (!root_len || !path) return 0;
    if (path[0] == '/') snprintf(absolute, PATH_MAX, "%s", path);
    else {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return 0;
        if ((size_t)snprintf(absolute, PATH_MAX, "%s/%s", here, path) >= PATH_MAX) return 0;
    }
    return strncmp(absolute, root, root_len) == 0;
}

/* Whether `fd` is a file or directory below the root; the root itself counts. */
static int tracked(int fd, char *path) {
    pthread_once(&once, begin);
    if (!root_len) return 0;
    int saved = errno;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    errno = saved;
    if (len < 0) return 0;
    path[len] = 0;
    return strncmp(path, root, root_len) == 0 || (strncmp(path, root, root_len - 1) == 0 && !path[root_len - 1]);
}

static void put(const void *from, size_t len) {
    const char *at = from;
    while (len > 0) {
        ssize_t written = real_write(trace, at, len);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) abort(); /* a trace with holes proves nothing */
        at += written, len -= (size_t)written;
    }
}

static void note(int op, int error, int injected, const char *path, const char *other, uint64_t at, const void *data,
                 size_t len) {
    if (trace < 0) return;
    int saved = errno;
    struct head head = { .op = (uint8_t)op, .injected = (uint8_t)injected, .error = (uint16_t)error, .at = at };
    head.path_len = (uint16_t)strlen(path);
    head.other_len = other ? (uint16_t)strlen(other) : 0;
    head.len = (uint32_t)len;
    head.stored = bytes && data && !error ? head.len : 0;
    put(&head, sizeof head);
    put(path, head.path_len);
    put(other, head.other_len);
    put(data, head.stored);
    errno = saved;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Counts a change and says which fault strikes it. A full disk takes no more bytes and names, but syncs, cuts and
 * removes; a death in the middle needs a write of two bytes at least. */
static enum fault strike(int op, size_t len) {
    count++;
    if (fault == NONE || !fail_at || count < fail_at || (struck && !sticky)) return NONE;
    if (mended && access(mended, F_OK) == 0) return NONE;
    if (fault == FULL && (op == SYNC || op == REMOVE || op == EMPTY)) return NONE;
    if (fault == TORN && (op != WRITE || len < 2)) return NONE;
    struck = 1;
    return fault;
}

/* The errno that strikes a change that has no middle, or 0. The lock is held. */
static int struck_by(int op, const char *path, const char *other, uint64_t at) {
    struct stat found;
    int grows = op != LENGTH || stat(path, &found) != 0 || (uint64_t)found.st_size < at;
    enum fault by = strike(grows ? op : EMPTY, 0);
    if (by == KILL) die();
    if (by == NONE || by == TORN) return 0;
    int error = by == FAIL_IO ? EIO : ENOSPC;
    note(op, error, 1, path, other, at, NULL, 0);
    return error;
}

static ssize_t change_bytes(int fd, const char *path, const void *data, size_t len, off_t at, int positioned) {
    pthread_mutex_lock(&turn);
    off_t place = at;
    if (!positioned) {
        struct stat found;
        int append = fcntl(fd, F_GETFL) & O_APPEND;
        place = append && fstat(fd, &found) == 0 ? found.st_size : lseek(fd, 0, SEEK_CUR);
    }
    enum fault by = strike(WRITE, len);
    if (by == KILL) die();
    if (by == TORN) len /= 2;
    ssize_t written = -1;
    if (by == FAIL_IO || by == FULL) errno = by == FAIL_IO ? EIO : ENOSPC;
    else written = positioned ? real_pwrite(fd, data, len, at) : real_write(fd, data, len);
    int error = written < 0 ? errno : 0;
    note(WRITE, error, by != NONE, path, NULL, (uint64_t)place, data, written < 0 ? len : (size_t)written);
    if (by == TORN) die();
    pthread_mutex_unlock(&turn);
    if (error) errno = error;
    return written;
}

ssize_t write(int fd, const void *data, size_t len) {
    char path[PATH_MAX];
    return tracked(fd, path) ? change_bytes(fd, path, data, len, 0, 0) : real_write(fd, data, len);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off_t at) {
    char path[PATH_MAX];
    return tracked(fd, path) ? change_bytes(fd, path, data, len, at, 1) : real_pwrite(fd, data, len, at);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at) { return pwrite64(fd, data, len, at); }

/* A write of several pieces may be short: only the first that holds bytes is written, and the caller goes on. */
ssize_t writev(int fd, const struct iovec *pieces, int n) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "writev");
    char path[PATH_MAX];
    if (!tracked(fd, path)) return real(fd, pieces, n);
    while (n > 1 && pieces->iov_len == 0) pieces++, n--;
    return n > 0 ? change_bytes(fd, path, pieces->iov_base, pieces->iov_len, 0, 0) : real(fd, pieces, n);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int n, off_t at) {
    static ssize_t (*real)(int, const struct iovec *, int, off_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pwritev64");
    char path[PATH_MAX];
    if (!tracked(fd, path)) return real(fd, pieces, n, at);
    while (n > 1 && pieces->iov_len == 0) pieces++, n--;
    return n > 0 ? change_bytes(fd, path, pieces->iov_base, pieces->iov_len, at, 1) : real(fd, pieces, n, at);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int n, off_t at) { return pwritev64(fd, pieces, n, at); }

static int change_sync(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    if (!tracked(fd, path)) return real(fd);
    pthread_mutex_lock(&turn);
    int error = struck_by(SYNC, path, NULL, 0);
    if (!error) {
        if (real(fd) < 0) error = errno;
        note(SYNC, error, 0, path, NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    if (error) errno = error;
    return error ? -1 : 0;
}

int fsync(int fd) {
    pthread_once(&once, begin);
    return change_sync(fd, real_fsync);
}

int fdatasync(int fd) {
    pthread_once(&once, begin);
    return change_sync(fd, real_fdatasync);
}

int ftruncate64(int fd, off_t len) {
    char path[PATH_MAX];
    if (!tracked(fd, path)) return real_ftruncate(fd, len);
    pthread_mutex_lock(&turn);
    int error = struck_by(LENGTH, path, NULL, (uint64_t)len);
    if (!error) {
        if (real_ftruncate(fd, len) < 0) error = errno;
        note(LENGTH, error, 0, path, NULL, (uint64_t)len, NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    if (error) errno = error;
    return error ? -1 : 0;
}

int ftruncate(int fd, off_t len) { return ftruncate64(fd, len); }

static int change_names(int op, const char *path, const char *other, mode_t mode) {
    char from[PATH_MAX], to[PATH_MAX];
    int ours = below(path, from), known = other ? below(other, to) : 0;
    if (!ours && !known) {
        return op == RENAME ? real_rename(path, other) : op == REMOVE ? real_unlink(path) : real_mkdir(path, mode);
    }
    pthread_mutex_lock(&turn);
    int error = struck_by(op, from, other ? to : NULL, 0);
    if (!error) {
        int done = op == RENAME ? real_rename(path, other) : op == REMOVE ? real_unlink(path) : real_mkdir(path, mode);
        if (done < 0) error = errno;
        note(op, error, 0, from, other ? to : NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    if (error) errno = error;
    return error ? -1 : 0;
}

int rename(const char *path, const char *other) { return change_names(RENAME, path, other, 0); }
int unlink(const char *path) { return change_names(REMOVE, path, NULL, 0); }
int mkdir(const char *path, mode_t mode) { return change_names(FOLDER, path, NULL, mode); }

/* Opening is a change where it makes a file, or empties one. */
static int change_open(int dir, const char *path, int flags, mode_t mode) {
    char absolute[PATH_MAX];
    struct stat found;
    int ours = (dir == AT_FDCWD || path[0] == '/') && below(path, absolute);
    int there = ours && stat(absolute, &found) == 0;
    int op = !ours ? 0 : !there && (flags & O_CREAT) ? CREATE : there && (flags & O_TRUNC) && S_ISREG(found.st_mode) ? EMPTY : 0;
    pthread_once(&once, begin);
    if (!op) return real_openat(dir, path, flags, mode);
    pthread_mutex_lock(&turn);
    int error = struck_by(op, absolute, NULL, 0), fd = -1;
    if (!error) {
        fd = real_openat(dir, path, flags, mode);
        if (fd < 0) error = errno;
        note(op, error, 0, absolute, NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    if (error) errno = error;
    return fd;
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {                                                   \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return change_open(AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
    MODE(flags)
    return change_open(AT_FDCWD, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...) {
    MODE(flags)
    return change_open(dir, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...) {
    MODE(flags)
    return change_open(dir, path, flags, mode);
}
