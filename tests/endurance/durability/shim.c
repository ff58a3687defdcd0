/* A library to be preloaded: it counts the calls that change files below a folder, and fails one of them.

   fail_from(folder, log, nth, way) arms it: every counted call is a line of the file `log`, "write 0 PATH", and
   the nth fails (none where nth is 0): `way` is the errno that it gets, with LASTING added where the calls after
   it fail too (a disk stays full, a file system read-only), or SHORT where only half of the bytes are written.
   The number in a line is what the call was given of that. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SHORT = -1, LASTING = 1 << 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static int log_fd = -1;
static long calls, failing;
static int fault;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

void fail_from(const char *folder, const char *log, long nth, int way)
{
    snprintf(root, sizeof root, "%s", folder);
    log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    failing = nth;
    fault = way;
}

/* The place that `path`, taken from the folder `at`, names; it need not exist. */
static void resolve(int at, const char *path, char *place)
{
    char base[PATH_MAX], link[64];
    ssize_t length = 0;
    if (path[0] != '/') {
        if (at == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        length = readlink(link, base, sizeof base - 1);
    }
    base[length < 0 ? 0 : length] = 0;
    while (!strncmp(path, "./", 2))
        path += 2;
    if (snprintf(place, PATH_MAX, "%s%s%s", base, length > 0 && path[0] ? "/" : "", path) >= PATH_MAX)
        place[0] = 0;
}

/* What a disk that is full, or can only be read, no longer does. */
static int hit_later(const char *call)
{
    if (fault == (ENOSPC | LASTING))
        return !strcmp(call, "write") || !strcmp(call, "open") || !strcmp(call, "mkdir");
    return strcmp(call, "write") && strcmp(call, "fsync") && strcmp(call, "flock") && strcmp(call, "opendir");
}

/* Whether a call fails: its errno, SHORT, or 0. */
static int counted(const char *call, int at, const char *path)
{
    char place[PATH_MAX], line[PATH_MAX + 32];
    int way = 0, before = errno;
    if (log_fd < 0)
        return 0;
    resolve(at, path, place);
    size_t length = strlen(root);
    if (!strncmp(place, root, length) && place[length] == '/') {
        pthread_mutex_lock(&lock);
        calls++;
        int lasting = fault != SHORT && fault & LASTING;
        if (failing && (calls == failing || (calls > failing && lasting && hit_later(call))))
            way = lasting ? fault & ~LASTING : fault;
        int size = snprintf(line, sizeof line, "%s %d %s\n", call, way, place + length + 1);
        if (REAL(write)(log_fd, line, size) != size)
            abort();
        pthread_mutex_unlock(&lock);
    }
    errno = before;
    return way;
}

/* One function that fails as a whole. */
#define FAILS(call, at, path)                \
    do {                                     \
        int way = counted(call, at, path);   \
        if (way > 0) {                       \
            errno = way;                     \
            return -1;                       \
        }                                    \
    } while (0)

static const char *opening(int flags)
{
    if (flags & (O_WRONLY | O_RDWR | O_CREAT))
        return "open";
    return flags & O_DIRECTORY ? "opendir" : NULL;
}

#define OPEN(name, at, parameters, ...)                            \
    int name parameters                                            \
    {                                                              \
        mode_t mode = 0;                                           \
        if (flags & (O_CREAT | __O_TMPFILE)) {                     \
            va_list rest;                                          \
            va_start(rest, flags);                                 \
            mode = va_arg(rest, mode_t);                           \
            va_end(rest);                                          \
        }                                                          \
        if (opening(flags))                                        \
            FAILS(opening(flags), at, path);                       \
        return REAL(name)(__VA_ARGS__, flags, mode);               \
    }

OPEN(open, AT_FDCWD, (const char *path, int flags, ...), path)
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), path)
OPEN(openat, at, (int at, const char *path, int flags, ...), at, path)
OPEN(openat64, at, (int at, const char *path, int flags, ...), at, path)

#define WRITE(name, parameters, ...)                          \
    ssize_t name parameters                                   \
    {                                                         \
        int way = counted("write", fd, "");                   \
        if (way == SHORT && size > 1)                         \
            size /= 2;                                        \
        else if (way > 0) {                                   \
            errno = way;                                      \
            return -1;                                        \
        }                                                     \
        return REAL(name)(__VA_ARGS__);                       \
    }

WRITE(write, (int fd, const void *bytes, size_t size), fd, bytes, size)
WRITE(pwrite, (int fd, const void *bytes, size_t size, off_t from), fd, bytes, size, from)
WRITE(pwrite64, (int fd, const void *bytes, size_t size, off64_t from), fd, bytes, size, from)
WRITE(writev, (int fd, const struct iovec *bytes, int size), fd, bytes, size)

#define CALL(name, call, at, path, parameters, ...)           \
    int name parameters                                       \
    {                                                         \
        FAILS(call, at, path);                                \
        return REAL(name)(__VA_ARGS__);                       \
    }

CALL(fsync, "fsync", fd, "", (int fd), fd)
CALL(fdatasync, "fsync", fd, "", (int fd), fd)
CALL(ftruncate, "ftruncate", fd, "", (int fd, off_t size), fd, size)
CALL(ftruncate64, "ftruncate", fd, "", (int fd, off64_t size), fd, size)
CALL(mkdir, "mkdir", AT_FDCWD, path, (const char *path, mode_t mode), path, mode)
CALL(mkdirat, "mkdir", at, path, (int at, const char *path, mode_t mode), at, path, mode)
CALL(chmod, "chmod", AT_FDCWD, path, (const char *path, mode_t mode), path, mode)
CALL(fchmod, "chmod", fd, "", (int fd, mode_t mode), fd, mode)
CALL(fchmodat, "chmod", at, path, (int at, const char *path, mode_t mode, int flags), at, path, mode, flags)
CALL(rename, "rename", AT_FDCWD, to, (const char *from, const char *to), from, to)
CALL(renameat, "rename", at, to, (int was, const char *from, int at, const char *to), was, from, at, to)
CALL(unlink, "unlink", AT_FDCWD, path, (const char *path), path)
CALL(unlinkat, "unlink", at, path, (int at, const char *path, int flags), at, path, flags)
CALL(rmdir, "unlink", AT_FDCWD, path, (const char *path), path)
CALL(flock, "flock", fd, "", (int fd, int how), fd, how)
