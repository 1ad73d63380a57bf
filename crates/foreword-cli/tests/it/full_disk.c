/* Preloaded into a program: makes the n-th of its calls that change the disk fail as on a full one.
 *
 * A seccomp filter turns these calls into SIGSYS, whoever makes them and past whichever library; the handler counts those
 * that concern regular files and makes all but the chosen one itself, marked by a sixth argument that none of them has.
 *
 *   FULL_DISK_AT       which call fails, from 1
 *   FULL_DISK_STAYS    if set, so do all later ones that take space (not renames and flushes, which a full disk allows)
 *   FULL_DISK_REPORT   a file that is made when the call fails, with its name in it
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define MARK 0x666f7265776f7264L

#if defined(__x86_64__)
#define ARGUMENT(u, i) ((u)->uc_mcontext.gregs[((const int[]){REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8})[i]])
#define RESULT(u) ((u)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARGUMENT(u, i) ((long)(u)->uc_mcontext.regs[i])
#define RESULT(u) ((u)->uc_mcontext.regs[0])
#endif

enum kind {
    WRITES, /* to a descriptor, which must be a regular file's */
    OPENS,  /* if it may make a file: with the flags in argument 1, */
    OPENS_AT, /* or in argument 2 */
    TAKES,  /* space, always */
    MOVES,  /* or flushes: takes none */
};

static const struct { long number; enum kind kind; const char *name; } CALLS[] = {
    {SYS_write, WRITES, "write"},
    {SYS_writev, WRITES, "writev"},
    {SYS_pwrite64, WRITES, "pwrite"},
    {SYS_pwritev, WRITES, "pwritev"},
    {SYS_openat, OPENS_AT, "openat"},
    {SYS_mkdirat, TAKES, "mkdirat"},
    {SYS_linkat, TAKES, "linkat"},
    {SYS_symlinkat, TAKES, "symlinkat"},
    {SYS_truncate, TAKES, "truncate"},
    {SYS_ftruncate, TAKES, "ftruncate"},
    {SYS_fallocate, TAKES, "fallocate"},
    {SYS_renameat2, MOVES, "renameat2"},
    {SYS_fsync, MOVES, "fsync"},
    {SYS_fdatasync, MOVES, "fdatasync"},
#if defined(__x86_64__)
    {SYS_open, OPENS, "open"},
    {SYS_creat, TAKES, "creat"},
    {SYS_mkdir, TAKES, "mkdir"},
    {SYS_link, TAKES, "link"},
    {SYS_symlink, TAKES, "symlink"},
    {SYS_rename, MOVES, "rename"},
    {SYS_renameat, MOVES, "renameat"},
#endif
};
#define N_CALLS (sizeof CALLS / sizeof *CALLS)

static long fails_at, stays_full, n_seen;
static const char *report;

static int is_regular(int descriptor) {
    struct stat found;
    return fstat(descriptor, &found) == 0 && S_ISREG(found.st_mode);
}

static int may_make(long flags) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

static void tell(const char *name) {
    long file = syscall(SYS_openat, (long)AT_FDCWD, report, (long)(O_CREAT | O_WRONLY | O_APPEND), 0644L, 0L, MARK);
    syscall(SYS_write, file, name, strlen(name), 0L, 0L, MARK);
    close(file);
}

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal;
    int before = errno;
    ucontext_t *user = context;
    size_t i = 0;
    while (i < N_CALLS && CALLS[i].number != info->si_syscall) i++;
    enum kind kind = CALLS[i].kind;
    int counts = kind == WRITES     ? is_regular(ARGUMENT(user, 0))
                 : kind == OPENS    ? may_make(ARGUMENT(user, 1))
                 : kind == OPENS_AT ? may_make(ARGUMENT(user, 2))
                                    : 1;
    long seen = counts ? __atomic_add_fetch(&n_seen, 1, __ATOMIC_SEQ_CST) : 0;
    if (counts && (seen == fails_at || (stays_full && seen > fails_at && kind != MOVES))) {
        if (seen == fails_at) tell(CALLS[i].name);
        RESULT(user) = -ENOSPC;
    } else {
        long result = syscall(info->si_syscall, ARGUMENT(user, 0), ARGUMENT(user, 1), ARGUMENT(user, 2),
                              ARGUMENT(user, 3), ARGUMENT(user, 4), MARK);
        RESULT(user) = result == -1 ? -errno : result;
    }
    errno = before;
}

static void fail(const char *what) {
    if (write(2, what, strlen(what)) < 0) _exit(98);
    _exit(99);
}

__attribute__((constructor)) static void install(void) {
    const char *at = getenv("FULL_DISK_AT");
    report = getenv("FULL_DISK_REPORT");
    if (!at || !report) return;
    fails_at = atol(at);
    stays_full = getenv("FULL_DISK_STAYS") != NULL;

    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSYS, &action, NULL)) fail("no handler for SIGSYS\n");

    struct sock_filter filter[7 + 2 * N_CALLS];
    size_t n = 0;
#define STEP(...) filter[n++] = (struct sock_filter)__VA_ARGS__
#define FIELD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)
    /* A call with the mark is the handler's own (little-endian halves of the sixth argument). */
    STEP(FIELD(offsetof(struct seccomp_data, args[5])));
    STEP(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(MARK & 0xffffffff), 0, 3));
    STEP(FIELD(offsetof(struct seccomp_data, args[5]) + 4));
    STEP(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(MARK >> 32), 0, 1));
    STEP(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    STEP(FIELD(offsetof(struct seccomp_data, nr)));
    for (size_t i = 0; i < N_CALLS; i++) {
        STEP(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)CALLS[i].number, 0, 1));
        STEP(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
    }
    STEP(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    struct sock_fprog program = {.len = n, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("no PR_SET_NO_NEW_PRIVS\n");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) fail("no seccomp filter\n");
}
