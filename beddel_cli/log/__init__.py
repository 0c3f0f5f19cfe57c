"""The log of runs: one append-only Merkle tree for each tenant, kept in SQLite.

merkle        the tree of RFC 6962: hashes, roots, proofs and their check (pure)
checkpoint    its signed heads and proofs, in the formats of C2SP (pure)
log_entry     what one entry says of a run, as bytes (pure)
ledger_file   the file: made, opened, and refused where it is not ours
sqlite_core   SQLite without its Python package
ledger        entries with their hashes and newest checkpoint in that file; append and read
run_log       a run's two entries, its start and its end
audit         what can be told of a whole log (pure)
audit_anchor  heads kept elsewhere: a file, a git repository, syslog
"""
