"""Programs behind walls: fresh namespaces, an empty root, limits over the whole tree.

Four processes take part. The supervisor (this command) forks a launcher before it has a key. The
launcher takes an id that owns nothing, makes the namespaces and starts the init, whose parent is
the supervisor; then it is gone. The init is process 1 of the sandbox: it builds the file system
out of what the supervisor sends it, gives every right up, says how each step went, and only on the
supervisor's word starts the program, which inherits the loss.

    program     what the walls are told and what comes back: values only
    messages    what travels between supervisor and init, checked on arrival
    launch      fork, namespaces, the talk between supervisor and init
    init        the launcher and the init themselves
    filesystem  what the program sees: an empty root, system folders, workspace, mounts
    rights      ids, capabilities, Landlock, the system-call filter, rlimits, in this order
    filter      the system-call filter as bytes (pure)
    kernel      the system calls Python has no function for
    cgroup      a leaf of its own for the program's tree, where one may be made
    tree        the same figures from /proc where none may
    sockets     what sockets hold, where no cgroup counts it
    meters      what limits are checked against, by the best source, as seldom as is safe
    streams, visible_sink    the program's streams, relayed by a loop that nobody can block
    signals     signals to this command, noted while a program runs
    outer_terminal  the caller's terminal while the program has one of its own
    supervise   the loop over clock, streams, limits and signals; the ending
    collect, collect_rules   what the program left, taken out after its last process is dead
    mount_rules, mount_sources  which host folders may be shown (pure), and opening them safely
    machine_facts, remedies  why this machine refuses a step, and what helps
    failures    what to say of a step that failed and it is not this machine that refuses it

Where namespaces are refused and a profile is content with Landlock, a guardian stands for the init:

    landlock_rung   the launcher of that rung, used as `launch` is
    landlock_terms  what it does not stop, and what it cannot show (pure)
    guardian        the processes around a program that has no namespaces
    strict_rules    Landlock rules, and a second filter in front of the first
    by_name         mode and times of files, set for a program that may not do so itself
    scratch         the one folder the program may write to, measured and swept
    workspace_copy  a workspace copied there, and what changed of it
"""
