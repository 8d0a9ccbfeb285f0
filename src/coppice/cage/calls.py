# SPDX-License-Identifier: Apache-2.0
"""The system calls that no caged program needs, with their numbers: a literal table.

Numbers: Linux ``arch/x86/entry/syscalls/syscall_64.tbl`` and ``scripts/syscall.tbl`` (which aarch64 uses). They are
part of the kernel's interface and never change. None: the machine has no such call.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """A system call.

    Attributes:
        name: Its name.
        x86_64: Its number there.
        aarch64: Its number there.
    """

    name: str
    x86_64: int | None
    aarch64: int | None


def _since_5_1(name: str, number: int) -> Call:
    # Calls that came later than Linux 5.0 have one number on all machines.
    return Call(name, number, number)


CLONE = Call("clone", 56, 220)
KILL = Call("kill", 62, 129)
TKILL = Call("tkill", 200, 130)
TGKILL = Call("tgkill", 234, 131)
PRCTL = Call("prctl", 157, 167)
PRLIMIT = Call("prlimit64", 302, 261)
FCNTL = Call("fcntl", 72, 25)

UNKNOWN_CALLS = (_since_5_1("clone3", 435), _since_5_1("io_uring_setup", 425))
"""Answered as by a kernel that does not know them: programs then use older calls, whose arguments a filter can see."""

REFUSED_CALLS = (
    # Other processes.
    Call("fork", 57, None),
    Call("vfork", 58, None),
    Call("execveat", 322, 281),
    Call("ptrace", 101, 117),
    Call("process_vm_readv", 310, 270),
    Call("process_vm_writev", 311, 271),
    Call("kcmp", 312, 272),
    Call("setpgid", 109, 154),
    Call("setsid", 112, 157),
    Call("rt_sigqueueinfo", 129, 138),
    Call("rt_tgsigqueueinfo", 297, 240),
    Call("setpriority", 141, 140),
    Call("ioprio_set", 251, 30),
    Call("sched_setparam", 142, 118),
    Call("sched_setscheduler", 144, 119),
    Call("sched_setaffinity", 203, 122),
    Call("sched_setattr", 314, 274),
    Call("migrate_pages", 256, 238),
    Call("move_pages", 279, 239),
    _since_5_1("pidfd_send_signal", 424),
    _since_5_1("pidfd_open", 434),
    _since_5_1("pidfd_getfd", 438),
    _since_5_1("process_madvise", 440),
    _since_5_1("process_mrelease", 448),
    # Networks, and what other programs could be reached by.
    Call("socket", 41, 198),
    Call("socketpair", 53, 199),
    Call("bind", 49, 200),
    Call("connect", 42, 203),
    Call("listen", 50, 201),
    Call("accept", 43, 202),
    Call("accept4", 288, 242),
    _since_5_1("io_uring_enter", 426),
    _since_5_1("io_uring_register", 427),
    # Memory that no limit counts, and what other programs of the user may share.
    Call("memfd_create", 319, 279),
    _since_5_1("memfd_secret", 447),
    Call("shmget", 29, 194),
    Call("shmat", 30, 196),
    Call("shmctl", 31, 195),
    Call("semget", 64, 190),
    Call("semop", 65, 193),
    Call("semctl", 66, 191),
    Call("semtimedop", 220, 192),
    Call("msgget", 68, 186),
    Call("msgsnd", 69, 189),
    Call("msgrcv", 70, 188),
    Call("msgctl", 71, 187),
    Call("mq_open", 240, 180),
    Call("mq_unlink", 241, 181),
    # What the tree of files looks like, and files that are none.
    Call("mount", 165, 40),
    Call("umount2", 166, 39),
    Call("pivot_root", 155, 41),
    Call("chroot", 161, 51),
    _since_5_1("open_tree", 428),
    _since_5_1("move_mount", 429),
    _since_5_1("fsopen", 430),
    _since_5_1("fsconfig", 431),
    _since_5_1("fsmount", 432),
    _since_5_1("fspick", 433),
    _since_5_1("mount_setattr", 442),
    _since_5_1("statmount", 457),
    _since_5_1("listmount", 458),
    _since_5_1("open_tree_attr", 467),
    Call("name_to_handle_at", 303, 264),
    Call("open_by_handle_at", 304, 265),
    Call("fanotify_init", 300, 262),
    Call("fanotify_mark", 301, 263),
    Call("quotactl", 179, 60),
    _since_5_1("quotactl_fd", 443),
    Call("mknod", 133, None),
    Call("mknodat", 259, 33),
    Call("link", 86, None),
    Call("linkat", 265, 37),
    Call("symlink", 88, None),
    Call("symlinkat", 266, 36),
    # Whose a file is, and who may do what with it.
    Call("chmod", 90, None),
    Call("fchmod", 91, 52),
    Call("fchmodat", 268, 53),
    _since_5_1("fchmodat2", 452),
    Call("chown", 92, None),
    Call("lchown", 94, None),
    Call("fchown", 93, 55),
    Call("fchownat", 260, 54),
    Call("utime", 132, None),
    Call("utimes", 235, None),
    Call("futimesat", 261, None),
    Call("utimensat", 280, 88),
    Call("setxattr", 188, 5),
    Call("lsetxattr", 189, 6),
    Call("fsetxattr", 190, 7),
    Call("removexattr", 197, 14),
    Call("lremovexattr", 198, 15),
    Call("fremovexattr", 199, 16),
    _since_5_1("setxattrat", 463),
    _since_5_1("removexattrat", 466),
    _since_5_1("file_setattr", 469),
    # Who the program is.
    Call("unshare", 272, 97),
    Call("setns", 308, 268),
    Call("personality", 135, 92),
    Call("seccomp", 317, 277),
    Call("add_key", 248, 217),
    Call("request_key", 249, 218),
    Call("keyctl", 250, 219),
    # The kernel and the machine.
    Call("bpf", 321, 280),
    Call("perf_event_open", 298, 241),
    Call("userfaultfd", 323, 282),
    Call("init_module", 175, 105),
    Call("finit_module", 313, 273),
    Call("delete_module", 176, 106),
    Call("kexec_load", 246, 104),
    Call("kexec_file_load", 320, 294),
    Call("reboot", 169, 142),
    Call("swapon", 167, 224),
    Call("swapoff", 168, 225),
    Call("acct", 163, 89),
    Call("syslog", 103, 116),
    Call("settimeofday", 164, 170),
    Call("clock_settime", 227, 112),
    Call("adjtimex", 159, 171),
    Call("clock_adjtime", 305, 266),
    Call("sethostname", 170, 161),
    Call("setdomainname", 171, 162),
    Call("iopl", 172, None),
    Call("ioperm", 173, None),
    Call("modify_ldt", 154, None),
    Call("vhangup", 153, 58),
    Call("nfsservctl", 180, 42),
    Call("lookup_dcookie", 212, 18),
)
"""Answered with EPERM."""

IDENTITY_CALLS = (
    Call("capset", 126, 91),
    Call("setuid", 105, 146),
    Call("setgid", 106, 144),
    Call("setreuid", 113, 145),
    Call("setregid", 114, 143),
    Call("setgroups", 116, 159),
    Call("setresuid", 117, 147),
    Call("setresgid", 119, 149),
    Call("setfsuid", 122, 151),
    Call("setfsgid", 123, 152),
)
"""Likewise, but where root's program becomes nobody's on its way in. They give a program no right that it lacks."""
