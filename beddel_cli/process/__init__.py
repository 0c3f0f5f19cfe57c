"""Programs behind walls: fresh namespaces, an empty root, limits over the whole tree.

Four processes take part. The supervisor (this command) forks a launcher before it has a key. The
launcher takes an id that owns nothing, makes the namespaces and starts the init, whose parent is
the supervisor; then it is gone. The init is process 1 of the sandbox: it builds the file system
out of what the supervisor sends it, gives every right up, says how each step went, and only on the
supervisor's word starts the program, which inherits the loss.

    launch      fork, namespaces, the talk between supervisor and init
    filesystem  what the program sees: an empty root, system folders, workspace, mounts
    rights      ids, capabilities, rlimits, Landlock, the system-call filter, in this order
    filter      the system-call filter as bytes (pure)
    kernel      the system calls Python has no function for
    cgroup      a leaf of its own for the program's tree, where one may be made
    tree        the same figures from /proc where none may
    meters      what limits are checked against, by the best source, as seldom as is safe
    streams     the program's standard streams, relayed by a loop that nobody can block
    signals     signals to this command, noted while a program runs
    outer_terminal  the caller's terminal while the program has one of its own
    supervise   the loop over clock, streams, limits and signals; the ending
    collect     what the program left, taken out after its last process is dead
    mount_rules which host folders may be shown at all (pure), and opening them safely
"""
