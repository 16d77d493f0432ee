// Preloaded into a node: makes the syncs or writes of files below one directory fail or wait.
//
// FAULTS_DIRECTORY is that directory. FAULTS_PLAN is a file that says what to do, and while it does not exist nothing
// happens: it holds words like "sync-eio", "fallocate-eio" and "sync-delay=3000" (milliseconds, at most until the file
// is gone).
// Each fault adds a line to FAULTS_PLAN.hits, which is how a test knows that it was in force.
//
// Own calls go straight to the kernel: the functions they would use are the ones replaced here.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define STEP_MS 20

static const char *directory, *plan_path;
static char hits_path[PATH_MAX];

__attribute__((constructor)) static void begin(void) {
    directory = getenv("FAULTS_DIRECTORY");
    plan_path = getenv("FAULTS_PLAN");
    if (plan_path) snprintf(hits_path, sizeof hits_path, "%s.hits", plan_path);
}

// The plan's words, or 0 where there is none.
static int read_plan(char *plan, size_t size) {
    if (!directory || !plan_path) return 0;
    long file = syscall(SYS_openat, AT_FDCWD, plan_path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0) return 0;
    long length = syscall(SYS_read, (int)file, plan, size - 1);
    syscall(SYS_close, (int)file);
    if (length <= 0) return 0;
    plan[length] = 0;
    return 1;
}

static int is_below(int fd, char *path, size_t size) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    size_t prefix = strlen(directory);
    return strncmp(path, directory, prefix) == 0 && (path[prefix] == '/' || path[prefix] == 0);
}

static void note(const char *what, const char *path) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", what, path);
    long file = syscall(SYS_openat, AT_FDCWD, hits_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) return;
    syscall(SYS_write, (int)file, line, (size_t)length);
    syscall(SYS_close, (int)file);
}

static void wait_while_planned(long left_ms) {
    for (; left_ms > 0 && syscall(SYS_faccessat, AT_FDCWD, plan_path, F_OK) == 0; left_ms -= STEP_MS) {
        struct timespec step = {0, STEP_MS * 1000000L};
        nanosleep(&step, NULL);
    }
}

// Whether the call `kind` ("sync", "write" or "fallocate") on `fd` is to fail with errno set; may wait first.
static int fails(const char *kind, int fd) {
    char plan[256], path[PATH_MAX], word[32];
    int before = errno;
    if (!read_plan(plan, sizeof plan) || !is_below(fd, path, sizeof path)) {
        errno = before;
        return 0;
    }
    snprintf(word, sizeof word, "%s-delay=", kind);
    const char *delay = strstr(plan, word);
    if (delay) {
        note(kind, path);
        wait_while_planned(atol(delay + strlen(word)));
    }
    snprintf(word, sizeof word, "%s-eio", kind);
    if (strstr(plan, word)) {
        note(kind, path);
        errno = EIO;
        return 1;
    }
    errno = before;
    return 0;
}

#define REPLACED(kind, type, name, parameters, arguments)                  \
    type name parameters {                                                 \
        static type (*real) parameters;                                    \
        if (!real) real = (type (*) parameters)dlsym(RTLD_NEXT, #name);    \
        return fails(kind, fd) ? -1 : real arguments;                      \
    }

REPLACED("sync", int, fsync, (int fd), (fd))
REPLACED("sync", int, fdatasync, (int fd), (fd))
REPLACED("fallocate", int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
REPLACED("fallocate", int, fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
REPLACED("write", ssize_t, write, (int fd, const void *bytes, size_t size), (fd, bytes, size))
REPLACED("write", ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
REPLACED("write", ssize_t, pwrite, (int fd, const void *bytes, size_t size, off_t at), (fd, bytes, size, at))
REPLACED("write", ssize_t, pwrite64, (int fd, const void *bytes, size_t size, off64_t at), (fd, bytes, size, at))
REPLACED("write", ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at))
REPLACED("write", ssize_t, pwritev64, (int fd, const struct iovec *parts, int count, off64_t at),
         (fd, parts, count, at))
